\set user random(1, 20000)
SELECT exa_billing.check_exa_usage('user-' || :user);
