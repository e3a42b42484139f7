//! What readers see of events, alerts and suggestions: pages, counts, and with whose rights.

mod common;
mod evidence_common;
mod insights_common;
mod usage_common;

use common::{Database, error_of, one, run_sql};
use evidence_common::{books, session_with};
use insights_common::{alerts_and_suggestions, charge, event};
use postgres::{Client, GenericClient};
use usage_common::{assert_unchanged, column, state};
use uuid::Uuid;

/// The ids of a page.
fn page(c: &mut impl GenericClient, filter: &str, before: Option<Uuid>, size: i32) -> Vec<Uuid> {
    let sql = "select event_id from exa_billing.cost_insight_activity('user', 'u', $1, $2, $3)";
    let rows = c.query(sql, &[&filter, &before, &size]).expect("a page");
    rows.iter().map(|row| row.get(0)).collect()
}

fn pages(c: &mut impl GenericClient, size: i32) -> Vec<Vec<Uuid>> {
    let mut pages: Vec<Vec<Uuid>> = Vec::new();
    loop {
        let before = pages.last().map(|page| *page.last().expect("a page has events"));
        let next = page(c, "all", before, size);
        if next.is_empty() {
            return pages;
        }
        pages.push(next);
    }
}

fn in_order(c: &mut impl GenericClient) -> Vec<Uuid> {
    column(
        c,
        "select event_id from exa_billing.cost_insight_events where owner_id = 'u'
         order by occurred_at desc, event_id desc",
    )
}

#[test]
fn pages_have_each_event_once_newest_first_also_of_the_same_instant() {
    let (_db, mut c) = books();
    // Sixty-two events at twenty-one instants; others of another owner in between.
    for number in 0..62 {
        event(&mut c, "'user', 'u'", "low_balance", &format!("{} hours", number / 3));
        event(&mut c, "'user', 'v'", "low_balance", &format!("{} hours", number / 3));
        event(&mut c, "'organization', 'u'", "low_balance", &format!("{} hours", number / 3));
    }
    let all: Vec<Uuid> = column(
        &mut c,
        "select event_id from exa_billing.cost_insight_events where (owner_kind, owner_id) = ('user', 'u')
         order by occurred_at desc, event_id desc",
    );
    assert_eq!(all.len(), 62);
    for size in [1, 7, 10, 61, 62, 100] {
        let pages = pages(&mut c, size);
        assert_eq!(pages.concat(), all, "{size}");
        let full = usize::try_from(size).unwrap();
        assert!(pages[..pages.len() - 1].iter().all(|page| page.len() == full), "{size}");
    }
    assert_eq!(pages(&mut c, 10)[6].len(), 2);
    let by_default = "select count(*) from cost_insight_activity('user', 'u')";
    assert_eq!(one::<i64>(&mut c, by_default, &[]), 20);
}

#[test]
fn what_happens_meanwhile_shifts_no_page() {
    let (_db, mut c) = books();
    for number in 1..=6 {
        event(&mut c, "'user', 'u'", "low_balance", &format!("{number} hours"));
    }
    let before = in_order(&mut c);
    let first = page(&mut c, "all", None, 3);
    event(&mut c, "'user', 'u'", "low_balance", "0 hours");
    assert_eq!([first.clone(), page(&mut c, "all", Some(first[2]), 3)].concat(), before);
}

#[test]
fn each_filter_has_its_types() {
    let (_db, mut c) = books();
    let of = [
        ("alerts", vec!["anomaly_alert", "low_balance", "recovered", "threshold_crossed"]),
        ("suggestions", vec!["suggestion_created", "suggestion_dismissed"]),
        ("reviews", vec!["alert_reviewed"]),
        ("settings", vec!["config_changed", "disabled"]),
    ];
    for (place, event_type) in of.iter().flat_map(|(_, types)| types).enumerate() {
        event(&mut c, "'user', 'u'", event_type, &format!("{place} hours"));
    }
    let types = |c: &mut Client, filter: &str| -> Vec<String> {
        column(
            c,
            &format!(
                "select event_type from exa_billing.cost_insight_activity('user', 'u', '{filter}')
                 order by event_type"
            ),
        )
    };
    for (filter, expected) in &of {
        assert_eq!(types(&mut c, filter), *expected, "{filter}");
    }
    assert_eq!(types(&mut c, "all").len(), 9);
    // A page goes on after an event that the filter leaves out.
    let newest = page(&mut c, "all", None, 1)[0];
    assert_eq!(page(&mut c, "settings", Some(newest), 20).len(), 2);
}

#[test]
fn events_older_than_ninety_days_are_not_shown() {
    let (_db, mut c) = books();
    for ago in ["2160 hours -2 minutes", "2160 hours 1 second", "100 days", "5 minutes"] {
        event(&mut c, "'user', 'u'", "low_balance", ago);
    }
    let all = in_order(&mut c);
    assert_eq!(page(&mut c, "all", None, 100), all[..2]);
    // Where a page ends at an event that has become too old there is nothing after it, and no error.
    assert_eq!(page(&mut c, "all", Some(all[2]), 100), Vec::<Uuid>::new());
    let shown = |c: &mut Client, as_of: &str| -> i32 {
        one(
            c,
            &format!(
                "select jsonb_array_length(cost_insights_overview('user', 'u', {as_of}) -> 'events')"
            ),
            &[],
        )
    };
    assert_eq!(shown(&mut c, "now()"), 2);
    // Neither as of an earlier time, when they were not so old, nor of a later one.
    assert_eq!(shown(&mut c, "now() - interval '50 days'"), 2);
    assert_eq!(shown(&mut c, "now() + interval '50 days'"), 1);
    assert_eq!(shown(&mut c, "now() + interval '91 days'"), 0);
}

#[test]
fn a_page_goes_on_only_after_an_event_of_its_owner() {
    let (_db, mut c) = books();
    event(&mut c, "'user', 'v'", "low_balance", "1 hour");
    for before in ["gen_random_uuid()", "(select event_id from cost_insight_events)"] {
        let call = format!("select cost_insight_activity('user', 'u', 'all', {before})");
        let error = error_of(&mut c, &call);
        assert_eq!(error.code, "P0002", "{before}");
        assert!(error.message.contains("before_event") && error.hint.is_some());
    }
}

#[test]
fn a_page_has_words_and_figures_and_the_snapshot_unchanged() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "insert into cost_insight_events
             (event_id, owner_kind, owner_id, event_type, alert_kind, about_id, actor_user_id, snapshot,
              occurred_at, recorded_at)
         values ('00000000-0000-0000-0000-000000000001', 'user', 'u', 'threshold_crossed', 'threshold_7d',
                 null, null, '{\"window\": \"7d\", \"threshold_microdollars\": 10000000,
                     \"total_microdollars\": 10500000, \"exact\": 12345678901234567890.123456789}',
                 now() - interval '1 hour', now()),
                ('00000000-0000-0000-0000-000000000002', 'user', 'u', 'alert_reviewed', 'threshold_7d',
                 '00000000-0000-0000-0000-000000000001', 'actor', '{}', now(), now())",
    );
    let shown: Vec<String> = column(
        &mut c,
        "select concat_ws('|', right(event_id::text, 1), event_type, alert_kind, right(about_id::text, 1),
                title, description, actor_user_id, amount_microdollars, snapshot ->> 'exact')
         from cost_insight_activity('user', 'u')",
    );
    assert_eq!(
        shown,
        [
            "2|alert_reviewed|threshold_7d|1|Alert reviewed|\
             The threshold of the last 7 days was reviewed.|actor",
            "1|threshold_crossed|threshold_7d|Spend of the last 7 days reached its threshold|\
             10.50 USD in the last 7 days. The threshold is 10.00 USD.|10500000|\
             12345678901234567890.123456789",
        ]
    );
    let same = "select a.snapshot = e.snapshot and a.occurred_at = e.occurred_at
                from cost_insight_activity('user', 'u', 'alerts') as a join cost_insight_events as e using (event_id)";
    assert!(one::<bool>(&mut c, same, &[]));
}

fn attention(c: &mut impl GenericClient) -> i32 {
    let waiting = one(c, "select exa_billing.cost_insights_attention('user', 'u')", &[]);
    let told: i32 =
        one(c, "select (exa_billing.cost_insights_overview('user', 'u') -> 'attention')::int", &[]);
    assert_eq!(waiting, told);
    waiting
}

#[test]
fn attention_counts_what_nobody_has_reviewed_and_suggestions_that_are_open() {
    let (_db, mut c) = books();
    assert_eq!(attention(&mut c), 0);
    alerts_and_suggestions(&mut c);
    assert_eq!(attention(&mut c), 5);
    run_sql(
        &mut c,
        "update spend_alert_episodes set reviewed_at = now() where alert_kind = 'anomaly'",
    );
    assert_eq!(attention(&mut c), 4);
    run_sql(
        &mut c,
        "insert into spend_alert_settings
             (owner_kind, owner_id, spend_alerts_enabled, anomaly_alerts_enabled,
              cost_suggestions_enabled, changed_at)
         values ('user', 'u', true, true, false, now())",
    );
    assert_eq!(attention(&mut c), 3);
    let others = "select cost_insights_attention('organization', 'u') + cost_insights_attention('user', 'v')";
    assert_eq!(one::<i32>(&mut c, others, &[]), 0);
}

/// Everything the readers say of user `u`, as one text.
fn everything_said(db: &Database, settings: &str, as_of: &str) -> String {
    let mut session = session_with(db, settings);
    one(
        &mut session,
        &format!(
            "select exa_billing.cost_insights_overview('user', 'u', {as_of})::text
                 || (select count(*) || jsonb_agg(jsonb_build_array(a.event_id, a.title, a.description, a.snapshot,
                         extract(epoch from a.occurred_at)) order by a.occurred_at desc, a.event_id desc)::text
                     from exa_billing.cost_insight_activity('user', 'u') as a)"
        ),
        &[],
    )
}

#[test]
fn the_answers_do_not_depend_on_the_session() {
    let (db, mut c) = books();
    alerts_and_suggestions(&mut c);
    charge(&mut c, 12_345, "m", "at('12:30')");
    charge(&mut c, 54_322, "m", "at('-80 days')");
    event(&mut c, "'user', 'u'", "anomaly_alert", "3 hours");
    run_sql(
        &mut c,
        "update cost_insight_events set snapshot = '{\"hour_start\": \"2026-11-22T10:00:00Z\",
             \"hour_variable_microdollars\": 30000000}'",
    );
    let as_of = "at('5 days 12:31:02.5')";
    let expected = everything_said(&db, "", as_of);
    assert!(expected.contains("2026-11-22 10:00 UTC"), "{expected}");
    for settings in [
        "-c timezone=Pacific/Auckland",
        "-c timezone=Asia/Kolkata -c datestyle=SQL,DMY",
        "-c timezone=America/St_Johns -c datestyle=German -c intervalstyle=iso_8601",
        "-c lc_messages=C -c extra_float_digits=-15 -c bytea_output=escape",
        "-c default_transaction_isolation=serializable -c default_transaction_read_only=on",
    ] {
        assert_eq!(everything_said(&db, settings, as_of), expected, "{settings}");
    }
}

#[test]
fn reading_writes_nothing() {
    let (db, mut c) = books();
    alerts_and_suggestions(&mut c);
    charge(&mut c, 12_345, "m", "at('12:30')");
    event(&mut c, "'user', 'u'", "disabled", "3 hours");
    let before = state(&mut c);
    everything_said(&db, "", "now()");
    attention(&mut c);
    assert_unchanged(&mut c, &before, "a reader");
    run_sql(
        &mut c,
        "begin read only; select cost_insights_overview('user', 'u'), cost_insights_attention('user', 'u');
         select cost_insight_activity('user', 'u'); commit",
    );
}

// An auditor has SELECT on the tables and nothing else: the readers need no more.
#[test]
fn readers_have_the_rights_of_their_caller() {
    let (db, mut c) = books();
    alerts_and_suggestions(&mut c);
    charge(&mut c, 12_345, "m", "at('12:30')");
    let role = format!("{}_auditor", db.name());
    run_sql(
        &mut c,
        &format!(
            "create role {role} login; select grant_auditor('{role}'); grant select on public.midnight to {role}"
        ),
    );
    let said = "select exa_billing.cost_insights_overview('user', 'u', '2027-01-01 00:30Z')::text
                    || exa_billing.cost_insights_attention('user', 'u')
                    || (select count(*) from exa_billing.cost_insight_activity('user', 'u'))";
    let mut auditor = db.client_as(&role);
    assert_eq!(one::<String>(&mut auditor, said, &[]), one::<String>(&mut c, said, &[]));
    run_sql(&mut c, &format!("revoke select on cost_suggestions from {role}"));
    let error = error_of(&mut auditor, "select exa_billing.cost_insights_attention('user', 'u')");
    assert_eq!(error.code, "42501");
    drop(auditor);
    run_sql(&mut c, &format!("drop owned by {role}; drop role {role}"));
}
