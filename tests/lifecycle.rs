//! The extension comes and goes, the books stay: dropping and creating it, calling setup()
//! again, several databases, odd defaults.

mod books_common;
mod common;

use books_common::{assert_no_violations, assert_same, catalog, contents, figures, fill, texts};
use common::{Database, Server, error_of, one, run_sql};
use postgres::Client;

const CHARGE: &str =
    "SELECT charged_microdollars FROM exa_billing.record_exa_usage('user-1', '/search', 777)";

/// Every change is refused by the journal and by each of its partitions.
fn assert_guarded(client: &mut Client, journal: &str) {
    let tables = texts(
        client,
        &format!(
            "SELECT inhrelid::regclass::text FROM pg_inherits
             WHERE inhparent = 'exa_billing.{journal}'::regclass
             UNION ALL SELECT 'exa_billing.{journal}'"
        ),
    );
    assert!(tables.len() > 13, "{tables:?}");
    for table in tables {
        for change in [
            format!("UPDATE {table} SET recorded_at = recorded_at"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
        ] {
            assert_eq!(error_of(client, &change).code, "55000", "{change}");
        }
    }
}

#[test]
fn without_books_the_extension_goes_and_leaves_nothing_behind() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(&mut client, "DROP EXTENSION exa_billing");
    let left = texts(
        &mut client,
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'exa_billing'::regnamespace
         UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'exa_billing'::regnamespace
         UNION ALL SELECT typname FROM pg_type WHERE typnamespace = 'exa_billing'::regnamespace",
    );
    assert_eq!(left, [""; 0]);
    run_sql(&mut client, "CREATE EXTENSION exa_billing");
    assert_eq!(one::<i64>(&mut client, CHARGE, &[]), 0);
    assert_no_violations(&mut client);
}

#[test]
fn the_extension_cannot_be_dropped_while_books_exist() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(&mut client, "SELECT exa_billing.setup()");
    let error = error_of(&mut client, "DROP EXTENSION exa_billing");
    assert_eq!(error.code, "2BP01");
    assert!(error.detail.expect("what depends on it").contains("exa_usage_log"));
    assert_eq!(one::<i64>(&mut client, CHARGE, &[]), 0);
}

#[test]
fn a_dropped_extension_comes_back_to_the_same_books() {
    let db = Server::shared().database();
    let mut client = db.client();
    // What setup() notes of itself is no part of the books' content.
    let kept = |client: &mut Client| {
        let all = contents(client).into_iter();
        all.filter(|line| !line.contains("applied_scripts")).collect::<Vec<_>>()
    };
    let waiting = fill(&mut client);
    let (rows, shown, described) = (kept(&mut client), figures(&mut client), catalog(&mut client));

    run_sql(&mut client, "DROP EXTENSION exa_billing CASCADE");
    assert_same("rows without the extension", &rows, &kept(&mut client));
    run_sql(&mut client, "CREATE EXTENSION exa_billing");
    assert_eq!(one::<i32>(&mut client, "SELECT exa_billing.setup()", &[]), 3);

    assert_same("rows", &rows, &kept(&mut client));
    assert_same("figures", &shown, &figures(&mut client));
    assert_same("catalog", &described, &catalog(&mut client));
    assert_no_violations(&mut client);
    let replayed = "SELECT is_replay FROM exa_billing.record_exa_usage('user-1', '/contents', 1001,
                    'org-1', 'key-1')";
    assert!(one::<bool>(&mut client, replayed, &[]));
    assert_eq!(one::<i64>(&mut client, CHARGE, &[]), 777);
    let posted: i64 = one(&mut client, "SELECT exa_billing.post_spend()", &[]);
    assert_eq!(posted, waiting + 1);
    assert_no_violations(&mut client);
}

#[test]
fn the_guards_are_back_on_every_partition() {
    let db = Server::shared().database();
    let mut client = db.client();
    fill(&mut client);
    run_sql(
        &mut client,
        "DROP EXTENSION exa_billing CASCADE; CREATE EXTENSION exa_billing; SELECT exa_billing.setup()",
    );
    assert_guarded(&mut client, "exa_usage_log");
    assert_guarded(&mut client, "spend_log");
    assert_no_violations(&mut client);
}

/// The library stays in an open session, with its kept plans and its memory of the books.
#[test]
fn an_open_session_charges_on_after_the_extension_came_back() {
    let db = Server::shared().database();
    let (mut open, mut other) = (db.client(), db.client());
    let waiting = fill(&mut open);
    let charged = |client: &mut Client| one::<i64>(client, CHARGE, &[]);
    assert_eq!(charged(&mut open), 777);
    run_sql(&mut other, "DROP EXTENSION exa_billing CASCADE");
    assert_eq!(error_of(&mut open, CHARGE).code, "42883");
    run_sql(&mut other, "CREATE EXTENSION exa_billing; SELECT exa_billing.setup()");
    assert_eq!(charged(&mut open), 777);
    assert_eq!(one::<i64>(&mut open, "SELECT exa_billing.post_spend()", &[]), waiting + 2);
    assert_no_violations(&mut open);
}

#[test]
fn setup_on_finished_books_changes_nothing() {
    let db = Server::shared().database();
    let mut client = db.client();
    fill(&mut client);
    let (rows, described) = (contents(&mut client), catalog(&mut client));
    for _ in 0..2 {
        assert_eq!(one::<i32>(&mut client, "SELECT exa_billing.setup()", &[]), 3);
    }
    assert_same("catalog", &described, &catalog(&mut client));
    assert_same("rows", &rows, &contents(&mut client));
    assert_no_violations(&mut client);
}

#[test]
fn setup_keeps_what_the_administrator_arranged() {
    let db = Server::shared().database();
    let mut client = db.client();
    fill(&mut client);
    let role = format!("reader_{}", db.name());
    let partition: String = one(
        &mut client,
        "SELECT to_char(now() AT TIME ZONE 'UTC', '\"exa_billing.exa_usage_log_\"YYYY_MM')",
        &[],
    );
    run_sql(
        &mut client,
        &format!(
            "CREATE ROLE {role};
             GRANT USAGE ON SCHEMA exa_billing TO {role};
             GRANT SELECT ON exa_billing.account_balances, exa_billing.accounts TO {role};
             GRANT SELECT (user_id, path) ON exa_billing.exa_usage_log TO {role};
             GRANT EXECUTE ON FUNCTION exa_billing.post_spend(int) TO {role};
             ALTER TABLE exa_billing.accounts ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON exa_billing.accounts FOR SELECT TO {role} USING (owner_id = 'user-1');
             CREATE POLICY own ON {partition} USING (user_id = 'user-1');
             CREATE INDEX mine ON exa_billing.spend_log (source);
             CREATE STATISTICS exa_billing.ours ON user_id, path FROM exa_billing.exa_usage_log;
             ALTER TABLE exa_billing.unposted_spend SET (autovacuum_vacuum_threshold = 999);
             COMMENT ON TABLE exa_billing.accounts IS 'ours: accounts';"
        ),
    );
    let described = catalog(&mut client);
    run_sql(&mut client, "SELECT exa_billing.setup()");
    let after = catalog(&mut client);
    run_sql(&mut client, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    assert_same("catalog", &described, &after);
}

#[test]
fn setup_keeps_what_was_said_and_set_on_views() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(
        &mut client,
        "SELECT exa_billing.setup();
         COMMENT ON VIEW exa_billing.account_balances IS 'ours: balances';
         COMMENT ON COLUMN exa_billing.account_balances.owner_id IS 'ours: id';
         ALTER VIEW exa_billing.spend_hourly SET (security_barrier = true);",
    );
    let described = catalog(&mut client);
    run_sql(&mut client, "SELECT exa_billing.setup()");
    assert_same("catalog", &described, &catalog(&mut client));
}

#[test]
fn two_databases_keep_separate_books() {
    let server = Server::shared();
    let (first, second) = (server.database(), server.database());
    let (mut a, mut b) = (first.client(), second.client());
    fill(&mut a);
    let untouched = figures(&mut a);
    run_sql(
        &mut b,
        "SELECT exa_billing.set_free_allowance(0, '2020-01-01');
         SELECT exa_billing.grant_credit('user', 'user-1', 5);",
    );
    assert_eq!(one::<i64>(&mut b, CHARGE, &[]), 777);
    assert_same("the other database", &untouched, &figures(&mut a));

    run_sql(&mut b, "DROP EXTENSION exa_billing CASCADE; DROP SCHEMA exa_billing CASCADE");
    assert_same("the other database", &untouched, &figures(&mut a));
    assert_eq!(one::<i64>(&mut a, CHARGE, &[]), 777);
    run_sql(&mut b, "CREATE EXTENSION exa_billing");
    assert_eq!(one::<i64>(&mut b, CHARGE, &[]), 0);
    assert_no_violations(&mut a);
    assert_no_violations(&mut b);
}

/// The same calls at fixed instants, once under defaults nobody would choose.
#[test]
fn odd_defaults_of_a_database_change_no_figure() {
    let server = Server::shared();
    let (plain, odd) = (server.empty_database(), server.empty_database());
    let name = odd.name();
    run_sql(
        &mut odd.client(),
        &format!(
            "CREATE SCHEMA evil;
             CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT timestamptz ''1999-01-01Z''';
             CREATE FUNCTION evil.date_trunc(text, timestamptz, text) RETURNS timestamptz
                 LANGUAGE sql AS 'SELECT timestamptz ''1999-01-01Z''';
             CREATE TABLE evil.accounts (n int);
             ALTER DATABASE {name} SET search_path = evil, pg_catalog;
             ALTER DATABASE {name} SET default_transaction_isolation = 'serializable';
             ALTER DATABASE {name} SET default_transaction_deferrable = on;
             ALTER DATABASE {name} SET timezone = 'Pacific/Kiritimati';
             ALTER DATABASE {name} SET datestyle = 'German, DMY';
             ALTER DATABASE {name} SET intervalstyle = 'sql_standard';
             ALTER DATABASE {name} SET extra_float_digits = -15;
             ALTER DATABASE {name} SET bytea_output = 'escape';
             ALTER DATABASE {name} SET standard_conforming_strings = off;
             ALTER DATABASE {name} SET transform_null_equals = on;
             ALTER DATABASE {name} SET row_security = off;
             ALTER DATABASE {name} SET plan_cache_mode = 'force_custom_plan';
             ALTER DATABASE {name} SET quote_all_identifiers = on;"
        ),
    );
    let month: String = one(
        &mut plain.client(),
        "SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC'), 'YYYY-MM-DD HH24:MI:SS')",
        &[],
    );
    let kept = |db: &Database| {
        let mut client = db.client();
        // The last and the first instant of two months, and one that is in another day elsewhere.
        run_sql(
            &mut client,
            &format!(
                "CREATE EXTENSION exa_billing;
                 SELECT exa_billing.set_free_allowance(150, '2020-01-01', NULL, 'split');
                 SELECT exa_billing.grant_credit('organization', 'o', 100000);
                 SELECT exa_billing.record_exa_usage('u', '/search', 100 + n, 'o', 'k' || n,
                     timestamptz '{month}+00' - interval '1 microsecond' * (n - 1))
                 FROM generate_series(1, 3) AS n;
                 SELECT exa_billing.record_spend('user', 'u', 9, 'variable', 's', 'p', created_at =>
                     timestamptz '{month}+00' - interval '11 hours');
                 SELECT exa_billing.post_spend(3);"
            ),
        );
        assert_no_violations(&mut client);
        run_sql(&mut client, "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET search_path = ''");
        let bounds = texts(
            &mut client,
            "SELECT c.relname || pg_get_expr(c.relpartbound, c.oid) FROM pg_class AS c
             WHERE c.relnamespace = 'exa_billing'::regnamespace AND relispartition AND relkind = 'r'
             ORDER BY 1",
        );
        let shown = figures(&mut client).into_iter().filter(|line| !line.starts_with("posted"));
        (shown.collect::<Vec<_>>(), bounds)
    };
    let (expected, found) = (kept(&plain), kept(&odd));
    assert_eq!(expected.0.iter().filter(|line| line.starts_with("month")).count(), 2);
    assert_same("figures", &expected.0, &found.0);
    assert_same("partitions", &expected.1, &found.1);
}

#[test]
fn a_publication_of_all_tables_does_not_stop_posting() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(&mut client, "CREATE PUBLICATION everything FOR ALL TABLES");
    let waiting = fill(&mut client);
    assert_eq!(one::<i64>(&mut client, "SELECT exa_billing.post_spend()", &[]), waiting);
    assert_no_violations(&mut client);
}
