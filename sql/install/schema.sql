-- The role that owns schema, functions and books. SECURITY DEFINER then means this role and never
-- a superuser: whatever a hostile column default or trigger could run, it runs without rights
-- beyond the books.
DO $$
DECLARE
    present record;
    present_owner name;
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'exa_billing_owner') THEN
            CREATE ROLE exa_billing_owner NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL; -- another database of this cluster created it at the same moment
    END;
    SELECT rolsuper, rolcanlogin INTO present FROM pg_catalog.pg_roles WHERE rolname = 'exa_billing_owner';
    IF present.rolsuper OR present.rolcanlogin THEN
        RAISE EXCEPTION 'role exa_billing_owner must be NOSUPERUSER and NOLOGIN'
            USING ERRCODE = '42501', HINT = 'ALTER ROLE exa_billing_owner NOSUPERUSER NOLOGIN;';
    END IF;

    -- CREATE EXTENSION makes the schema when there is none, owned by whoever runs it. A schema of
    -- anybody else, or one with anybody else's objects in it, is not ours to fill.
    SELECT pg_catalog.pg_get_userbyid(nspowner) INTO present_owner
        FROM pg_catalog.pg_namespace WHERE nspname = 'exa_billing';
    IF present_owner NOT IN ('exa_billing_owner', current_user) THEN
        RAISE EXCEPTION 'schema exa_billing belongs to role "%"', present_owner
            USING ERRCODE = '42501',
                  HINT = 'Drop or rename that schema, or give it to exa_billing_owner, and try again.';
    END IF;
    SELECT * INTO present FROM (
        SELECT relname AS name, relowner AS owner FROM pg_catalog.pg_class
            WHERE relnamespace = 'exa_billing'::pg_catalog.regnamespace
        UNION ALL
        SELECT proname, proowner FROM pg_catalog.pg_proc
            WHERE pronamespace = 'exa_billing'::pg_catalog.regnamespace
        UNION ALL
        SELECT typname, typowner FROM pg_catalog.pg_type
            WHERE typnamespace = 'exa_billing'::pg_catalog.regnamespace
        UNION ALL
        SELECT oprname, oprowner FROM pg_catalog.pg_operator
            WHERE oprnamespace = 'exa_billing'::pg_catalog.regnamespace
    ) AS objects WHERE owner <> 'exa_billing_owner'::pg_catalog.regrole LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'schema exa_billing already has an object of another owner: "%"', present.name
            USING ERRCODE = '42501', HINT = 'Only books left by exa_billing itself may be there.';
    END IF;
    IF present_owner <> 'exa_billing_owner' THEN
        ALTER SCHEMA exa_billing OWNER TO exa_billing_owner;
    END IF;
    -- Only where there is something to revoke: PostgreSQL would note the rights that roles have on a
    -- schema from before as the extension's own, and pg_dump would leave them out.
    IF EXISTS (
        SELECT FROM pg_catalog.pg_namespace AS n, pg_catalog.aclexplode(n.nspacl) AS a
        WHERE n.nspname = 'exa_billing' AND a.grantee = 0
    ) THEN
        REVOKE ALL ON SCHEMA exa_billing FROM PUBLIC;
    END IF;
END
$$;

COMMENT ON SCHEMA exa_billing IS
    'Books of usage-priced products: usage, free allowances, credits, hourly spend. The functions belong to the extension, the tables to you.';
