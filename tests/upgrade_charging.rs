//! A new library on old books, before and after ALTER EXTENSION … UPDATE and before setup(): charging and
//! figures go on, and what needs newer tables says so.

mod books_common;
mod common;
mod upgrade_common;

use books_common::{assert_no_violations, fill, texts};
use common::{Server, error_of, one, run_sql};
use postgres::Client;
use upgrade_common::{installed_version, made_up};

const UPDATE: &str = "ALTER EXTENSION exa_billing UPDATE";
const SETUP: &str = "SELECT exa_billing.setup()";

const NEED_ALERTS: [&str; 13] = [
    "acknowledge_spend_alert",
    "complete_notification",
    "cost_insight_activity",
    "cost_insights_attention",
    "cost_insights_overview",
    "delete_old_events",
    "dismiss_cost_suggestion",
    "evaluate_due_owners",
    "evaluate_spend_alerts",
    "fail_notification",
    "run_spend_alert_sweep",
    "spend_alert_settings",
    "update_spend_alert_settings",
];
const NEED_JOBS: [&str; 6] = [
    "claim_notifications",
    "erase_user",
    "run_maintenance",
    "run_maintenance_step",
    "start_worker",
    "stop_worker",
];

/// Runs the example of every function; the names of those that want setup() first. Nothing else fails.
fn those_that_want_setup(client: &mut Client) -> Vec<String> {
    let functions = client
        .query(
            "SELECT proname::text, obj_description(oid, 'pg_proc') FROM pg_proc
             WHERE pronamespace = 'exa_billing'::regnamespace AND prorettype <> 'trigger'::regtype
               AND proname NOT IN ('setup', 'books_version')
             ORDER BY 1",
            &[],
        )
        .expect("the functions");
    assert!(functions.len() > 50, "{}", functions.len());
    // Their examples look at the tables themselves.
    let of_tables = [
        (
            "acknowledge_spend_alert",
            "SELECT exa_billing.acknowledge_spend_alert(gen_random_uuid(), 'u')",
        ),
        (
            "complete_notification",
            "SELECT exa_billing.complete_notification(gen_random_uuid(), gen_random_uuid())",
        ),
        (
            "fail_notification",
            "SELECT exa_billing.fail_notification(gen_random_uuid(), gen_random_uuid(), 'why')",
        ),
        (
            "dismiss_cost_suggestion",
            "SELECT exa_billing.dismiss_cost_suggestion(gen_random_uuid(), 'u')",
        ),
    ];
    let mut refused = Vec::new();
    for row in functions {
        let (name, comment): (String, String) = (row.get(0), row.get(1));
        let (_, example) = comment.split_once("Example: ").expect("an example");
        let call = of_tables.iter().find(|(of, _)| *of == name).map(|(_, call)| *call);
        let outcome = client.batch_execute(call.unwrap_or(example));
        run_sql(client, "ROLLBACK");
        let Err(error) = outcome else { continue };
        let error = error.as_db_error().unwrap_or_else(|| panic!("{name}: {error}"));
        if call.is_some() && error.code().code() == "P0002" {
            continue; // looked for, and not there
        }
        assert_eq!(error.code().code(), "55000", "{name}: {error:?}");
        assert_eq!(error.hint(), Some("Call SELECT exa_billing.setup();"), "{name}: {error:?}");
        assert!(error.message().ends_with("() needs newer exa_billing books"), "{error:?}");
        refused.push(name);
    }
    refused
}

fn assert_wants_setup(storage: usize, is_updated: bool) {
    let db = made_up(storage).books(&Server::shared());
    let mut client = db.client();
    if is_updated {
        run_sql(&mut client, UPDATE);
    }
    run_sql(&mut client, "SELECT exa_billing.grant_credit('organization', 'org-1', 50000000)");
    let mut expected: Vec<&str> = NEED_JOBS.to_vec();
    if storage == 1 {
        expected.extend(NEED_ALERTS);
    }
    if !is_updated {
        let later = [
            "erase_user",
            "run_maintenance",
            "run_maintenance_step",
            "start_worker",
            "stop_worker",
        ];
        expected.retain(|name| !later.contains(name));
    }
    expected.sort_unstable();
    assert_eq!(those_that_want_setup(&mut client), expected, "storage version {storage}");
    let detail = error_of(&mut client, "SELECT exa_billing.claim_notifications(1)").detail;
    assert_eq!(detail, Some(format!("The books have storage version {storage}; it needs 3.")));
}

#[test]
fn new_functions_say_what_old_books_lack() {
    assert_wants_setup(1, true);
    assert_wants_setup(2, true);
}

#[test]
fn old_functions_say_what_old_books_lack() {
    assert_wants_setup(1, false);
    assert_wants_setup(2, false);
}

/// One session goes through all of it, with its kept plans and its memory of the books.
#[test]
fn an_open_session_charges_before_between_and_after() {
    let db = made_up(1).books(&Server::shared());
    let (mut open, mut other) = (db.client(), db.client());
    let waiting = fill(&mut open);
    run_sql(&mut open, "SELECT exa_billing.grant_credit('user', 'u', 5000)");
    run_sql(&mut open, "SELECT exa_billing.set_free_allowance(100, '2020-01-01', 'u', 'split')");
    let charge = |client: &mut Client| {
        let row = client
            .query_one(
                "SELECT charged_microdollars, row_to_json(r)::text
                 FROM exa_billing.record_exa_usage('u', '/search', 1100) AS r",
                &[],
            )
            .expect("a charge");
        (row.get::<_, i64>(0), row.get::<_, String>(1).contains("is_replay"))
    };
    let figures = |client: &mut Client| {
        let row = client
            .query_one(
                "SELECT c.allowed, c.balance_microdollars, b.balance_microdollars, m.total_cost_microdollars,
                        (SELECT count(*) FROM exa_billing.account_statement('user', 'u',
                             now() - interval '1 hour', now() + interval '1 hour'))
                 FROM exa_billing.check_exa_usage('u') AS c, exa_billing.account_balance('user', 'u') AS b,
                      exa_billing.exa_monthly_usage('u') AS m",
                &[],
            )
            .expect("the figures");
        let all: (bool, i64, i64, i64, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
        all
    };
    // Old functions: a type that lacks its last attribute.
    assert_eq!(charge(&mut open), (1000, false));
    assert_eq!(figures(&mut open), (true, 4000, 4000, 1100, 3));
    assert_eq!(one::<i64>(&mut open, "SELECT exa_billing.post_spend(5000)", &[]), waiting + 1);

    run_sql(&mut other, UPDATE);
    assert_ne!(installed_version(&mut open), "0.0.9");
    assert_eq!(charge(&mut open), (1100, true));
    let batch = "SELECT sum(charged_microdollars)::bigint FROM exa_billing.record_exa_usage_batch(
                     '[{\"user_id\": \"u\", \"path\": \"/search\", \"cost_microdollars\": 400}]')";
    assert_eq!(one::<i64>(&mut open, batch, &[]), 400);
    assert_eq!(figures(&mut open), (true, 2500, 2500, 2600, 3));
    assert_eq!(one::<i64>(&mut open, "SELECT exa_billing.post_spend()", &[]), 2);
    // The only thing that is wrong is what setup() is going to bring.
    let violations = texts(&mut open, "SELECT detail FROM exa_billing.verify_books()");
    assert_eq!(
        violations,
        ["table credit_transactions has no enabled guard \"by_erasure_only\"; call setup()"]
    );
    let books = "SELECT status || ' ' || what_to_do FROM exa_billing.health_checks() WHERE check_name = 'books'";
    let books: String = one(&mut open, books, &[]);
    assert!(books.starts_with("critical") && books.contains("setup()"), "{books}");

    run_sql(&mut other, SETUP);
    let queued = "SELECT count(*) FROM exa_billing.evaluation_queue";
    assert_eq!(one::<i64>(&mut open, queued, &[]), 0);
    assert_eq!(charge(&mut open), (1100, true));
    assert_eq!(figures(&mut open), (true, 1400, 1400, 3700, 3));
    assert_eq!(one::<i64>(&mut open, "SELECT exa_billing.post_spend()", &[]), 1);
    // From here on posting tells whom to evaluate.
    assert_eq!(one::<i64>(&mut open, queued, &[]), 1);
    run_sql(&mut open, "SELECT exa_billing.start_worker()");
    assert_no_violations(&mut open);
}

/// Who may not read the table of migrations hears of it all the same.
#[test]
fn a_role_without_rights_on_the_migrations_is_told_too() {
    let db = made_up(1).books(&Server::shared());
    let mut client = db.client();
    let role = format!("reader_{}", db.name());
    run_sql(
        &mut client,
        &format!(
            "{UPDATE}; CREATE ROLE {role}; GRANT USAGE ON SCHEMA exa_billing TO {role};
             GRANT EXECUTE ON FUNCTION exa_billing.spend_alert_settings(text, text) TO {role}; SET ROLE {role}"
        ),
    );
    let error = error_of(&mut client, "SELECT exa_billing.spend_alert_settings('user', 'u')");
    run_sql(&mut client, &format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}"));
    assert_eq!(error.code, "55000", "{error:?}");
    assert_eq!(
        error.detail.as_deref(),
        Some("The books have storage version 1; it needs 2."),
        "{error:?}"
    );
}
