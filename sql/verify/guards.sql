-- The guards stand: on every journal, on each of its partitions, on everything locked in.
WITH guarded AS (
    SELECT c.oid, c.relname, g.trigger_name
    FROM pg_catalog.pg_class AS c
    JOIN (VALUES ('exa_usage_log', 'append_only'), ('spend_log', 'append_only'),
                 ('credit_transactions', 'append_only'),
                 ('credit_transactions', 'by_functions_only'),
                 ('credit_transactions', 'by_erasure_only'), ('idempotency_keys', 'append_only'),
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
    JOIN pg_catalog.pg_proc AS f ON f.oid = t.tgfoid
    WHERE t.tgrelid = guarded.oid AND t.tgname = guarded.trigger_name AND t.tgenabled = 'A'
      -- before each statement: 2 + delete 8 + update 16 + truncate 32
      AND t.tgtype = CASE t.tgname WHEN 'no_truncate' THEN 2 + 32
                                   WHEN 'by_functions_only' THEN 2 + 16
                                   WHEN 'by_erasure_only' THEN 2 + 16 ELSE 2 + 8 + 16 + 32 END
      AND t.tgqual IS NULL AND f.pronamespace = 'exa_billing'::pg_catalog.regnamespace
      AND f.proname = CASE WHEN t.tgname IN ('by_functions_only', 'by_erasure_only')
                           THEN 'refuse_direct_change' ELSE 'refuse_change' END
      AND (cardinality(t.tgattr::int2[]) = 0 OR t.tgname IN ('locked_in', 'by_functions_only')
           OR guarded.relname = 'credit_transactions'))
UNION ALL -- each attached table, each partition of it, has its four triggers
SELECT 'I10', NULL, NULL, NULL, NULL, NULL,
       CASE WHEN root.oid IS NULL
            THEN format('attached table %I.%I does not exist', s.relation_schema, s.relation_name)
            ELSE format('table %s has no enabled trigger "%s" of spend source %s; call setup()',
                        tree.relid, wanted.trigger_name, s.source_name) END
FROM exa_billing.spend_sources AS s
CROSS JOIN (VALUES ('exa_billing_capture_insert', 4, 'capture_spend'),
                   ('exa_billing_capture_update', 16, 'capture_spend'),
                   ('exa_billing_capture_delete', 8, 'capture_spend'),
                   ('exa_billing_refuse_truncate', 2 + 32, 'refuse_truncate'))
    AS wanted(trigger_name, kind, function_name)
LEFT JOIN LATERAL (
    SELECT coalesce((SELECT t.tgrelid FROM pg_catalog.pg_trigger AS t
                     WHERE t.tgrelid = s.relation_oid AND t.tgname = 'exa_billing_capture_insert'),
                    (SELECT c.oid FROM pg_catalog.pg_class AS c
                     JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                     WHERE n.nspname = s.relation_schema::name AND c.relname = s.relation_name::name)) AS oid
) AS root ON root.oid IS NOT NULL
LEFT JOIN LATERAL (
    SELECT root.oid::regclass AS relid WHERE root.oid IS NOT NULL
    UNION SELECT relid FROM pg_catalog.pg_partition_tree(root.oid::regclass)
) AS tree ON true
WHERE NOT s.is_own AND s.detached_at IS NULL AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_trigger AS t
    JOIN pg_catalog.pg_proc AS f ON f.oid = t.tgfoid
    WHERE t.tgrelid = tree.relid AND t.tgname = wanted.trigger_name AND t.tgenabled = 'A'
      AND t.tgtype = wanted.kind AND f.proname = wanted.function_name
      AND t.tgqual IS NULL AND f.pronamespace = 'exa_billing'::pg_catalog.regnamespace
      AND t.tgargs = convert_to(s.source_name, getdatabaseencoding()) || decode('00', 'hex'))
ORDER BY 7
