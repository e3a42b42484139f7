-- A paid request of one of :users users, for themselves.
\set user random(1, :users)
SELECT exa_billing.record_exa_usage('user-' || :user, '/search', 5000);
