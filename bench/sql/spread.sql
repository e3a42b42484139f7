\set user random(1, 20000)
SELECT exa_billing.record_exa_usage('user-' || :user, '/search', 5000);
