-- That the journals and the keys, which are large, hold what they held, without reading them: each part
-- lies in the same file, this transaction has written no row of it, and the columns are there.
SELECT format('what was done to %s', part.relname),
       format('file %s, %s rows inserted, %s updated, %s deleted', pg_relation_filenode(part.oid),
              pg_stat_get_xact_tuples_inserted(part.oid), pg_stat_get_xact_tuples_updated(part.oid),
              pg_stat_get_xact_tuples_deleted(part.oid))
FROM pg_catalog.pg_class AS part
LEFT JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = part.oid
LEFT JOIN pg_catalog.pg_class AS journal ON journal.oid = i.inhparent
WHERE part.relnamespace = 'exa_billing'::pg_catalog.regnamespace AND part.relkind = 'r'
  AND (part.relname = 'idempotency_keys' OR journal.relname IN ('exa_usage_log', 'spend_log'))
UNION ALL
SELECT format('column %s of %s', a.attname, c.relname), format('number %s, %s', a.attnum, a.atttypid::regtype)
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'exa_billing'::pg_catalog.regnamespace
  AND c.relname IN ('idempotency_keys', 'exa_usage_log', 'spend_log')
