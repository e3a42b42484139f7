-- Every function and type belongs to exa_billing_owner, and PUBLIC may use none of them. A script that
-- updates the extension ends with the same block. It leaves alone what has its owner already: PostgreSQL
-- would note the rights that an administrator has given meanwhile as the extension's own, and pg_dump
-- would leave them out. What somebody else has put into the schema stays theirs.
DO $$
DECLARE
    member record;
BEGIN
    FOR member IN
        SELECT p.oid::pg_catalog.regprocedure AS name FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'exa_billing'::pg_catalog.regnamespace
          AND p.proowner <> 'exa_billing_owner'::pg_catalog.regrole
          AND EXISTS (
              SELECT FROM pg_catalog.pg_depend AS d
              WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
                AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e')
    LOOP
        EXECUTE pg_catalog.format('ALTER ROUTINE %s OWNER TO exa_billing_owner', member.name);
        EXECUTE pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', member.name);
        EXECUTE pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO exa_billing_owner', member.name);
    END LOOP;
    FOR member IN
        SELECT t.oid::pg_catalog.regtype AS name FROM pg_catalog.pg_type AS t
        JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid AND c.relkind = 'c'
        WHERE t.typnamespace = 'exa_billing'::pg_catalog.regnamespace
          AND t.typowner <> 'exa_billing_owner'::pg_catalog.regrole
          AND EXISTS (
              SELECT FROM pg_catalog.pg_depend AS d
              WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = t.oid
                AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e')
    LOOP
        EXECUTE pg_catalog.format('ALTER TYPE %s OWNER TO exa_billing_owner', member.name);
        EXECUTE pg_catalog.format('REVOKE ALL ON TYPE %s FROM PUBLIC', member.name);
    END LOOP;
END
$$;
