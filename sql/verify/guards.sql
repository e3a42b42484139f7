-- The guards stand: on every journal, on each of its partitions, on everything locked in.
WITH guarded AS (
    SELECT c.oid, c.relname, g.trigger_name
    FROM pg_catalog.pg_class AS c
    JOIN (VALUES ('exa_usage_log', 'append_only'), ('spend_log', 'append_only'),
                 ('credit_transactions', 'append_only'),
                 ('credit_transactions', 'by_functions_only'), ('idempotency_keys', 'append_only'),
                 ('exa_monthly_allowance', 'locked_in'), ('unposted_spend', 'no_truncate'))
        AS g(table_name, trigger_name) ON c.relname = g.table_name
    WHERE c.relnamespace = 'exa_billing'::pg_catalog.regnamespace
    UNION ALL
    SELECT p.oid, p.relname, 'append_only'
    FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS p ON p.oid = i.inhrelid
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhparent
    WHERE c.relnamespace = 'exa_billing'::pg_catalog.regnamespace
      AND c.relname IN ('exa_usage_log', 'spend_log') AND p.relkind = 'r'
)
SELECT 'I10'::text, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text,
       format('table %I has no enabled guard "%s"; call setup()', relname, trigger_name)
FROM guarded
WHERE NOT EXISTS (
    SELECT FROM pg_catalog.pg_trigger AS t
    WHERE t.tgrelid = guarded.oid AND t.tgname = guarded.trigger_name AND t.tgenabled = 'A')
ORDER BY relname
