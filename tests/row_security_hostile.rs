//! End users who run SQL of their own: names that lie, functions that tell, and statements that
//! grow with the books of others.

mod books_common;
mod common;
mod ledger_ddl_common;
mod row_security_common;

use books_common::{assert_no_violations, texts};
use common::{error_of, one, run_sql};
use ledger_ddl_common::{COLUMNS, Role, attaching, detach, spend};
use postgres::Client;
use row_security_common::{World, rows_of};

/// Functions and operators under the names policies use; each says whom it would like to be.
const LIES: &str = "
    CREATE FUNCTION $.current_user_id() RETURNS text LANGUAGE sql AS 'SELECT ''dan''';
    CREATE FUNCTION $.managed_organizations() RETURNS SETOF text LANGUAGE sql AS 'SELECT ''umbrella''';
    CREATE FUNCTION $.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION $.same(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION $.both(text[], text) RETURNS text[] LANGUAGE sql AS 'SELECT ''{dan,umbrella}''::text[]';
    CREATE FUNCTION $.array_append(text[], text) RETURNS text[] LANGUAGE sql AS 'SELECT ''{dan,umbrella}''::text[]';
    CREATE OPERATOR $.= (LEFTARG = text, RIGHTARG = text, FUNCTION = $.same);
    CREATE OPERATOR $.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = $.same);
    CREATE OPERATOR $.|| (LEFTARG = text[], RIGHTARG = text, FUNCTION = $.both);
    CREATE $kind TABLE $.organization_members (organization_id text, user_id text, role text);
    INSERT INTO $.organization_members VALUES ('umbrella', 'ann', 'owner');
    CREATE $kind TABLE $.access_grants (role_name text, granted_as text);
    CREATE $kind TABLE $.accounts (owner_kind text, owner_id text);";

/// What Ann is shown, whatever surrounds the statement.
fn shown(client: &mut Client) -> Vec<String> {
    let mut shown = Vec::new();
    for relation in [
        "accounts",
        "account_balances",
        "spend_drivers_hourly",
        "exa_usage_log",
        "organization_members",
        "spend_dimensions",
    ] {
        shown.extend(rows_of(client, relation, "true"));
    }
    shown.extend(texts(
        client,
        "SELECT exa_billing.current_user_id() UNION ALL SELECT exa_billing.managed_organizations()",
    ));
    shown.extend(texts(
        client,
        "SELECT b::text FROM exa_billing.account_balance('user', 'dan') AS b",
    ));
    shown.extend(texts(
        client,
        "SELECT (exa_billing.account_balance('organization', 'acme', '2026-01-01Z'))::text",
    ));
    shown
}

#[test]
fn lies_under_the_names_of_the_books_show_nothing_more() {
    let mut world = World::new();
    let (web, name) = (world.role("web"), world.db.name().to_owned());
    run_sql(
        &mut world.admin,
        &format!(
            "CREATE SCHEMA lies AUTHORIZATION {web}; GRANT CREATE, TEMPORARY ON DATABASE {name} TO {web}"
        ),
    );
    let honest = shown(&mut world.serving("ann"));
    assert!(
        honest.len() > 20 && !honest.iter().any(|line| line.contains("(user,dan,")),
        "{honest:?}"
    );
    for (schema, kind, path) in [
        ("lies", "", "lies, pg_temp, exa_billing, pg_catalog"),
        ("pg_temp", "TEMPORARY", "pg_temp, exa_billing, pg_catalog"),
    ] {
        let mut client = world.serving("ann");
        run_sql(&mut client, &LIES.replace("$kind", kind).replace("$.", &format!("{schema}.")));
        run_sql(&mut client, &format!("SET search_path = {path}"));
        // They do lie where they are believed; temporary functions never are.
        let believes = "SELECT text 'a' = text 'b'";
        assert_eq!(one::<bool>(&mut client, believes, &[]), kind.is_empty());
        run_sql(&mut client, "PREPARE rows AS SELECT owner_id FROM exa_billing.accounts");
        assert_eq!(client.query("EXECUTE rows", &[]).expect("rows").len(), 2);
        // The statements of the test itself are not to be lied to.
        run_sql(&mut client, "SET search_path = pg_catalog, pg_temp");
        assert_eq!(shown(&mut client), honest, "{path}");
        run_sql(&mut client, "DEALLOCATE ALL");
    }
    assert_no_violations(&mut world.admin);
}

/// A condition that costs nothing is asked first, unless a policy forbids it.
#[test]
fn functions_in_a_condition_see_no_row_of_others() {
    let world = World::new();
    let mut client = world.serving("ann");
    run_sql(
        &mut client,
        "CREATE TEMPORARY TABLE seen (what text);
         CREATE FUNCTION pg_temp.tells(what text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
             'BEGIN INSERT INTO pg_temp.seen VALUES (what); RETURN true; END';
         CREATE FUNCTION pg_temp.fails(what text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.0000001 AS
             'BEGIN IF what LIKE ''%dan%'' OR what LIKE ''%umbrella%'' THEN RAISE ''caught %'', what; END IF; RETURN true; END'",
    );
    for relation in [
        "accounts",
        "account_balances",
        "credit_transactions",
        "exa_monthly_allowance",
        "exa_monthly_usage",
        "exa_monthly_usage_current",
        "exa_usage_log",
        "free_allowances",
        "organization_member_usage",
        "organization_members",
        "spend_degraded_intervals",
        "spend_dimensions",
        "spend_drivers_hourly",
        "spend_entries",
        "spend_hourly",
        "spend_hourly_drivers",
        "spend_hourly_totals",
        "spend_log",
        "unposted_entries",
        "unposted_spend",
        "cost_insight_events",
        "spend_alert_settings",
        "cost_suggestions",
    ] {
        let all = rows_of(&mut client, relation, "true").len();
        assert_eq!(
            rows_of(&mut client, relation, "pg_temp.fails(r::text)").len(),
            all,
            "{relation}"
        );
        assert_eq!(
            rows_of(&mut client, relation, "pg_temp.tells(r::text)").len(),
            all,
            "{relation}"
        );
        for kind in [
            "GROUP BY r::text HAVING pg_temp.fails(min(r::text))",
            "ORDER BY pg_temp.fails(r::text)",
        ] {
            run_sql(
                &mut client,
                &format!("SELECT r::text FROM exa_billing.{relation} AS r {kind}"),
            );
        }
    }
    let seen = texts(&mut client, "SELECT DISTINCT what FROM seen");
    assert!(seen.len() > 50, "{}", seen.len());
    let of_others: Vec<&String> =
        seen.iter().filter(|what| what.contains("dan") || what.contains("umbrella")).collect();
    assert!(of_others.is_empty(), "{of_others:?}");
}

#[test]
fn row_security_cannot_be_left() {
    let world = World::new();
    let mut client = world.serving("ann");
    run_sql(&mut client, "SET row_security = off");
    for statement in [
        "SELECT FROM exa_billing.accounts",
        "SELECT exa_billing.account_balance('user', 'ann')",
        "SELECT FROM exa_billing.spend_hourly",
    ] {
        assert_eq!(error_of(&mut client, statement).code, "42501", "{statement}");
    }
    run_sql(&mut client, "SET row_security = on");
    for statement in [
        "ALTER TABLE exa_billing.accounts DISABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON exa_billing.accounts USING (true)",
        "DROP POLICY own_rows ON exa_billing.accounts",
        "ALTER POLICY own_rows ON exa_billing.accounts USING (true)",
        "SELECT exa_billing.setup()",
        "SET ROLE exa_billing_owner",
        "SET SESSION AUTHORIZATION exa_billing_owner",
        "COPY exa_billing.idempotency_keys TO STDOUT",
        "CREATE VIEW pg_temp.v AS SELECT * FROM exa_billing.access_grants; SELECT * FROM pg_temp.v",
    ] {
        assert_eq!(error_of(&mut client, statement).code, "42501", "{statement}");
    }
    // Through anything made of it one sees what one would see without.
    run_sql(&mut client, "CREATE TEMPORARY VIEW v AS SELECT * FROM exa_billing.accounts");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM v", &[]), 2);
    assert_eq!(
        texts(&mut client, "SELECT tablename::text FROM pg_stats WHERE schemaname = 'exa_billing'"),
        [""; 0]
    );
}

/// The number of pages a statement looks at, and its plan.
fn explained(client: &mut Client, statement: &str) -> (i64, String) {
    // The first time it also looks at the catalog.
    run_sql(client, statement);
    let sql = format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {statement}");
    let rows = client.query(&sql, &[]).expect("a plan");
    let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let top = plan.iter().find(|line| line.trim_start().starts_with("Buffers:")).expect("buffers");
    let read = top.split(' ').filter(|word| word.starts_with("hit=") || word.starts_with("read="));
    let pages = read.filter_map(|word| word.split_once('=')?.1.parse::<i64>().ok());
    (pages.sum(), plan.join("\n"))
}

/// A hundred thousand drivers of four hundred owners: what one end user reads costs what is theirs.
#[test]
fn a_reader_pays_for_their_own_rows_only() {
    let mut world = World::new();
    run_sql(
        &mut world.admin,
        "INSERT INTO exa_billing.spend_dimensions
             SELECT gen_random_uuid(), 'variable', 'other', 'p' || n, 'f', 'm', 'x' FROM generate_series(1, 2000) AS n;
         INSERT INTO exa_billing.spend_hourly_drivers
             SELECT CASE n % 4 WHEN 0 THEN 'organization' ELSE 'user' END, 'other-' || n % 400,
                    date_trunc('hour', at, 'UTC') - n / 400 * interval '1 hour', dimension_id, 'u', 5, 1
             FROM instant, generate_series(1, 100000) AS n
             JOIN (SELECT dimension_id, row_number() OVER (ORDER BY dimension_id) AS number
                   FROM exa_billing.spend_dimensions) AS d ON number = n * 7919::bigint % 2000 + 1;
         INSERT INTO exa_billing.spend_hourly_totals
             SELECT owner_kind, owner_id, hour_start, 'variable', sum(total_microdollars), count(*)
             FROM exa_billing.spend_hourly_drivers WHERE owner_id LIKE 'other%' GROUP BY 1, 2, 3;
         INSERT INTO exa_billing.accounts SELECT 'user', 'other-' || n, 0, 0, NULL, NULL, NULL, at
             FROM instant, generate_series(1, 20000) AS n",
    );
    run_sql(
        &mut world.admin,
        "VACUUM ANALYZE exa_billing.spend_dimensions, exa_billing.spend_hourly_drivers, exa_billing.spend_hourly_totals, exa_billing.accounts",
    );
    let mut client = world.serving("ann");
    let at = format!("timestamptz '{}'", world.at);
    for (statement, pages) in [
        ("SELECT * FROM exa_billing.accounts".to_owned(), 60),
        ("SELECT * FROM exa_billing.account_balances".to_owned(), 90),
        ("SELECT * FROM exa_billing.spend_hourly".to_owned(), 200),
        ("SELECT * FROM exa_billing.spend_drivers_hourly".to_owned(), 300),
        ("SELECT * FROM exa_billing.spend_dimensions".to_owned(), 200),
        (format!("SELECT exa_billing.spend_evidence('organization', 'acme', '30d', {at})"), 500),
        (
            format!(
                "SELECT * FROM exa_billing.top_spend_drivers('user', 'ann', {at} - interval '30 days', {at})"
            ),
            500,
        ),
    ] {
        // What a session has to look up in the catalog anew, because others have changed it, is not of
        // the reader's rows: the best of a few readings counts.
        let readings = (0..5).map(|_| explained(&mut client, &statement));
        let (read, plan) = readings.min().expect("readings");
        assert!(read <= pages, "{read} pages: {statement}\n{plan}");
        for table in ["spend_hourly_drivers", "spend_hourly_totals", "accounts"] {
            assert!(!plan.contains(&format!("Seq Scan on {table}")), "{statement}\n{plan}");
        }
        assert!(!plan.contains("BitmapOr"), "{statement}\n{plan}");
    }
}

/// Attached tables are read with the rights of their owners; policies decide of whom.
#[test]
fn attached_charges_are_shown_to_who_answers_for_them() {
    let mut world = World::new();
    // Whoever attaches needs to see nothing of the books.
    let owner = Role::attacher(&world.db, "owner");
    let mut attacher = world.db.client_as(&owner.name);
    run_sql(
        &mut attacher,
        &format!("SET client_min_messages = error; CREATE TABLE usage ({COLUMNS})"),
    );
    run_sql(&mut attacher, &attaching("llm", "usage"));
    for (user, cost) in [("ann", 5), ("dan", 7)] {
        spend(&mut attacher, "usage", user, cost);
    }
    run_sql(
        &mut attacher,
        "INSERT INTO usage (region, user_id, org_id, cost, at)
         VALUES ('a', 'cat', 'acme', 11, timestamptz '2024-05-15 12:30Z')",
    );
    // Before the first hour that is covered, the table itself is read.
    run_sql(&mut world.admin, "UPDATE exa_billing.spend_sources SET covered_from = '2026-01-01Z'");
    let spent = |client: &mut Client, kind: &str, id: &str| -> i64 {
        let sql = format!(
            "SELECT coalesce(sum(total_microdollars), 0)::bigint
             FROM exa_billing.spend_by_hour('{kind}', '{id}', '2024-05-15 12:00Z', '2024-05-15 13:00Z')"
        );
        one(client, &sql, &[])
    };
    for posted in [false, true] {
        if posted {
            run_sql(&mut world.admin, "SELECT exa_billing.post_spend()");
        }
        let figures = |client: &mut Client| {
            [
                spent(client, "user", "ann"),
                spent(client, "user", "dan"),
                spent(client, "organization", "acme"),
            ]
        };
        assert_eq!(figures(&mut world.as_role("auditor")), [5, 7, 11]);
        assert_eq!(figures(&mut world.serving("ann")), [5, 0, 11]);
        assert_eq!(figures(&mut world.serving("bob")), [0, 0, 11]);
        assert_eq!(figures(&mut world.serving("cat")), [0, 0, 0]);
        assert_eq!(figures(&mut world.serving("dan")), [0, 7, 0]);
        assert_eq!(figures(&mut world.as_role("hand")), [0, 0, 0]);
    }
    for kind in ["operator", "auditor"] {
        assert_no_violations(&mut world.as_role(kind));
    }
    // Who restricts staff by a policy of their own restricts them there too.
    let auditor = world.role("auditor");
    run_sql(
        &mut world.admin,
        &format!(
            "CREATE POLICY less ON exa_billing.spend_log AS RESTRICTIVE TO {auditor} USING (owner_id <> 'dan')"
        ),
    );
    let error = error_of(&mut world.as_role("auditor"), "SELECT * FROM exa_billing.verify_books()");
    assert_eq!(error.code, "42501");
    assert_no_violations(&mut world.as_role("operator"));
    assert_eq!(detach(&mut attacher, "llm"), 3);
    assert_eq!(spent(&mut world.serving("bob"), "organization", "acme"), 11);
    assert_no_violations(&mut world.admin);
}
