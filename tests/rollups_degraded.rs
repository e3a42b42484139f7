//! Degraded intervals: kept per owner or for all, merged where they meet, and resolved once.

mod common;
mod rollups_common;
mod sessions;
mod usage_common;

use common::{error_of, one, run_sql};
use postgres::Client;
use rollups_common::{SESSION, books, session};
use sessions::in_sessions;
use usage_common::column;

/// Records an interval of these hours of 3 February; returns its id.
fn record(c: &mut Client, from: i32, to: i32, rest: &str) -> String {
    let at = |hour| format!("'2025-02-03Z'::timestamptz + {hour} * interval '1 hour'");
    let call = format!("record_degraded_interval({}, {}, {rest})", at(from), at(to));
    one(c, &format!("select exa_billing.{call}::text"), &[])
}

fn resolve(c: &mut Client, id: &str) -> bool {
    one(c, "select resolve_degraded_interval($1::text::uuid)", &[&id])
}

/// All of them: hours of the month, owner, reason, and whether they are resolved.
fn intervals(c: &mut Client) -> Vec<String> {
    column(
        c,
        "select concat_ws(' ', to_char(from_hour at time zone 'UTC', 'DD/HH24') || '-' || to_char(to_hour at time zone 'UTC', 'DD/HH24'),
                owner_kind, owner_id, reason, case when resolved_at is not null then 'resolved' end)
         from exa_billing.spend_degraded_intervals order by from_hour, owner_kind, owner_id, reason, to_hour",
    )
}

#[test]
fn those_that_overlap_or_touch_become_one_that_keeps_the_oldest_id() {
    let (_db, mut c) = books();
    let first = record(&mut c, 10, 12, "'r'");
    let apart = record(&mut c, 20, 22, "'r'");
    let early = record(&mut c, 1, 2, "'r'");
    assert_eq!(intervals(&mut c), ["03/01-03/02 r", "03/10-03/12 r", "03/20-03/22 r"]);
    assert_eq!(record(&mut c, 12, 13, "'r'"), first, "they touch");
    assert_eq!(record(&mut c, 9, 11, "'r'"), first, "they overlap");
    assert_eq!(record(&mut c, 10, 11, "'r'"), first, "one lies in the other");
    assert_eq!(record(&mut c, 22, 23, "'r'"), apart);
    assert_eq!(intervals(&mut c), ["03/01-03/02 r", "03/09-03/13 r", "03/20-03/23 r"]);
    // One that reaches them all.
    assert_eq!(record(&mut c, 2, 30, "'r'"), first);
    assert_eq!(intervals(&mut c), ["03/01-04/06 r"]);
    assert_eq!(
        error_of(&mut c, &format!("select resolve_degraded_interval('{early}')")).code,
        "P0002"
    );
    assert!(resolve(&mut c, &first));
}

#[test]
fn owners_and_reasons_are_kept_apart() {
    let (_db, mut c) = books();
    let ids = [
        record(&mut c, 1, 3, "'r'"),
        record(&mut c, 2, 4, "'other'"),
        record(&mut c, 2, 4, "'r', 'user', 'u'"),
        record(&mut c, 3, 5, "'r', 'user', 'v'"),
        record(&mut c, 3, 6, "'r', 'organization', 'u'"),
    ];
    assert_eq!(intervals(&mut c).len(), 5);
    assert_eq!(record(&mut c, 4, 8, "'r', 'user', 'u'"), ids[2]);
    assert_eq!(record(&mut c, 6, 8, "'r', owner_id => 'u', owner_kind => 'organization'"), ids[4]);
    assert_eq!(record(&mut c, 3, 8, "'r'"), ids[0]);
    assert_eq!(
        intervals(&mut c),
        [
            "03/01-03/08 r",
            "03/02-03/08 user u r",
            "03/02-03/04 other",
            "03/03-03/08 organization u r",
            "03/03-03/05 user v r",
        ]
    );
}

#[test]
fn a_resolved_interval_stays_as_it_was() {
    let (_db, mut c) = books();
    let first = record(&mut c, 1, 3, "'r'");
    assert!(resolve(&mut c, &first));
    assert!(!resolve(&mut c, &first));
    let second = record(&mut c, 2, 4, "'r'");
    assert_ne!(first, second);
    assert_eq!(intervals(&mut c), ["03/01-03/03 r resolved", "03/02-03/04 r"]);
    let unknown = "select resolve_degraded_interval('00000000-0000-0000-0000-000000000000')";
    let error = error_of(&mut c, unknown);
    assert_eq!(error.code, "P0002");
    assert!(error.detail.is_some() && error.hint.is_some());
}

#[test]
fn bad_arguments_are_named() {
    let (_db, mut c) = books();
    for (arguments, named) in [
        ("'2025-02-03 10:00:01Z', '2025-02-03 12:00Z', 'r'", "from_hour"),
        ("'2025-02-03 10:00Z', '2025-02-03 10:59Z', 'r'", "to_hour"),
        ("'2025-02-03 10:00Z', '2025-02-03 10:00Z', 'r'", "to_hour"),
        ("'2025-02-03 10:00Z', '2025-02-03 12:00Z', ' '", "reason"),
        ("'2025-02-03 10:00Z', '2025-02-03 12:00Z', 'r', 'user'", "owner_id"),
        ("'2025-02-03 10:00Z', '2025-02-03 12:00Z', 'r', owner_id => 'u'", "owner_kind"),
    ] {
        let error = error_of(&mut c, &format!("select record_degraded_interval({arguments})"));
        assert_eq!(error.code, "22023", "{arguments}");
        assert!(error.message.contains(named), "{}", error.message);
    }
    assert_eq!(intervals(&mut c), [""; 0]);
    // Half an hour off UTC, the exact hours of a zone are none.
    run_sql(&mut c, "set timezone = 'Asia/Kolkata'");
    let local = "select record_degraded_interval('2025-02-03 10:00', '2025-02-03 12:00', 'r')";
    assert_eq!(error_of(&mut c, local).code, "22023");
    run_sql(
        &mut c,
        "select record_degraded_interval('2025-02-03 10:30', '2025-02-03 12:30', repeat('é', 2000))",
    );
}

#[test]
fn eight_sessions_that_record_neighbouring_hours_make_one_interval() {
    let (db, mut c) = books();
    let ids = in_sessions(&db, 8, SESSION, |number, c| {
        let mut ids = Vec::new();
        for i in 0..12 {
            let hour = i32::try_from(i * 8 + number).unwrap();
            ids.push(record(c, hour, hour + 1, "'r'"));
            record(c, hour, hour + 1, &format!("'r', 'user', 'u{}'", number % 2));
        }
        ids
    });
    let all = intervals(&mut c);
    assert!(all.contains(&"03/00-07/00 r".to_owned()), "{all:?}");
    // Of either user every second hour, none of which touch.
    assert_eq!(all.len(), 1 + 2 * 48);
    let kept: String = one(
        &mut c,
        "select interval_id::text from spend_degraded_intervals where owner_kind is null",
        &[],
    );
    assert!(ids.iter().flatten().any(|id| *id == kept));
}

#[test]
fn a_transaction_with_an_older_snapshot_is_to_try_again() {
    let (db, mut c) = books();
    let mut old = session(&db);
    let begin =
        "begin isolation level repeatable read; select count(*) from spend_degraded_intervals";
    run_sql(&mut old, begin);
    let id = record(&mut c, 1, 3, "'r'");
    let again = "select record_degraded_interval('2025-02-03 02:00Z', '2025-02-03 05:00Z', 'r')";
    assert_eq!(error_of(&mut old, again).code, "40001");
    run_sql(&mut old, &format!("rollback; {begin}"));
    assert_eq!(record(&mut c, 3, 4, "'r'"), id);
    assert_eq!(
        error_of(&mut old, &format!("select resolve_degraded_interval('{id}')")).code,
        "40001"
    );
    run_sql(&mut old, &format!("rollback; {begin}"));
    assert_eq!(record(&mut old, 4, 5, "'r'"), id);
    // What the same transaction wrote is met as well.
    assert_eq!(record(&mut old, 5, 6, "'r'"), id);
    run_sql(&mut old, "commit");
    assert_eq!(intervals(&mut c), ["03/01-03/06 r"]);
    run_sql(&mut old, begin);
    let unseen = record(&mut c, 10, 11, "'r'");
    assert_eq!(
        error_of(&mut old, &format!("select resolve_degraded_interval('{unseen}')")).code,
        "40001"
    );
}
