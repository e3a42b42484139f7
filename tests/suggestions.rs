//! Suggestions: which spend gives ground for which, what becomes of them, and what their events say.

mod common;
mod evidence_common;
mod sessions;
mod usage_common;

use common::{error_of, one, run_sql};
use evidence_common::{books, cover_from, degrade, post_all, session};
use postgres::{Client, GenericClient};
use sessions::{in_sessions, pid, wait_for_lock_of};
use std::thread;
use usage_common::{assert_books_hold, column};

const USD: i64 = 1_000_000;
const M3: &str = "minimax/minimax-m3";

/// A variable charge on a model of minimax.
fn charge(c: &mut impl GenericClient, owner: &str, model: &str, amount: i64, at: &str) {
    charge_by(c, owner, "null", "p", model, amount, at);
}

fn charge_by(
    c: &mut impl GenericClient,
    owner: &str,
    actor: &str,
    product: &str,
    model: &str,
    amount: i64,
    at: &str,
) {
    let sql = format!(
        "select record_spend({owner}, {amount}, 'variable', 'ai_gateway', '{product}',
                model_or_plan_key => '{model}', provider_key => 'minimax', actor_user_id => {actor},
                created_at => {at})"
    );
    run_sql(c, &sql);
}

fn evaluate(c: &mut impl GenericClient, owner: &str, as_of: &str) {
    run_sql(c, &format!("select exa_billing.evaluate_spend_alerts({owner}, {as_of})"));
}

/// Target, status and observed amount of each suggestion, the oldest first.
fn suggestions(c: &mut impl GenericClient) -> Vec<String> {
    column(
        c,
        "select concat_ws(' ', target, status, observed_microdollars / 1000000.0::float8)
         from exa_billing.cost_suggestions order by created_at, suggestion_id",
    )
}

fn events(c: &mut impl GenericClient) -> Vec<String> {
    column(
        c,
        "select concat_ws(' ', event_type, suggestion_kind, actor_user_id, snapshot ->> 'target',
                snapshot ->> 'observed_microdollars')
         from exa_billing.cost_insight_events where suggestion_kind is not null
         order by occurred_at, event_id",
    )
}

/// Everything there is of suggestions.
fn everything(c: &mut impl GenericClient) -> String {
    one(
        c,
        "select (select jsonb_agg(s order by suggestion_id) from exa_billing.cost_suggestions as s)::text
             || (select jsonb_agg(e order by event_id) from exa_billing.cost_insight_events as e)::text",
        &[],
    )
}

#[test]
fn fifty_dollars_on_a_model_that_a_plan_covers_suggest_the_plan() {
    let (_db, mut c) = books();
    charge(&mut c, "'user', 'u'", M3, 50 * USD - 1, "at('0')");
    evaluate(&mut c, "'user', 'u'", "at('1 hour')");
    assert_eq!(suggestions(&mut c), [""; 0]);
    charge(&mut c, "'user', 'u'", M3, 1, "at('1 hour')");
    evaluate(&mut c, "'user', 'u'", "at('2 hours')");
    assert_eq!(suggestions(&mut c), ["minimax-coding-plan open 50"]);
    assert_eq!(events(&mut c), ["suggestion_created coding_plan minimax-coding-plan 50000000"]);
    let kept: String = one(
        &mut c,
        "select concat_ws(' ', suggestion_kind, price_microdollars, window_end = at('2 hours'),
                window_start = at('2 hours') - interval '168 hours', created_at = at('2 hours'),
                grounded_at = at('2 hours'), driver ->> 'provider_key', driver ->> 'model_or_plan_key',
                driver ->> 'total_microdollars', driver ->> 'spend_record_count', content ->> 'link')
         from cost_suggestions",
        &[],
    );
    assert_eq!(
        kept,
        "coding_plan 20000000 t t t t minimax minimax/minimax-m3 50000000 2 /subscriptions"
    );
    // Nobody is written to: who wants suggestions looks for them.
    assert_eq!(one::<i64>(&mut c, "select count(*) from notification_deliveries", &[]), 0);
    assert_books_hold(&mut c);
}

#[test]
fn the_actors_and_products_of_an_organization_are_one_driver() {
    let (_db, mut c) = books();
    let org = "'organization', 'o'";
    for (actor, product) in [("'a'", "p"), ("'b'", "p"), ("'b'", "q"), ("null", "q")] {
        charge_by(&mut c, org, actor, product, M3, 15 * USD, "at('0')");
    }
    // A single driver of somebody's is larger than each of these.
    charge_by(&mut c, org, "'a'", "p", "other-model", 59 * USD, "at('0')");
    evaluate(&mut c, org, "at('1 hour')");
    assert_eq!(suggestions(&mut c), ["minimax-coding-plan open 60"]);
    assert_books_hold(&mut c);
}

#[test]
fn everything_spent_suggests_the_pass_to_users_only() {
    let (_db, mut c) = books();
    for owner in ["'user', 'u'", "'organization', 'o'"] {
        charge(&mut c, owner, "other-model", 60 * USD, "at('0')");
        run_sql(
            &mut c,
            &format!(
                "select record_spend({owner}, {}, 'scheduled', 'coding_plan', 'p', created_at => at('0'))",
                40 * USD
            ),
        );
        evaluate(&mut c, owner, "at('1 hour')");
    }
    assert_eq!(suggestions(&mut c), ["kilo-pass-expert open 100"]);
    let kept = "select owner_kind || ' ' || (driver is null) || ' ' || price_microdollars from cost_suggestions";
    assert_eq!(one::<String>(&mut c, kept, &[]), "user true 199000000");
    assert_books_hold(&mut c);
}

#[test]
fn the_largest_driver_decides_and_of_equal_ones_the_first_in_byte_order() {
    let (_db, mut c) = books();
    charge(&mut c, "'user', 'u'", M3, 55 * USD, "at('0')");
    charge(&mut c, "'user', 'u'", "zzz", 55 * USD + 1, "at('0')");
    run_sql(
        &mut c,
        "update suggestion_rules set is_enabled = false where rule_key <> 'minimax-coding-plan'",
    );
    evaluate(&mut c, "'user', 'u'", "at('1 hour')");
    assert_eq!(suggestions(&mut c), [""; 0]);
    // As large as the other: minimax/… comes before zzz.
    charge(&mut c, "'user', 'u'", M3, 1, "at('1 hour')");
    evaluate(&mut c, "'user', 'u'", "at('2 hours')");
    assert_eq!(suggestions(&mut c), ["minimax-coding-plan open 55.000001"]);
    // Scheduled spend is no driver that a plan could take the place of.
    run_sql(
        &mut c,
        "select record_spend('user', 'u', 900000000, 'scheduled', 'coding_plan', 'p',
                model_or_plan_key => 'largest', created_at => at('2 hours'))",
    );
    evaluate(&mut c, "'user', 'u'", "at('3 hours')");
    assert_eq!(suggestions(&mut c), ["minimax-coding-plan open 55.000001"]);
    assert_books_hold(&mut c);
}

#[test]
fn the_window_is_exact_to_the_microsecond_posted_or_not() {
    let as_of = "at('20 minutes 30.5 seconds')";
    for is_posted in [false, true] {
        let (_db, mut c) = books();
        charge(&mut c, "'user', 'u'", M3, 30 * USD, &format!("{as_of} - interval '168 hours'"));
        charge(&mut c, "'user', 'u'", M3, 20 * USD, &format!("{as_of} - interval '1 microsecond'"));
        // An instant too early, and one too late.
        for outside in ["- interval '168 hours 0.000001 seconds'", "+ interval '0'"] {
            charge(&mut c, "'user', 'u'", M3, 500 * USD, &format!("{as_of} {outside}"));
        }
        if is_posted {
            post_all(&mut c);
        }
        evaluate(&mut c, "'user', 'u'", as_of);
        assert_eq!(suggestions(&mut c), ["minimax-coding-plan open 50"], "posted: {is_posted}");
        assert_books_hold(&mut c);
    }
}

#[test]
fn hours_that_are_not_trusted_are_read_from_the_journals() {
    let (_db, mut c) = books();
    for owner in ["u", "v", "w"] {
        let owner = format!("'user', '{owner}'");
        charge(&mut c, &owner, M3, 51 * USD, "at('-2 days')");
        charge(&mut c, &owner, M3, 4 * USD, "at('-1 days')");
    }
    post_all(&mut c);
    // The rollups have lost one of them, and nobody has noticed yet.
    run_sql(
        &mut c,
        "delete from spend_hourly_totals where hour_start = at('-2 days');
         delete from spend_daily_totals where day_start <= at('-2 days') and day_start > at('-3 days');
         delete from spend_hourly_drivers where hour_start = at('-2 days')",
    );
    let evaluate_all = |c: &mut Client, as_of: &str| {
        for owner in ["u", "v", "w"] {
            evaluate(c, &format!("'user', '{owner}'"), as_of);
        }
        column::<String>(
            c,
            "select owner_id || observed_microdollars from cost_suggestions where status = 'open' order by owner_id",
        )
    };
    assert_eq!(evaluate_all(&mut c, "at('1 hour')"), [""; 0]);
    // One owner's hours are marked, then everybody's.
    degrade(&mut c, "'user', 'v'", "-3 days", "-1 days");
    assert_eq!(evaluate_all(&mut c, "at('2 hours')"), ["v55000000"]);
    degrade(&mut c, "null, null", "-3 days", "-1 days");
    assert_eq!(evaluate_all(&mut c, "at('3 hours')"), ["u55000000", "v55000000", "w55000000"]);
    // The same when the rollups only begin later.
    run_sql(
        &mut c,
        "update spend_degraded_intervals set resolved_at = now(); truncate cost_suggestions",
    );
    cover_from(&mut c, "-1 days");
    assert_eq!(evaluate_all(&mut c, "at('4 hours')"), ["u55000000", "v55000000", "w55000000"]);
}

#[test]
fn attached_tables_count_in_whole_and_in_partial_hours() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "create table public.requests (who text, cost bigint, at timestamptz, model text);
         create index on public.requests (who, at);
         select attach_spend_source('llm', 'public.requests', 'variable', 'ai_gateway', '{
             \"user_id\": \"who\", \"organization_id\": {\"value\": null}, \"amount\": \"cost\",
             \"created_at\": \"at\", \"model_or_plan_key\": \"model\",
             \"provider_key\": {\"value\": \"minimax\"}}', backfill => true);
         insert into public.requests values
             ('u', 20000000, at('20 minutes') - interval '168 hours', 'minimax/minimax-m3'),
             ('u', 90000000, at('20 minutes') - interval '168 hours 1 second', 'minimax/minimax-m3'),
             ('u', 20000000, at('-2 days'), 'minimax/minimax-m3'),
             ('u', 10000000, at('19 minutes'), 'minimax/minimax-m3'),
             ('v', 90000000, at('19 minutes'), 'minimax/minimax-m3')",
    );
    evaluate(&mut c, "'user', 'u'", "at('20 minutes')");
    assert_eq!(suggestions(&mut c), ["minimax-coding-plan open 50"]);
    post_all(&mut c);
    evaluate(&mut c, "'user', 'u'", "at('20 minutes')");
    assert_eq!(suggestions(&mut c), ["minimax-coding-plan open 50"]);
    assert_books_hold(&mut c);
}

#[test]
fn a_second_look_changes_nothing_and_new_figures_refresh_the_same_suggestion() {
    let (_db, mut c) = books();
    charge(&mut c, "'user', 'u'", M3, 60 * USD, "at('0')");
    evaluate(&mut c, "'user', 'u'", "at('1 hour')");
    let before = everything(&mut c);
    evaluate(&mut c, "'user', 'u'", "at('1 hour')");
    evaluate(&mut c, "'user', 'u'", "at('1 hour 59 minutes')");
    assert_eq!(everything(&mut c), before);
    post_all(&mut c);
    evaluate(&mut c, "'user', 'u'", "at('1 hour 59 minutes')");
    assert_eq!(everything(&mut c), before);

    charge(&mut c, "'user', 'u'", M3, USD, "at('1 hour 59 minutes')");
    evaluate(&mut c, "'user', 'u'", "at('2 hours')");
    assert_eq!(suggestions(&mut c), ["minimax-coding-plan open 61"]);
    assert_eq!(events(&mut c).len(), 1);
    let moved = "select window_end = at('2 hours') and grounded_at = at('2 hours')
                    and created_at = at('1 hour') from cost_suggestions";
    assert!(one::<bool>(&mut c, moved, &[]));
    assert_books_hold(&mut c);
}

#[test]
fn rules_are_changed_with_sql() {
    let (_db, mut c) = books();
    charge(&mut c, "'user', 'u'", M3, 60 * USD, "at('0')");
    evaluate(&mut c, "'user', 'u'", "at('1 hour')");
    run_sql(
        &mut c,
        "update suggestion_rules set price_microdollars = 25000000, title = 'Für \"alle\" — 25 USD'
         where rule_key = 'minimax-coding-plan'",
    );
    evaluate(&mut c, "'user', 'u'", "at('2 hours')");
    let shown = "select price_microdollars || ' ' || (content ->> 'title') from cost_suggestions";
    assert_eq!(one::<String>(&mut c, shown, &[]), "25000000 Für \"alle\" — 25 USD");

    // Another plan for the same model, tried first: the old one stays while it has ground.
    run_sql(
        &mut c,
        "insert into suggestion_rules
         select 'a-better-plan', suggestion_kind, 5, true, owner_kind, provider_key, null,
                minimum_observed_microdollars, 0, '', '', '', '', '', repeat('x', 100000)
         from suggestion_rules where rule_key = 'minimax-coding-plan'",
    );
    evaluate(&mut c, "'user', 'u'", "at('3 hours')");
    assert_eq!(suggestions(&mut c), ["minimax-coding-plan open 60", "a-better-plan open 60"]);

    // What is no longer offered is no longer suggested.
    run_sql(
        &mut c,
        "update suggestion_rules set is_enabled = false where rule_key = 'a-better-plan'",
    );
    run_sql(&mut c, "delete from suggestion_rules where rule_key = 'minimax-coding-plan'");
    evaluate(&mut c, "'user', 'u'", "at('4 hours')");
    assert_eq!(suggestions(&mut c), ["minimax-coding-plan closed 60", "a-better-plan closed 60"]);
    run_sql(&mut c, "delete from suggestion_rules");
    evaluate(&mut c, "'user', 'u'", "at('5 hours')");
    assert_eq!(events(&mut c).len(), 2);
    assert_books_hold(&mut c);
}

#[test]
fn a_dismissed_suggestion_comes_back_for_half_as_much_again() {
    let (_db, mut c) = books();
    charge(&mut c, "'user', 'u'", M3, 60 * USD, "at('0')");
    evaluate(&mut c, "'user', 'u'", "at('1 hour')");
    let dismiss = "select dismiss_cost_suggestion(suggestion_id, 'u')
                   from cost_suggestions order by created_at desc limit 1";
    assert!(one::<bool>(&mut c, dismiss, &[]));
    assert!(!one::<bool>(&mut c, dismiss, &[]));
    let kept = "select dismissed_by_user_id || ' ' || (ended_at <= clock_timestamp()) from cost_suggestions";
    assert_eq!(one::<String>(&mut c, kept, &[]), "u true");
    let about = "select count(*) from cost_insight_events join cost_suggestions on suggestion_id = about_id";
    assert_eq!(one::<i64>(&mut c, about, &[]), 2);

    charge(&mut c, "'user', 'u'", M3, 30 * USD - 1, "at('1 hour')");
    evaluate(&mut c, "'user', 'u'", "at('2 hours')");
    assert_eq!(suggestions(&mut c), ["minimax-coding-plan dismissed 60"]);
    charge(&mut c, "'user', 'u'", M3, 1, "at('2 hours')");
    evaluate(&mut c, "'user', 'u'", "at('3 hours')");
    let both = ["minimax-coding-plan dismissed 60", "minimax-coding-plan open 90"];
    assert_eq!(suggestions(&mut c), both);

    // Dismissed again, now at 90; another price brings it back without any more spend.
    assert!(one::<bool>(&mut c, dismiss, &[]));
    evaluate(&mut c, "'user', 'u'", "at('4 hours')");
    assert_eq!(suggestions(&mut c).len(), 2);
    run_sql(&mut c, "update suggestion_rules set price_microdollars = 1");
    evaluate(&mut c, "'user', 'u'", "at('5 hours')");
    assert_eq!(suggestions(&mut c)[2], "minimax-coding-plan open 90");
    let of_suggestions = events(&mut c);
    let kinds = |kind: &str| of_suggestions.iter().filter(|event| event.starts_with(kind)).count();
    assert_eq!((kinds("suggestion_created"), kinds("suggestion_dismissed coding_plan u")), (3, 2));
    assert_books_hold(&mut c);
}

#[test]
fn a_suggestion_without_ground_is_closed_after_thirty_days() {
    let (_db, mut c) = books();
    charge(&mut c, "'user', 'u'", M3, 60 * USD, "at('-40 days')");
    evaluate(&mut c, "'user', 'u'", "at('-33 days')");
    assert_eq!(suggestions(&mut c), ["minimax-coding-plan open 60"]);
    // The charge has left the window: what was observed stays what it was.
    evaluate(&mut c, "'user', 'u'", "at('-32 days 23:59')");
    evaluate(&mut c, "'user', 'u'", "at('-3 days -1 seconds')");
    assert_eq!(suggestions(&mut c), ["minimax-coding-plan open 60"]);
    evaluate(&mut c, "'user', 'u'", "at('-3 days')");
    assert_eq!(suggestions(&mut c), ["minimax-coding-plan closed 60"]);
    let ended = "select ended_at = at('-3 days') from cost_suggestions";
    assert!(one::<bool>(&mut c, ended, &[]));
    // Closed, it may come back at once.
    charge(&mut c, "'user', 'u'", M3, 50 * USD, "at('-3 days')");
    evaluate(&mut c, "'user', 'u'", "at('-2 days')");
    assert_eq!(
        suggestions(&mut c),
        ["minimax-coding-plan closed 60", "minimax-coding-plan open 50"]
    );
    assert_books_hold(&mut c);
}

#[test]
fn who_wants_no_suggestions_gets_none() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "insert into spend_alert_settings
             (owner_kind, owner_id, spend_alerts_enabled, anomaly_alerts_enabled,
              cost_suggestions_enabled, changed_at)
         values ('user', 'u', false, true, false, now()), ('user', 'v', false, true, true, now())",
    );
    for owner in ["'user', 'u'", "'user', 'v'"] {
        charge(&mut c, owner, M3, 60 * USD, "at('0')");
        evaluate(&mut c, owner, "at('1 hour')");
    }
    let whose = "select string_agg(owner_id, ' ') from cost_suggestions";
    assert_eq!(one::<String>(&mut c, whose, &[]), "v");
    assert_books_hold(&mut c);
}

#[test]
fn an_unknown_suggestion_is_not_dismissed() {
    let (_db, mut c) = books();
    let error = error_of(&mut c, "select dismiss_cost_suggestion(gen_random_uuid(), 'u')");
    assert_eq!(error.code, "P0002");
    assert!(error.detail.is_some() && error.hint.is_some(), "{error:?}");
}

#[test]
fn of_dismissals_at_the_same_time_one_counts() {
    let (db, mut c) = books();
    charge(&mut c, "'user', 'u'", M3, 60 * USD, "at('0')");
    evaluate(&mut c, "'user', 'u'", "at('1 hour')");
    let dismissed = in_sessions(&db, 6, "-c search_path=exa_billing", |number, client| {
        let sql = "select dismiss_cost_suggestion(suggestion_id, $1) from cost_suggestions";
        one::<bool>(client, sql, &[&format!("actor-{number}")])
    });
    assert_eq!(dismissed.iter().filter(|&&did| did).count(), 1);
    assert_eq!(events(&mut c).len(), 2);
    assert_books_hold(&mut c);
}

// An evaluation that began before would otherwise refresh what has just been dismissed.
#[test]
fn a_dismissal_waits_for_an_evaluation_of_its_owner_and_for_no_other() {
    let (db, mut c) = books();
    for owner in ["'user', 'u'", "'user', 'v'"] {
        charge(&mut c, owner, M3, 60 * USD, "at('0')");
        evaluate(&mut c, owner, "at('1 hour')");
    }
    charge(&mut c, "'user', 'u'", M3, USD, "at('1 hour')");
    let mut dismisser = session(&db);
    let mut evaluation = c.transaction().unwrap();
    evaluate(&mut evaluation, "'user', 'u'", "at('2 hours')");
    let dismiss = "select dismiss_cost_suggestion(suggestion_id, 'a') from cost_suggestions where owner_id = $1";
    assert!(one::<bool>(&mut dismisser, dismiss, &[&"v"]));
    let waiting = pid(&mut dismisser);
    thread::scope(|scope| {
        let dismissal = scope.spawn(|| one::<bool>(&mut dismisser, dismiss, &[&"u"]));
        wait_for_lock_of(&mut db.client(), waiting);
        evaluation.commit().unwrap();
        assert!(dismissal.join().unwrap());
    });
    // The event tells of the figures as they were when it was dismissed.
    let last = "select snapshot ->> 'observed_microdollars' from cost_insight_events
                where event_type = 'suggestion_dismissed' and owner_id = 'u'";
    assert_eq!(one::<String>(&mut c, last, &[]), "61000000");
    assert_books_hold(&mut c);
}
