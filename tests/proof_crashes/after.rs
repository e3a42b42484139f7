//! What is in the books after the last crash of a round, beside what the clients wrote down.

use crate::books_common::{assert_no_violations, texts};
use crate::clients::Diary;
use crate::common::{Server, one, run_sql, wait_until};
use crate::said::{Act, Answer, Kind, Names};
use crate::worker_common::queue;
use postgres::Client;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A row of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    owner: (String, String),
    id: Option<Uuid>,
    charged: Option<i64>,
}

/// The rows of a round by what they are and their amount. There should be one each.
type Journal = BTreeMap<(Kind, i64), Vec<Row>>;

const ROWS: &str = "
SELECT 'usage', CASE WHEN organization_id IS NULL THEN 'user' ELSE 'organization' END,
       coalesce(organization_id, user_id), cost_microdollars, usage_id, charged_microdollars
FROM exa_billing.exa_usage_log
UNION ALL
SELECT 'spend', owner_kind, owner_id, amount_microdollars, spend_id, amount_microdollars
FROM exa_billing.spend_log
UNION ALL
SELECT 'grant', owner_kind, owner_id, amount_microdollars, id, NULL
FROM exa_billing.credit_transactions WHERE original_transaction_id IS NULL
UNION ALL
SELECT 'ledger', CASE WHEN org IS NULL THEN 'user' ELSE 'organization' END, coalesce(org, who), cost, NULL, NULL
FROM public.llm";

fn journal(client: &mut Client, names: &Names) -> Journal {
    let mut journal = Journal::new();
    let sql = format!(
        "SELECT * FROM ({ROWS}) AS r (what, owner_kind, owner_id, amount, id, charged)
         WHERE owner_id LIKE '{}-%'",
        names.prefix
    );
    for row in client.query(&sql, &[]).expect("the journals") {
        let kind = match row.get(0) {
            "usage" => Kind::Usage,
            "spend" => Kind::Spend,
            "grant" => Kind::Grant,
            _ => Kind::Ledger,
        };
        let found = Row { owner: (row.get(1), row.get(2)), id: row.get(4), charged: row.get(5) };
        journal.entry((kind, row.get(3))).or_default().push(found);
    }
    journal
}

/// Whether the act is in the journals: all of it, once, or nothing of it.
fn is_there(act: &Act, journal: &Journal) -> bool {
    let counts: BTreeSet<usize> = act
        .entries
        .iter()
        .map(|entry| {
            let rows = journal.get(&(entry.kind, entry.amount)).map_or(&[][..], |rows| rows);
            for row in rows {
                assert_eq!((row.owner.0.as_str(), row.owner.1.as_str()), entry.owner(), "{act:?}");
            }
            rows.len()
        })
        .collect();
    assert!(counts == [0].into() || counts == [1].into(), "rows of each entry {counts:?}: {act:?}");
    counts == [1].into()
}

/// What the client was told is what is written.
fn assert_as_answered(act: &Act, journal: &Journal) {
    let told = act.entries.iter().filter(|entry| entry.kind != Kind::Ledger);
    assert_eq!(told.clone().count(), act.answers.len(), "{act:?}");
    for (entry, Answer { id, charged, .. }) in told.zip(&act.answers) {
        let row = &journal[&(entry.kind, entry.amount)][0];
        assert_eq!(row.id, Some(*id), "{act:?}");
        assert!(charged.is_none() || row.charged == *charged, "{row:?}: {act:?}");
    }
}

/// Looks at everything; returns how many unacknowledged acts had been committed.
pub fn examine(server: &Server, names: &Names, diary: &Diary) -> usize {
    let mut client = server.client("app");
    let before = journal(&mut client, names);
    let mut expected = 0;
    let mut unknown_but_there = 0;
    for act in &diary.acts {
        let there = is_there(act, &before);
        assert!(there || !act.acknowledged, "lost: {act:?}");
        expected += if there { act.entries.len() } else { 0 };
        if act.acknowledged {
            assert_as_answered(act, &before);
        } else {
            unknown_but_there += usize::from(there);
        }
    }
    assert_eq!(before.len(), expected, "there are rows that nobody asked for");
    ask_again(&mut client, names, diary, &before);
    assert_notifications(&mut client, diary);
    assert_goes_on(&mut client, names);
    assert_files_hold(&mut client);
    unknown_but_there
}

/// Every call that may be repeated: the same answer and nothing new where it was there, and what was
/// not there is now.
fn ask_again(client: &mut Client, names: &Names, diary: &Diary, before: &Journal) {
    let mut added = 0;
    let repeatable = diary.acts.iter().filter(|act| act.may_be_repeated());
    // All that are open, and some that are not.
    for act in repeatable.enumerate().filter(|(n, act)| !act.acknowledged || n % 10 == 0) {
        let (act, there) = (act.1, is_there(act.1, before));
        let mut again = act.clone();
        again.try_it(client).unwrap_or_else(|error| panic!("{error:?}: {act:?}"));
        for (place, answer) in again.answers.iter().enumerate() {
            assert!(answer.is_replay.is_none_or(|replay| replay == there), "{answer:?}: {act:?}");
            if let Some(first) = act.answers.get(place) {
                assert_eq!((answer.id, answer.charged), (first.id, first.charged), "{act:?}");
            }
        }
        added += if there { 0 } else { act.entries.len() };
    }
    let after = journal(client, names);
    assert_eq!(after.len(), before.len() + added, "asking again has added something else");
    assert!(after.values().all(|rows| rows.len() == 1), "asking again has doubled something");
}

fn assert_notifications(client: &mut Client, diary: &Diary) {
    let once: BTreeSet<&Uuid> = diary.claimed.iter().collect();
    assert_eq!(once.len(), diary.claimed.len(), "handed out twice within a lease");
    let unsent = "SELECT count(*) FROM exa_billing.notification_deliveries
                  WHERE delivery_id = ANY($1) AND status <> 'sent'";
    assert_eq!(one::<i64>(client, unsent, &[&diary.completed]), 0, "sent, and forgotten");
    let sent = "SELECT count(*) FROM exa_billing.notification_deliveries
                WHERE delivery_id = ANY($1) AND attempt_count <> 1";
    assert_eq!(one::<i64>(client, sent, &[&diary.claimed]), 0, "attempts that nobody made");
}

/// The worker is back and posts everything; every figure follows from the journals.
fn assert_goes_on(client: &mut Client, names: &Names) {
    wait_until("the worker has posted everything", || queue(client) == 0);
    assert_no_violations(client);
    let mismatches = texts(
        client,
        "SELECT m::text FROM exa_billing.reconcile_rollups(date_trunc('hour', now(), 'UTC') - interval '2 hours',
             date_trunc('hour', now(), 'UTC') + interval '1 hour') AS m
         WHERE mismatch_type <> 'coverage_hole'",
    );
    assert!(mismatches.is_empty(), "{mismatches:#?}");
    // The same by plain sums, which know nothing of the product's own statements.
    let rolled_up = texts(client, &format!("
        SELECT concat_ws(' ', owner_kind, owner_id, hour_start, spend_category, sum(amount))
        FROM (SELECT owner_kind, owner_id, date_trunc('hour', created_at) AS hour_start,
                     CASE what WHEN 'spend' THEN 'scheduled' ELSE 'variable' END AS spend_category, amount
              FROM ({CHARGES}) AS c) AS charges
        WHERE owner_id LIKE '{0}-%' AND amount > 0 GROUP BY owner_kind, owner_id, hour_start, spend_category
        ORDER BY 1", names.prefix));
    let posted = texts(
        client,
        &format!(
            "
        SELECT concat_ws(' ', owner_kind, owner_id, hour_start, spend_category, total_microdollars)
        FROM exa_billing.spend_hourly_totals WHERE owner_id LIKE '{0}-%' AND total_microdollars > 0
        ORDER BY 1",
            names.prefix
        ),
    );
    assert_eq!(rolled_up, posted);
    let used = texts(
        client,
        &format!(
            "
        SELECT concat_ws(' ', owner_kind, owner_id, sum(amount)) FROM ({CHARGES}) AS c
        WHERE owner_id LIKE '{0}-%' AND amount > 0 GROUP BY owner_kind, owner_id ORDER BY 1",
            names.prefix
        ),
    );
    let accounts = texts(
        client,
        &format!(
            "
        SELECT concat_ws(' ', owner_kind, owner_id, microdollars_used) FROM exa_billing.accounts
        WHERE owner_id LIKE '{0}-%' AND microdollars_used > 0 ORDER BY 1",
            names.prefix
        ),
    );
    assert_eq!(used, accounts);
}

const CHARGES: &str = "
SELECT 'usage' AS what, CASE WHEN organization_id IS NULL THEN 'user' ELSE 'organization' END AS owner_kind,
       coalesce(organization_id, user_id) AS owner_id, created_at, charged_microdollars AS amount
FROM exa_billing.exa_usage_log
UNION ALL
SELECT 'spend', owner_kind, owner_id, created_at, amount_microdollars FROM exa_billing.spend_log
UNION ALL
SELECT 'ledger', CASE WHEN org IS NULL THEN 'user' ELSE 'organization' END, coalesce(org, who), at, cost
FROM public.llm";

/// Tables and indexes as PostgreSQL's own checker sees them.
fn assert_files_hold(client: &mut Client) {
    let there = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'amcheck')";
    if !one::<bool>(client, there, &[]) {
        return println!("left out: amcheck, which is not installed here");
    }
    run_sql(client, "CREATE EXTENSION IF NOT EXISTS amcheck");
    let of_books = "c.relnamespace = 'exa_billing'::regnamespace OR c.oid = 'public.llm'::regclass";
    // Raises at the first index that misses a row or has its own in disorder.
    let indexes: i64 = one(
        client,
        &format!(
            "SELECT count(bt_index_check(i.indexrelid, true)::text) FROM pg_index AS i
             JOIN pg_class AS c ON c.oid = i.indrelid
             JOIN pg_class AS x ON x.oid = i.indexrelid
             JOIN pg_am AS a ON a.oid = x.relam AND a.amname = 'btree'
             WHERE ({of_books}) AND x.relkind = 'i' AND i.indisvalid"
        ),
        &[],
    );
    assert!(indexes > 50, "{indexes} indexes were looked at");
    let damage = texts(
        client,
        &format!(
            "SELECT c.relname || ': ' || d.msg FROM pg_class AS c
             CROSS JOIN LATERAL verify_heapam(c.oid) AS d WHERE ({of_books}) AND c.relkind = 'r'"
        ),
    );
    assert!(damage.is_empty(), "{damage:#?}");
}
