-- A request that is free: the user's allowance is not used up and has to be counted.
\set user random(1, 20000)
SELECT exa_billing.record_exa_usage('free-' || :user, '/search', 5000);
