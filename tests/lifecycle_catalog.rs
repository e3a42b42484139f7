//! What the catalog says of a fresh installation, and which schemas and roles it refuses.

mod books_common;
mod common;

use books_common::{assert_no_violations, texts};
use common::{Server, error_of, one, run_sql};

const CHARGE: &str =
    "SELECT charged_microdollars FROM exa_billing.record_exa_usage('user-1', '/search', 777)";

#[test]
fn views_show_what_the_reader_may_see() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(&mut client, "SELECT exa_billing.setup()");
    let others = texts(
        &mut client,
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'exa_billing'::regnamespace
         AND relkind = 'v' AND NOT coalesce(reloptions, '{}') @> '{security_invoker=true}'",
    );
    assert_eq!(others, [""; 0]);
}

#[test]
fn every_table_has_a_primary_key_and_built_in_columns() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(&mut client, "SELECT exa_billing.setup()");
    let keyless = texts(
        &mut client,
        "SELECT relname::text FROM pg_class AS c
         WHERE relnamespace = 'exa_billing'::regnamespace AND relkind IN ('r', 'p')
           AND NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p')",
    );
    assert_eq!(keyless, [""; 0]);
    let foreign_types = texts(
        &mut client,
        "SELECT attrelid::regclass || '.' || attname || ' ' || format_type(atttypid, atttypmod)
         FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid JOIN pg_type AS t ON t.oid = atttypid
         WHERE relnamespace = 'exa_billing'::regnamespace AND relkind IN ('r', 'p', 'v')
           AND attnum > 0 AND NOT attisdropped
           AND (typnamespace <> 'pg_catalog'::regnamespace OR typtype <> 'b'
                OR typname LIKE 'reg%' OR attidentity <> '')",
    );
    assert_eq!(foreign_types, [""; 0]);
}

/// An update of the extension may drop or replace any function but these four.
#[test]
fn the_books_call_only_the_functions_of_the_guards() {
    let db = Server::shared().database();
    let mut client = db.client();
    let role = format!("web_{}", db.name());
    run_sql(
        &mut client,
        &format!(
            "CREATE ROLE {role}; SELECT exa_billing.enable_row_security();
             SELECT exa_billing.grant_end_user('{role}')"
        ),
    );
    let called = texts(
        &mut client,
        "SELECT DISTINCT d.refobjid::regprocedure::text FROM pg_depend AS d
         JOIN pg_proc AS p ON p.oid = d.refobjid
         WHERE d.refclassid = 'pg_proc'::regclass AND d.deptype <> 'e'
           AND d.classid IN ('pg_trigger'::regclass, 'pg_rewrite'::regclass, 'pg_attrdef'::regclass,
                             'pg_constraint'::regclass, 'pg_class'::regclass, 'pg_policy'::regclass)
           AND p.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
         ORDER BY 1",
    );
    run_sql(&mut client, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    assert_eq!(
        called,
        [
            "exa_billing.current_user_id()",
            "exa_billing.health_checks()",
            "exa_billing.managed_organizations()",
            "exa_billing.refuse_change()",
            "exa_billing.refuse_direct_change()"
        ]
    );
}

#[test]
fn the_books_are_not_members_of_the_extension() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(&mut client, "SELECT exa_billing.setup()");
    let members = texts(
        &mut client,
        "SELECT DISTINCT classid::regclass::text FROM pg_depend
         WHERE refclassid = 'pg_extension'::regclass AND deptype IN ('e', 'x')
           AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'exa_billing')
         ORDER BY 1",
    );
    assert_eq!(members, ["pg_event_trigger", "pg_proc", "pg_type"]);
    let events = texts(
        &mut client,
        "SELECT concat_ws(' ', evtname, evtevent, evtenabled, evtfoid::regproc) FROM pg_event_trigger ORDER BY 1",
    );
    assert_eq!(
        events,
        [
            "exa_billing_follow_altered_tables ddl_command_end A exa_billing.follow_altered_tables",
            "exa_billing_guard_concurrent_detach ddl_command_start A exa_billing.guard_concurrent_detach",
            "exa_billing_guard_dropped_objects sql_drop A exa_billing.guard_dropped_objects",
        ]
    );
    let tables = texts(
        &mut client,
        "SELECT t.typname::text FROM pg_depend JOIN pg_type AS t ON t.oid = objid
         JOIN pg_class AS c ON c.oid = t.typrelid
         WHERE classid = 'pg_type'::regclass AND deptype = 'e' AND c.relkind <> 'c'",
    );
    assert_eq!(tables, [""; 0]);
}

#[test]
fn everything_belongs_to_the_owner_role_and_nothing_to_public() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(&mut client, "SELECT exa_billing.setup()");
    let of_others = texts(
        &mut client,
        "SELECT name FROM (
             SELECT oid::regclass::text AS name, relowner AS owner, relnamespace AS ns FROM pg_class
             UNION ALL SELECT oid::regprocedure::text, proowner, pronamespace FROM pg_proc
             UNION ALL SELECT oid::regtype::text, typowner, typnamespace FROM pg_type
             UNION ALL SELECT nspname, nspowner, oid FROM pg_namespace
         ) AS objects
         WHERE ns = 'exa_billing'::regnamespace AND owner <> 'exa_billing_owner'::regrole",
    );
    assert_eq!(of_others, [""; 0]);
    let open_to_public = texts(
        &mut client,
        "SELECT name || ' ' || privilege_type
         FROM (
             SELECT relname::text AS name, coalesce(relacl, acldefault('r', relowner)) AS acl
             FROM pg_class WHERE relnamespace = 'exa_billing'::regnamespace
               AND relkind IN ('r', 'p', 'v', 'S')
             UNION ALL
             SELECT proname, coalesce(proacl, acldefault('f', proowner))
             FROM pg_proc WHERE pronamespace = 'exa_billing'::regnamespace
             UNION ALL
             SELECT typname, coalesce(typacl, acldefault('T', typowner))
             FROM pg_type AS t JOIN pg_class AS c ON c.oid = typrelid
             WHERE typnamespace = 'exa_billing'::regnamespace AND relkind = 'c'
             UNION ALL
             SELECT nspname, coalesce(nspacl, acldefault('n', nspowner))
             FROM pg_namespace WHERE nspname = 'exa_billing'
             UNION ALL
             SELECT parname, paracl FROM pg_parameter_acl WHERE parname LIKE 'exa\\_billing.%'
         ) AS objects, aclexplode(acl) AS entry
         WHERE entry.grantee = 0",
    );
    assert_eq!(open_to_public, [""; 0]);
    let role: String = one(
        &mut client,
        "SELECT concat_ws(',', rolsuper, rolcanlogin, rolcreatedb, rolcreaterole, rolreplication,
                          rolbypassrls)
         FROM pg_roles WHERE rolname = 'exa_billing_owner'",
        &[],
    );
    assert_eq!(role, "f,f,f,f,f,f");
}

#[test]
fn every_function_has_an_example_that_runs() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(
        &mut client,
        "SELECT exa_billing.grant_credit('organization', 'org-1', 50000000);
         SELECT exa_billing.start_worker()",
    );
    let functions = client
        .query(
            "SELECT proname::text, obj_description(oid, 'pg_proc')
             FROM pg_proc
             WHERE pronamespace = 'exa_billing'::regnamespace AND prorettype <> 'trigger'::regtype
             ORDER BY 1",
            &[],
        )
        .expect("the functions");
    assert!(functions.len() >= 15, "{}", functions.len());
    for row in functions {
        let (name, comment): (String, Option<String>) = (row.get(0), row.get(1));
        let comment = comment.unwrap_or_else(|| panic!("{name} has no comment"));
        let (_, example) =
            comment.split_once("Example: ").unwrap_or_else(|| panic!("{name}: {comment}"));
        assert!(example.contains(&format!("exa_billing.{name}(")), "{name}: {example}");
        run_sql(&mut client, example);
    }
    // Two requests, one with a key, and one purchase were recorded by what the comments say.
    let shown = "SELECT concat_ws(',', (SELECT count(*) FROM exa_billing.exa_usage_log),
                     (SELECT sum(amount_microdollars) FROM exa_billing.spend_log
                                WHERE source = 'coding_plan'),
                     (SELECT count(*) FROM exa_billing.free_allowances))";
    assert_eq!(one::<String>(&mut client, shown, &[]), "3,20000000,1");
    assert_no_violations(&mut client);
}

#[test]
fn every_comment_has_an_example() {
    let db = Server::shared().database();
    let without = texts(
        &mut db.client(),
        "SELECT proname::text FROM pg_proc
         WHERE pronamespace = 'exa_billing'::regnamespace
           AND coalesce(obj_description(oid, 'pg_proc'), '') NOT LIKE '%Example: %'",
    );
    assert_eq!(without, [""; 0]);
}

#[test]
fn create_extension_refuses_a_schema_of_somebody_else() {
    let db = Server::shared().empty_database();
    let mut client = db.client();
    let role = format!("squatter_{}", db.name());
    run_sql(
        &mut client,
        &format!("CREATE ROLE {role}; CREATE SCHEMA exa_billing AUTHORIZATION {role}"),
    );
    let error = error_of(&mut client, "CREATE EXTENSION exa_billing");
    assert_eq!(error.code, "42501");
    assert!(error.message.contains(&role), "{}", error.message);
    assert!(error.hint.is_some());
    run_sql(&mut client, &format!("DROP SCHEMA exa_billing; DROP ROLE {role}"));
    run_sql(&mut client, "CREATE EXTENSION exa_billing");
    assert_eq!(one::<i64>(&mut client, CHARGE, &[]), 0);
}

#[test]
fn create_extension_refuses_a_schema_with_somebody_elses_objects() {
    let db = Server::shared().empty_database();
    let mut client = db.client();
    let role = format!("squatter_{}", db.name());
    run_sql(&mut client, &format!("CREATE ROLE {role}; CREATE SCHEMA exa_billing"));
    for (create, owner, drop) in [
        ("TABLE exa_billing.x (n int)", "TABLE exa_billing.x", "TABLE exa_billing.x"),
        ("VIEW exa_billing.x AS SELECT 1", "VIEW exa_billing.x", "VIEW exa_billing.x"),
        ("SEQUENCE exa_billing.x", "SEQUENCE exa_billing.x", "SEQUENCE exa_billing.x"),
        ("TYPE exa_billing.x AS ENUM ('a')", "TYPE exa_billing.x", "TYPE exa_billing.x"),
        ("DOMAIN exa_billing.x AS int", "DOMAIN exa_billing.x", "DOMAIN exa_billing.x"),
        (
            "FUNCTION exa_billing.x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "FUNCTION exa_billing.x()",
            "FUNCTION exa_billing.x()",
        ),
        (
            "OPERATOR exa_billing.### (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl)",
            "OPERATOR exa_billing.### (int, int)",
            "OPERATOR exa_billing.### (int, int)",
        ),
    ] {
        // The superuser's own are refused as well: only books may be there.
        for own in [String::new(), format!("ALTER {owner} OWNER TO {role};")] {
            run_sql(&mut client, &format!("CREATE {create}; {own}"));
            let error = error_of(&mut client, "CREATE EXTENSION exa_billing");
            assert_eq!(error.code, "42501", "{create} {own}");
            run_sql(&mut client, &format!("DROP {drop}"));
        }
    }
    run_sql(&mut client, &format!("DROP ROLE {role}; CREATE EXTENSION exa_billing"));
    assert_eq!(one::<i64>(&mut client, CHARGE, &[]), 0);
}

#[test]
fn a_schema_that_was_open_to_public_is_closed() {
    let db = Server::shared().empty_database();
    let mut client = db.client();
    run_sql(
        &mut client,
        "CREATE SCHEMA exa_billing; GRANT ALL ON SCHEMA exa_billing TO PUBLIC;
         CREATE EXTENSION exa_billing; SELECT exa_billing.setup()",
    );
    let rights: i64 = one(
        &mut client,
        "SELECT count(*) FROM pg_namespace, aclexplode(nspacl) AS entry
         WHERE nspname = 'exa_billing' AND entry.grantee = 0",
        &[],
    );
    assert_eq!(rights, 0);
}

#[test]
fn a_privileged_owner_role_is_refused() {
    let server = Server::start("owner", &[]);
    let db = server.empty_database();
    let mut client = db.client();
    run_sql(&mut client, "CREATE ROLE exa_billing_owner SUPERUSER");
    assert_eq!(error_of(&mut client, "CREATE EXTENSION exa_billing").code, "42501");
    run_sql(&mut client, "ALTER ROLE exa_billing_owner NOSUPERUSER LOGIN");
    let error = error_of(&mut client, "CREATE EXTENSION exa_billing");
    assert_eq!(error.code, "42501");
    run_sql(&mut client, &error.hint.expect("what to do"));
    run_sql(&mut client, "CREATE EXTENSION exa_billing");
    assert_eq!(one::<i64>(&mut client, CHARGE, &[]), 0);
}
