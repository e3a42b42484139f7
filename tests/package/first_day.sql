-- The first day with an installed package: what a new user does, and that it adds up.
\set ON_ERROR_STOP on
CREATE EXTENSION exa_billing;
SELECT exa_billing.setup();
SELECT exa_billing.start_worker();
SELECT exa_billing.set_free_allowance(1000000, '2020-01-01');
SELECT exa_billing.grant_credit('user', 'ada', 5000000);
SELECT exa_billing.record_exa_usage('ada', '/search', 700000, idempotency_key => 'key-' || n)
FROM generate_series(1, 4) AS n;

DO $$
DECLARE
    began timestamptz := clock_timestamp();
    balance bigint;
BEGIN
    -- The second request began within the allowance of one dollar, and was free as a whole.
    SELECT b.balance_microdollars INTO balance FROM exa_billing.account_balance('user', 'ada') AS b;
    ASSERT balance = 5000000 - 2 * 700000, format('the balance is %s', balance);
    WHILE EXISTS (SELECT FROM exa_billing.unposted_spend) LOOP
        ASSERT clock_timestamp() < began + interval '60 s', 'the worker does not post';
        PERFORM pg_sleep(0.05);
        COMMIT;
    END LOOP;
    ASSERT NOT EXISTS (SELECT FROM exa_billing.verify_books()), 'the books do not add up';
END
$$;
SELECT extversion FROM pg_extension WHERE extname = 'exa_billing';
