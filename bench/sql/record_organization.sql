-- A paid request of one of 20,000 users for one of :organizations organizations.
\set user random(1, 20000)
\set organization 1 + :user % :organizations
SELECT exa_billing.record_exa_usage('user-' || :user, '/search', 5000, 'org-' || :organization);
