//! From when on what waits in the books is not well, and what helps.

use super::finding::{Finding, HOUR, MINUTE, counted, graded, quoted, seconds_since};
use crate::time::Instant;
use uuid::Uuid;

/// Nothing is counted any further: a look must stay cheap when there is much.
pub const MAX_COUNTED_ROWS: i64 = 100_000;
pub const MAX_COUNTED_TROUBLES: i64 = 1_000;

/// When a row of the queue was made: its id says it, for an old charge may be recorded late.
pub fn queued_at(entry_id: Uuid, created_at: Instant) -> Instant {
    let Some(timestamp) = entry_id.get_timestamp() else { return created_at };
    let (seconds, nanoseconds) = timestamp.to_unix();
    let microseconds = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    Instant::from_unix_microseconds(microseconds.saturating_add(i64::from(nanoseconds / 1_000)))
}

pub fn unposted(rows: i64, oldest: Option<Instant>, now: Instant) -> Finding {
    let age = oldest.map_or(0, |oldest| seconds_since(oldest, now));
    let by_count = graded(rows, MAX_COUNTED_ROWS, i64::MAX);
    let status = by_count.max(graded(age, 5 * MINUTE, 30 * MINUTE));
    let figure = format!("{} rows, the oldest {age} s old", counted(rows, MAX_COUNTED_ROWS));
    Finding::of(
        status,
        figure,
        "Call SELECT exa_billing.post_spend(); until it returns 0. Why it is not done by itself is said by the checks of the worker and of the job.",
    )
}

/// An owner whose rows stay while posting goes on: somebody holds the account.
pub fn skipped(
    oldest: Option<(&str, Instant)>,
    last_posting: Option<Instant>,
    now: Instant,
) -> Finding {
    let passed_over = |queued: Instant| {
        last_posting.is_some_and(|posting| seconds_since(queued, posting) >= MINUTE)
    };
    let Some((owner, queued)) = oldest.filter(|(_, queued)| passed_over(*queued)) else {
        return Finding::ok("0 s");
    };
    let age = seconds_since(queued, now);
    Finding::of(
        graded(age, 5 * MINUTE, 30 * MINUTE),
        format!("{age} s, {owner}"),
        "End the transaction that holds this owner's account; it is one of SELECT pid, xact_start, query FROM pg_catalog.pg_stat_activity WHERE xact_start IS NOT NULL ORDER BY xact_start; or of SELECT gid, prepared FROM pg_catalog.pg_prepared_xacts; then call SELECT exa_billing.post_spend();",
    )
}

pub fn blocked(rows: i64, reason: Option<&str>) -> Finding {
    match reason {
        Some(reason) if rows > 0 => Finding::critical(
            format!("{} rows: {reason}", counted(rows, MAX_COUNTED_TROUBLES)),
            "Look at SELECT * FROM exa_billing.unposted_spend WHERE blocked_reason IS NOT NULL; mend the cause, then call SELECT exa_billing.retry_blocked_spend();",
        ),
        _ => Finding::ok("0 rows"),
    }
}

pub fn dead_rows(rows: i64) -> Finding {
    Finding::of(
        graded(rows, 100_000, 1_000_000),
        format!("{rows} rows"),
        "End what holds vacuum back: the oldest of SELECT pid, xact_start FROM pg_catalog.pg_stat_activity WHERE xact_start IS NOT NULL ORDER BY xact_start; or what pg_prepared_xacts and pg_replication_slots show; then, as a superuser, VACUUM exa_billing.unposted_spend;",
    )
}

pub fn evaluation_backlog(oldest_due: Option<Instant>, now: Instant) -> Finding {
    let age = oldest_due.map_or(0, |due| seconds_since(due, now));
    Finding::of(
        graded(age, 5 * MINUTE, HOUR),
        format!("{age} s overdue"),
        "Call SELECT * FROM exa_billing.evaluate_due_owners(); until nobody is evaluated. Why it is not done by itself is said by the checks of the worker and of the job.",
    )
}

/// The owner whose evaluation has failed most often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    pub owner_kind: String,
    pub owner_id: String,
    pub failures: i64,
    pub error: String,
}

const FAILURES_THAT_MATTER: i64 = 5;

pub fn failing_evaluations(owners: i64, worst: Option<&Failing>) -> Finding {
    let Some(Failing { owner_kind: kind, owner_id: id, failures, error }) =
        worst.filter(|_| owners > 0)
    else {
        return Finding::ok("0 owners");
    };
    Finding::of(
        graded(*failures, 1, FAILURES_THAT_MATTER),
        format!(
            "{} owners, {kind}/{id} {failures} times: {error}",
            counted(owners, MAX_COUNTED_TROUBLES)
        ),
        &format!(
            "Mend what it says, then call SELECT exa_billing.evaluate_spend_alerts({}, {});",
            quoted(kind),
            quoted(id)
        ),
    )
}

pub fn deliveries_pending(oldest_due: Option<Instant>, now: Instant) -> Finding {
    let age = oldest_due.map_or(0, |due| seconds_since(due, now));
    Finding::of(
        graded(age, 15 * MINUTE, 6 * HOUR),
        format!("{age} s overdue"),
        "Start the mailer, which takes deliveries with claim_notifications() and says what became of them with complete_notification() or fail_notification().",
    )
}

pub fn deliveries_dead(count: i64, error: Option<&str>) -> Finding {
    if count == 0 {
        return Finding::ok("0 in a day");
    }
    Finding::critical(
        format!(
            "{} in a day, the last one: {}",
            counted(count, MAX_COUNTED_TROUBLES),
            error.unwrap_or("no mailer has said why")
        ),
        "These people were not told and nobody tries again. Mend what is said by SELECT recipient_user_id, event_type, last_error FROM exa_billing.notification_deliveries WHERE status = 'dead' ORDER BY finished_at DESC; this is well again a day after the last one.",
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::given::*;
    use super::*;
    use crate::time::utc;

    #[test]
    fn a_queue_is_judged_by_age_and_length() {
        let of = |rows, age: i64| unposted(rows, Some(ago(age)), now()).status.as_str();
        assert_eq!(status(&unposted(0, None, now())), "ok");
        assert_eq!([of(1, 299), of(1, 300), of(1, 1800)], ["ok", "warning", "critical"]);
        assert_eq!([of(99_999, 0), of(100_000, 0)], ["ok", "warning"]);
        let figure = unposted(100_000, Some(ago(5)), now()).figure;
        assert_eq!(figure, "100000 or more rows, the oldest 5 s old");
    }

    #[test]
    fn an_owner_is_skipped_only_when_posting_has_gone_on_without_them() {
        let of = |age: i64, posted: Option<i64>| {
            skipped(Some(("user/u", ago(age))), posted.map(ago), now())
        };
        assert_eq!(status(&of(4000, None)), "ok");
        assert_eq!(status(&of(4000, Some(3990))), "ok");
        assert_eq!(status(&of(200, Some(0))), "ok");
        assert_eq!(status(&of(400, Some(0))), "warning");
        assert_eq!(status(&of(4000, Some(0))), "critical");
        assert_eq!(of(4000, Some(0)).figure, "4000 s, user/u");
    }

    #[test]
    fn a_queue_row_is_as_old_as_its_id() {
        let late = utc(2026, 10, 1, 0, 0);
        let seconds = u64::try_from(now().microseconds_since(Instant(0)) / 1_000_000).unwrap();
        let context = uuid::NoContext;
        let stamp = uuid::Timestamp::from_unix(context, seconds + 946_684_800, 5_000_000);
        let id = Uuid::new_v7(stamp);
        assert_eq!(queued_at(id, late), now().plus_microseconds(5_000));
        assert_eq!(queued_at(Uuid::nil(), late), late);
    }

    #[test]
    fn troubles_are_counted_as_far_as_they_are_looked_at() {
        assert_eq!(status(&blocked(0, None)), "ok");
        assert_eq!(status(&blocked(0, Some("why"))), "ok");
        assert_eq!(blocked(1000, Some("why")).figure, "1000 or more rows: why");
        assert_eq!(status(&blocked(1, Some("why"))), "critical");
        assert_eq!([99_999, 100_000, 1_000_000].map(|n| dead_rows(n).status.as_str()), {
            ["ok", "warning", "critical"]
        });
    }

    #[test]
    fn what_is_overdue_gets_worse() {
        let of = |rule: fn(Option<Instant>, Instant) -> Finding, age: i64| {
            rule(Some(ago(age)), now()).status.as_str()
        };
        assert_eq!([299, 300, 3599, 3600].map(|age| of(evaluation_backlog, age)), {
            ["ok", "warning", "warning", "critical"]
        });
        assert_eq!([899, 900, 21_599, 21_600].map(|age| of(deliveries_pending, age)), {
            ["ok", "warning", "warning", "critical"]
        });
        assert_eq!(of(deliveries_pending, -500), "ok");
        assert_eq!(status(&deliveries_dead(0, None)), "ok");
        assert_eq!(status(&deliveries_dead(3, None)), "critical");
        assert_eq!(status(&failing_evaluations(0, None)), "ok");
        let failing_of = |owners, failures| {
            let worst = Failing {
                owner_kind: "user".to_owned(),
                owner_id: "o'u".to_owned(),
                failures,
                error: "why".to_owned(),
            };
            failing_evaluations(owners, Some(&worst))
        };
        assert_eq!(status(&failing_of(0, 5)), "ok");
        let failing = |failures| failing_of(2, failures);
        assert_eq!([1, 4, 5].map(|failures| failing(failures).status.as_str()), {
            ["warning", "warning", "critical"]
        });
        assert_eq!(failing(4).figure, "2 owners, user/o'u 4 times: why");
        assert!(failing(4).what_to_do.contains("('user', 'o''u');"));
    }
}
