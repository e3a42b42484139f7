-- Where row security was asked for, every table and every partition has it.
SELECT 'I10'::text, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text,
       format('table %I has no row security; call setup()', c.relname)
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace = 'exa_billing'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p')
  AND NOT c.relrowsecurity
  AND EXISTS (SELECT FROM exa_billing.applied_scripts WHERE script_name = 'row_security')
ORDER BY 7
