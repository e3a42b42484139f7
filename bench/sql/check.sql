-- May this user make a request? Of 20,000 users, whose allowance is used up and who have credit.
\set user random(1, 20000)
SELECT exa_billing.check_exa_usage('user-' || :user);
