-- The attached tables. $1 one of them by its name (null: all). A table is found by its oid while it
-- bears our trigger for this source; in a restored database, where oids are others, by its name. The
-- catalog is asked, since to_regclass() wants rights on the schema.
SELECT s.source_name, c.oid, c.relowner,
       CASE WHEN c.oid IS NOT NULL THEN format('%I.%I', n.nspname, c.relname) END, s.spend_category, s.source,
       s.column_map::text, s.on_delete, s.counts_from,
       format('%I.%I', s.relation_schema, s.relation_name),
       CASE WHEN c.oid = s.relation_oid THEN (
           SELECT jsonb_object_agg(a.attnum, a.attname)::text
           FROM pg_catalog.pg_attribute AS a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) END
FROM exa_billing.spend_sources AS s
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = coalesce((
        SELECT t.tgrelid FROM pg_catalog.pg_trigger AS t
        WHERE t.tgrelid = s.relation_oid AND t.tgname = 'exa_billing_capture_insert'
          AND t.tgargs = convert_to(s.source_name, getdatabaseencoding()) || decode('00', 'hex')), (
        SELECT found.oid FROM pg_catalog.pg_class AS found
        JOIN pg_catalog.pg_namespace AS schema ON schema.oid = found.relnamespace
        WHERE schema.nspname = s.relation_schema::name AND found.relname = s.relation_name::name))
LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT s.is_own AND s.detached_at IS NULL AND ($1 IS NULL OR s.source_name = $1)
ORDER BY s.source_name
