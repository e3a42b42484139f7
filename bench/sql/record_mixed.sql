-- A paid request of one of 20,000 users; every tenth is made for one organization.
\set user random(1, 20000)
\set tenth random(1, 10)
\if :tenth = 1
SELECT exa_billing.record_exa_usage('user-' || :user, '/search', 5000, 'org-1');
\else
SELECT exa_billing.record_exa_usage('user-' || :user, '/search', 5000);
\endif
