//! An upgraded extension and upgraded books are what fresh ones are: ALTER EXTENSION … UPDATE for the
//! functions, setup() for the books, from every version that somebody may have.

mod books_common;
mod common;
mod upgrade_common;

use books_common::{assert_no_violations, assert_same, catalog, contents, figures, fill, texts};
use common::{Database, Server, error_of, one, run_sql};
use postgres::Client;
use upgrade_common::{Release, installed_version, made_up, releases};

const UPDATE: &str = "ALTER EXTENSION exa_billing UPDATE";
const SETUP: &str = "SELECT exa_billing.setup()";
const NEWEST: i32 = 3;

/// The roles of one upgrade, which both databases give the same rights.
struct Roles {
    application: String,
    auditor: String,
    customer: String,
    by_hand: String,
}

impl Roles {
    fn create(db: &Database) -> Roles {
        let role = |kind: &str| format!("{kind}_{}", db.name());
        let roles = Roles {
            application: role("app"),
            auditor: role("auditor"),
            customer: role("web"),
            by_hand: role("hand"),
        };
        for role in roles.all() {
            run_sql(&mut db.client(), &format!("CREATE ROLE {role}"));
        }
        roles
    }

    fn all(&self) -> [&str; 4] {
        [&self.application, &self.auditor, &self.customer, &self.by_hand]
    }

    fn drop(&self, databases: [&Database; 2]) {
        for role in self.all() {
            for db in databases {
                run_sql(&mut db.client(), &format!("DROP OWNED BY {role}"));
            }
            run_sql(&mut databases[0].client(), &format!("DROP ROLE {role}"));
        }
    }
}

/// What an administrator does: rights as a whole and by hand, row security, a view and functions of the
/// application that use ours.
fn arrange(client: &mut Client, roles: &Roles) {
    let Roles { application, auditor, customer, by_hand } = roles;
    run_sql(
        client,
        &format!(
            "SELECT exa_billing.grant_application('{application}');
             SELECT exa_billing.grant_auditor('{auditor}');
             SELECT exa_billing.enable_row_security();
             SELECT exa_billing.grant_end_user('{customer}');
             GRANT USAGE ON SCHEMA exa_billing TO {by_hand};
             GRANT EXECUTE ON FUNCTION exa_billing.post_spend(int) TO {by_hand};
             GRANT SELECT ON exa_billing.progress TO {by_hand} WITH GRANT OPTION;
             GRANT SELECT (owner_id) ON exa_billing.accounts TO {by_hand};
             CREATE VIEW public.balances AS
                 SELECT b.*, p.done FROM exa_billing.account_balances AS b
                 LEFT JOIN exa_billing.progress AS p ON p.procedure_name = b.owner_id;
             GRANT SELECT ON public.balances TO {application};
             CREATE FUNCTION public.charge(who text) RETURNS exa_billing.recorded_usage LANGUAGE plpgsql AS $$
             DECLARE recorded exa_billing.recorded_usage;
             BEGIN
                 SELECT * INTO recorded FROM exa_billing.record_exa_usage(who, '/search', 777);
                 RETURN recorded;
             END $$;
             CREATE FUNCTION public.charge_in_sql(who text) RETURNS exa_billing.recorded_usage LANGUAGE sql
                 AS $$ SELECT * FROM exa_billing.record_exa_usage(who, '/search', 778) $$;"
        ),
    );
}

/// The rows of what a migration leaves alone.
fn kept(client: &mut Client) -> Vec<String> {
    let noted =
        ["storage_migrations", "applied_scripts", "access_grants", "progress", "worker_jobs"];
    let own = |line: &String| !noted.iter().any(|name| line.contains(&format!(".{name}:")));
    contents(client).into_iter().filter(own).collect()
}

fn assert_charges(client: &mut Client) {
    for (function, amount) in [("charge", 777), ("charge_in_sql", 778)] {
        let charged = format!("SELECT charged_microdollars FROM public.{function}('user-1')");
        assert_eq!(one::<i64>(client, &charged, &[]), amount);
    }
    let replayed = "SELECT charged_microdollars FROM exa_billing.record_exa_usage('user-1',
                        '/contents', 1001, 'org-1', 'key-1')";
    let before: i64 = one(client, "SELECT count(*) FROM exa_billing.exa_usage_log", &[]);
    one::<i64>(client, replayed, &[]);
    assert_eq!(one::<i64>(client, "SELECT count(*) FROM exa_billing.exa_usage_log", &[]), before);
}

fn assert_becomes_as_fresh(release: &Release, steps: impl Fn(&mut Client)) {
    let server = Server::shared();
    let (old, fresh) = (release.books(&server), server.database());
    let roles = Roles::create(&old);
    let (mut client, mut other) = (old.client(), fresh.client());
    run_sql(&mut other, SETUP);
    for client in [&mut client, &mut other] {
        fill(client);
        arrange(client, &roles);
    }
    assert_ne!(catalog(&mut client), catalog(&mut other));
    let (shown, rows) = (figures(&mut client), kept(&mut client));
    let balances = texts(&mut client, "SELECT b::text FROM public.balances AS b ORDER BY 1");

    steps(&mut client);

    assert_same("catalog", &catalog(&mut other), &catalog(&mut client));
    assert_same("figures", &shown, &figures(&mut client));
    let after = kept(&mut client);
    let gone: Vec<&String> = rows.iter().filter(|line| !after.contains(line)).collect();
    assert!(gone.is_empty(), "{gone:#?}");
    assert_eq!(texts(&mut client, "SELECT b::text FROM public.balances AS b ORDER BY 1"), balances);
    assert_charges(&mut client);
    run_sql(&mut client, "SELECT exa_billing.post_spend()");
    assert_no_violations(&mut client);
    // Once more changes nothing.
    let described = catalog(&mut client);
    assert_eq!(one::<i32>(&mut client, SETUP, &[]), NEWEST);
    assert_same("catalog", &described, &catalog(&mut client));
    roles.drop([&old, &fresh]);
}

#[test]
fn functions_then_books_become_as_fresh_ones() {
    for release in releases() {
        assert_becomes_as_fresh(&release, |client| {
            assert_eq!(installed_version(client), release.version);
            run_sql(client, UPDATE);
            run_sql(client, "BEGIN");
            assert_charges(client);
            run_sql(client, "ROLLBACK");
            assert_eq!(one::<i32>(client, SETUP, &[]), NEWEST);
        });
    }
}

/// Guards and views are in the words of the newest functions, so the books have to wait for these.
#[test]
fn books_before_functions_are_refused_and_then_become_as_fresh_ones() {
    for release in releases() {
        assert_becomes_as_fresh(&release, |client| {
            let (described, rows) = (catalog(client), contents(client));
            let error = error_of(client, SETUP);
            assert_eq!(error.code, "55000", "{error:?}");
            let figures = format!(
                "The functions have version {}, the library {}.",
                release.version,
                env!("CARGO_PKG_VERSION")
            );
            assert_eq!(error.detail, Some(figures));
            let hint = error.hint.expect("what to do");
            assert!(hint.contains("ALTER EXTENSION exa_billing UPDATE;"), "{hint}");
            assert_same("catalog", &described, &catalog(client));
            assert_same("rows", &rows, &contents(client));

            run_sql(client, UPDATE);
            assert_eq!(one::<i32>(client, SETUP, &[]), NEWEST);
        });
    }
}

#[test]
fn an_extension_without_books_becomes_as_a_fresh_one() {
    let server = Server::shared();
    let (old, fresh) = (made_up(1).extension(&server), server.database());
    let (mut client, mut other) = (old.client(), fresh.client());
    assert_eq!(error_of(&mut client, SETUP).code, "55000");
    run_sql(&mut client, UPDATE);
    for client in [&mut client, &mut other] {
        let charged =
            "SELECT charged_microdollars FROM exa_billing.record_exa_usage('u', '/search', 5)";
        assert_eq!(one::<i64>(client, charged, &[]), 0);
    }
    assert_same("catalog", &catalog(&mut other), &catalog(&mut client));
}

/// Functions and types that somebody else keeps in the schema are none of ours.
#[test]
fn what_others_keep_in_the_schema_stays_theirs() {
    let db = made_up(2).extension(&Server::shared());
    let mut client = db.client();
    run_sql(
        &mut client,
        "CREATE FUNCTION exa_billing.of_others() RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE TYPE exa_billing.their_type AS (n int)",
    );
    let theirs =
        "SELECT proowner::regrole || ' ' || coalesce(proacl::text, 'as usual') FROM pg_proc
                  WHERE proname = 'of_others'
                  UNION ALL
                  SELECT typowner::regrole || ' ' || coalesce(typacl::text, 'as usual') FROM pg_type
                  WHERE typname = 'their_type'";
    run_sql(&mut client, UPDATE);
    assert_eq!(texts(&mut client, theirs), ["postgres as usual", "postgres as usual"]);
    let ours = "SELECT count(*) FROM pg_depend AS d LEFT JOIN pg_proc AS p ON p.oid = d.objid
                    LEFT JOIN pg_type AS t ON t.oid = d.objid
                WHERE d.deptype = 'e' AND d.classid IN ('pg_proc'::regclass, 'pg_type'::regclass)
                  AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'exa_billing')
                  AND coalesce(p.proowner, t.typowner) <> 'exa_billing_owner'::regrole";
    assert_eq!(one::<i64>(&mut client, ours, &[]), 0);
}

/// What an upgrade may forget, one by one: each is seen by the comparison.
#[test]
fn the_comparison_notices_whatever_an_upgrade_forgets() {
    let db = made_up(2).books(&Server::shared());
    let mut client = db.client();
    run_sql(&mut client, &format!("{UPDATE}; {SETUP}"));
    let complete = catalog(&mut client);
    for forgotten in [
        "ALTER EXTENSION exa_billing DROP FUNCTION exa_billing.erase_user(text)",
        "ALTER EXTENSION exa_billing DROP FUNCTION exa_billing.erase_user(text);
         DROP FUNCTION exa_billing.erase_user(text)",
        "ALTER FUNCTION exa_billing.erase_user(text) STABLE",
        "ALTER FUNCTION exa_billing.erase_user(text) STRICT",
        "ALTER FUNCTION exa_billing.erase_user(text) SECURITY INVOKER",
        "ALTER FUNCTION exa_billing.erase_user(text) RESET search_path",
        "ALTER FUNCTION exa_billing.erase_user(text) OWNER TO postgres",
        "GRANT EXECUTE ON FUNCTION exa_billing.erase_user(text) TO PUBLIC",
        "COMMENT ON FUNCTION exa_billing.erase_user(text) IS 'another'",
        "CREATE OR REPLACE FUNCTION exa_billing.post_spend(max_rows int DEFAULT 9) RETURNS bigint LANGUAGE c
         SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'exa_billing', 'post_spend_wrapper'",
        "CREATE OR REPLACE PROCEDURE exa_billing.run_maintenance() LANGUAGE plpgsql AS 'BEGIN END'",
        "ALTER TYPE exa_billing.recorded_usage DROP ATTRIBUTE is_replay",
        "GRANT USAGE ON TYPE exa_billing.recorded_usage TO PUBLIC",
        "COMMENT ON TYPE exa_billing.recorded_usage IS NULL",
        "COMMENT ON SCHEMA exa_billing IS NULL",
        "GRANT USAGE ON SCHEMA exa_billing TO PUBLIC",
        "ALTER EVENT TRIGGER exa_billing_guard_dropped_objects DISABLE",
        "DROP TABLE exa_billing.books_proof",
        "ALTER TABLE exa_billing.job_runs DROP COLUMN row_count CASCADE",
        "ALTER TABLE exa_billing.books_proof ALTER owner_count TYPE int",
        "ALTER TABLE exa_billing.books_proof ALTER owner_count DROP NOT NULL",
        "ALTER TABLE exa_billing.books_proof ALTER owner_count SET (n_distinct = 5)",
        "ALTER TABLE exa_billing.accounts DROP CONSTRAINT accounts_owner_kind_check",
        "ALTER TABLE exa_billing.accounts RESET (fillfactor)",
        "GRANT SELECT ON exa_billing.job_runs TO PUBLIC",
        "ALTER TABLE exa_billing.job_runs OWNER TO postgres",
        "COMMENT ON TABLE exa_billing.job_runs IS NULL",
        "COMMENT ON COLUMN exa_billing.accounts.microdollars_used IS NULL",
        "DROP INDEX exa_billing.unposted_spend_blocked_idx",
        "ALTER TABLE exa_billing.credit_transactions DISABLE TRIGGER by_erasure_only",
        "DROP TRIGGER by_erasure_only ON exa_billing.credit_transactions",
        "DROP VIEW exa_billing.health",
        "ALTER VIEW exa_billing.progress RESET (security_invoker)",
        "CREATE OR REPLACE VIEW exa_billing.worker_jobs AS SELECT job_name, last_started_at, last_ended_at,
             last_error, last_error_at, failures_in_a_row, run_count, row_count + 0 AS row_count
         FROM exa_billing.job_runs",
        "DELETE FROM pg_init_privs WHERE objoid = 'exa_billing.post_spend(int)'::regprocedure",
        "UPDATE pg_extension SET extversion = '0.0.9' WHERE extname = 'exa_billing'",
    ] {
        run_sql(&mut client, &format!("BEGIN; {forgotten}"));
        let found = catalog(&mut client);
        run_sql(&mut client, "ROLLBACK");
        assert_ne!(found, complete, "{forgotten}");
    }
    assert_same("catalog", &complete, &catalog(&mut client));
}

/// Views grow at their end only. One whose columns somebody has moved cannot be put right without
/// dropping what selects from it, so setup() refuses and leaves everything as it was.
#[test]
fn a_view_whose_columns_were_moved_makes_setup_give_up() {
    let db = made_up(2).books(&Server::shared());
    let mut client = db.client();
    fill(&mut client);
    run_sql(
        &mut client,
        &format!(
            "{UPDATE};
             CREATE VIEW public.of_a_user AS SELECT owner_id, balance_microdollars FROM exa_billing.account_balances;
             ALTER VIEW exa_billing.account_balances RENAME COLUMN microdollars_used TO used"
        ),
    );
    let (described, rows) = (catalog(&mut client), contents(&mut client));
    assert_eq!(error_of(&mut client, SETUP).code, "42P16");
    assert_same("catalog", &described, &catalog(&mut client));
    assert_same("rows", &rows, &contents(&mut client));
    run_sql(
        &mut client,
        "ALTER VIEW exa_billing.account_balances RENAME COLUMN used TO microdollars_used",
    );
    assert_eq!(one::<i32>(&mut client, SETUP, &[]), NEWEST);
    let balances = "SELECT count(*) FROM public.of_a_user";
    assert_eq!(one::<i64>(&mut client, balances, &[]), 6);
    assert_no_violations(&mut client);
}
