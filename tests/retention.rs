//! What is deleted after 90 days, in what order, and what outlives it.

mod common;
mod notifications_common;
mod sessions;

use common::{one, run_sql};
use notifications_common::*;
use postgres::Client;
use sessions::{books, verify};

/// An instant to look back from, and events and deliveries around it: `event('name', age)`.
const AGES: &str = "
    CREATE TABLE public.today AS SELECT now() AS at;
    CREATE FUNCTION public.event(name text, age interval) RETURNS void LANGUAGE sql AS $$
        INSERT INTO exa_billing.cost_insight_events
            (event_id, owner_kind, owner_id, event_type, snapshot, occurred_at, recorded_at)
        SELECT gen_random_uuid(), 'user', name, 'low_balance', '{}', at - age, at - age FROM public.today
    $$;
    CREATE FUNCTION public.delivery(name text, status text, age interval) RETURNS void LANGUAGE sql AS $$
        INSERT INTO exa_billing.notification_deliveries
            (delivery_id, event_id, owner_kind, owner_id, recipient_user_id, event_type, payload, status,
             attempt_count, next_attempt_at, claim_token, leased_until, occurred_at, created_at, finished_at)
        SELECT gen_random_uuid(), gen_random_uuid(), 'user', name, name, 'low_balance', '{\"kept\": 7}',
               status, 1, at - age, CASE WHEN status IN ('sending', 'sent') THEN gen_random_uuid() END,
               CASE WHEN status = 'sending' THEN at - age END, at - interval '200 days',
               at - interval '200 days', CASE WHEN status NOT IN ('pending', 'sending') THEN at - age END
        FROM public.today
    $$";

fn delete(client: &mut Client, max_rows: i32) -> i32 {
    one(
        client,
        "SELECT exa_billing.delete_old_events((SELECT at FROM public.today), $1)",
        &[&max_rows],
    )
}

fn names(client: &mut Client, table: &str) -> Vec<String> {
    let sql = format!("SELECT owner_id FROM exa_billing.{table} ORDER BY owner_id");
    client.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn ninety_days_are_counted_to_the_microsecond() {
    let db = books();
    // Neither summer time nor the length of months plays a part.
    let mut client = db.client_with("-c timezone=America/New_York");
    run_sql(&mut client, AGES);
    for (name, age) in [
        ("exactly", "2160 hours"),
        ("longer", "2160 hours 0.000001 seconds"),
        ("shorter", "2159 hours 59 minutes 59.999999 seconds"),
        ("today", "0"),
    ] {
        run_sql(&mut client, &format!("SELECT event('{name}', '{age}')"));
        for status in ["sent", "skipped", "dead", "pending", "sending"] {
            let call = format!("SELECT delivery('{name} {status}', '{status}', '{age}')");
            run_sql(&mut client, &call);
        }
    }
    assert_eq!(delete(&mut client, 1000), 4);
    assert_eq!(names(&mut client, "cost_insight_events"), ["exactly", "shorter", "today"]);
    let left = names(&mut client, "notification_deliveries");
    assert_eq!(left.len(), 17);
    let longer: Vec<&String> = left.iter().filter(|name| name.starts_with("longer")).collect();
    assert_eq!(longer, ["longer pending", "longer sending"]);
    assert_eq!(delete(&mut client, 1000), 0);
    // By the clock it is a moment later.
    let now: i32 = one(&mut client, "SELECT exa_billing.delete_old_events()", &[]);
    assert_eq!(now, 8);
    verify(&mut client);
}

#[test]
fn the_oldest_go_first_and_no_more_than_asked() {
    let db = books();
    let mut client = db.client();
    run_sql(&mut client, AGES);
    run_sql(
        &mut client,
        "SELECT event('e' || n, n * interval '1 day'),
                delivery('d' || n, 'sent', n * interval '1 day')
         FROM unnest(ARRAY[93, 95, 91, 94, 92]) AS n",
    );
    assert_eq!(delete(&mut client, 2), 2);
    assert_eq!(names(&mut client, "cost_insight_events"), ["e91", "e92", "e93"]);
    assert_eq!(delete(&mut client, 1), 1);
    assert_eq!(names(&mut client, "cost_insight_events"), ["e91", "e92"]);
    assert_eq!(names(&mut client, "notification_deliveries").len(), 5);
    // Deliveries get what events leave.
    assert_eq!(delete(&mut client, 4), 4);
    assert_eq!(names(&mut client, "cost_insight_events"), [""; 0]);
    assert_eq!(names(&mut client, "notification_deliveries"), ["d91", "d92", "d93"]);
    assert_eq!(delete(&mut client, 4), 3);
    assert_eq!(delete(&mut client, 4), 0);
}

#[test]
fn what_somebody_holds_is_left_to_the_next_call() {
    let db = books();
    let (mut client, mut other) = (db.client(), db.client());
    run_sql(&mut client, AGES);
    run_sql(
        &mut client,
        "SELECT event(name, '91 days'), delivery(name, 'dead', '91 days')
         FROM unnest(ARRAY['held', 'free']) AS name",
    );
    let mut held = other.transaction().unwrap();
    for table in ["cost_insight_events", "notification_deliveries"] {
        let sql = format!("SELECT FROM exa_billing.{table} WHERE owner_id = 'held' FOR UPDATE");
        run_sql(&mut held, &sql);
    }
    assert_eq!(delete(&mut client, 1000), 2);
    held.rollback().unwrap();
    assert_eq!(names(&mut client, "cost_insight_events"), ["held"]);
    assert_eq!(delete(&mut client, 1000), 2);
}

#[test]
fn what_lasts_stays_and_nothing_is_told_again() {
    let db = served_books();
    let mut client = db.client();
    run_sql(&mut client, AGES);
    low(&mut client, "user", "ann");
    run_sql(
        &mut client,
        "UPDATE exa_billing.cost_insight_events SET occurred_at = occurred_at - interval '91 days';
         INSERT INTO exa_billing.spend_alert_episodes
             (owner_kind, owner_id, alert_kind, event_id, threshold_microdollars, hour_start, started_at, snapshot)
         SELECT owner_kind, owner_id, 'threshold_24h', event_id, 5, NULL, occurred_at, '{\"figure\": 5}'
         FROM exa_billing.cost_insight_events;
         INSERT INTO exa_billing.cost_suggestions
             (suggestion_id, owner_kind, owner_id, suggestion_kind, target, status, observed_microdollars,
              price_microdollars, window_start, window_end, content, created_at, grounded_at)
         SELECT gen_random_uuid(), 'user', 'ann', 'kilo_pass', 't', 'open', 5, 5, at - interval '98 days',
                at - interval '91 days', '{}', at - interval '91 days', at - interval '91 days'
         FROM public.today",
    );
    let lasting = "SELECT concat_ws(' ', (SELECT e FROM exa_billing.spend_alert_episodes AS e),
                          (SELECT s FROM exa_billing.cost_suggestions AS s),
                          (SELECT a FROM exa_billing.accounts AS a))";
    let before: String = one(&mut client, lasting, &[]);
    assert_eq!(delete(&mut client, 1000), 1);
    assert_eq!(names(&mut client, "cost_insight_events"), [""; 0]);
    assert_eq!(one::<String>(&mut client, lasting, &[]), before);
    // The balance is still low, as everybody knows by now.
    run_sql(
        &mut client,
        "SELECT exa_billing.record_spend('user', 'ann', 1, 'variable', 's', 'p');
         SELECT exa_billing.post_spend(), exa_billing.adjust_credit('user', 'ann', -1, 'why')",
    );
    assert_eq!(low_balances(&mut client), [""; 0]);
    // Who was to be told still is, with the figures of then.
    run_sql(&mut client, "SELECT exa_billing.start_worker()");
    let claimed = claim_one(&mut client, "5 minutes");
    assert_eq!(claimed.payload["balance_microdollars"], 4);
    assert!(complete(&mut client, &claimed));
    verify(&mut client);
}
