-- A paid request with an idempotency key that nobody has used.
\set user random(1, 20000)
\set key random(1, 9000000000000000000)
SELECT exa_billing.record_exa_usage('user-' || :user, '/search', 5000, NULL, 'key-' || :key);
