//! Every lock that a writing call takes, in somebody else's hands.

use crate::calls::{self, CALLS, Call};
use crate::common::{Database, Server, error_of, one, run_sql, wait_until};
use crate::proof_common::figure;
use crate::usage_common::{State, assert_books_hold, assert_unchanged, column, state};
use postgres::Client;
use std::cell::Cell;
use std::thread;

/// What a call has locked by its end, as commands of another session that take the same.
const LOCKED: &str = "
SELECT statement FROM pg_locks AS l LEFT JOIN pg_class AS c ON l.locktype = 'relation' AND c.oid = l.relation
CROSS JOIN LATERAL (
    SELECT format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', c.oid::regclass) WHERE c.relkind IN ('r', 'p', 'v')
    UNION ALL
    SELECT format('SELECT 1 FROM %s FOR UPDATE', c.oid::regclass)
    WHERE c.relkind IN ('r', 'p') AND l.mode IN ('RowExclusiveLock', 'RowShareLock')
    UNION ALL
    SELECT format('SELECT pg_advisory_xact_lock(%s)', CASE l.objsubid
               WHEN 1 THEN ((l.classid::bigint << 32) | l.objid::bigint)::text
               ELSE format('%s, %s', l.classid::bigint, l.objid::bigint) END)
    WHERE l.locktype = 'advisory'
) AS s (statement)
WHERE l.pid = pg_backend_pid() AND l.granted
  AND (l.locktype = 'advisory' OR c.relnamespace IN ('exa_billing'::regnamespace, 'public'::regnamespace))
GROUP BY statement ORDER BY statement";

struct Scene {
    holder: Client,
    caller: Client,
    watcher: Client,
    /// The books as they were left.
    before: State,
    number: Cell<u64>,
}

impl Scene {
    fn sql(&self, call: &Call) -> String {
        self.number.set(self.number.get() + 1);
        call.sql(self.number.get())
    }

    /// The statements that are in the way of the call.
    fn in_the_way(&mut self, call: &Call) -> Vec<String> {
        if call.is_procedure() {
            let tables = "SELECT format('LOCK TABLE exa_billing.%s IN ACCESS EXCLUSIVE MODE', t)
                          FROM unnest(ARRAY['accounts', 'procedure_progress', 'job_runs', 'storage_migrations',
                              'spend_daily_totals', 'spend_log', 'spend_hourly_totals', 'unposted_spend']) AS t";
            return column(&mut self.caller, tables);
        }
        let sql = self.sql(call);
        run_sql(&mut self.caller, &format!("BEGIN; {sql}"));
        let statements = column(&mut self.caller, LOCKED);
        run_sql(&mut self.caller, "ROLLBACK");
        statements
    }

    /// Whether the call is refused while somebody holds the lock. What it does otherwise is undone.
    fn is_refused(&mut self, call: &Call, statement: &str) -> bool {
        run_sql(&mut self.holder, &format!("BEGIN; {statement}"));
        let sql = self.sql(call);
        let begin = if call.is_procedure() { "" } else { "BEGIN;" };
        let outcome = self.caller.batch_execute(&format!("{begin}{sql}"));
        let _ = self.caller.batch_execute("ROLLBACK");
        if let Err(error) = &outcome {
            let code = error.code().expect("an error of the server").code();
            assert_eq!(code, "55P03", "{sql}\n{statement}\n{error:?}");
        }
        run_sql(&mut self.holder, "ROLLBACK");
        outcome.is_err()
    }

    /// Has the call wait for the lock and cancels it there. False when it did not wait.
    fn is_cancelled(&mut self, call: &Call, statement: &str) -> bool {
        run_sql(&mut self.holder, &format!("BEGIN; {statement}"));
        let sql = self.sql(call);
        let begin = if call.is_procedure() { "" } else { "BEGIN;" };
        let pid: i32 = one(&mut self.caller, "SELECT pg_backend_pid()", &[]);
        let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
                      WHERE pid = $1 AND wait_event_type = 'Lock'";
        let (outcome, waited) = thread::scope(|scope| {
            let caller = &mut self.caller;
            let run = scope.spawn(|| caller.batch_execute(&format!("{begin}{sql}")));
            let mut waited = false;
            wait_until("it waits or ends", || {
                waited = self.watcher.query_opt(cancel, &[&pid]).expect("a look").is_some();
                waited || run.is_finished()
            });
            (run.join().expect("the call"), waited)
        });
        let _ = self.caller.batch_execute("ROLLBACK");
        run_sql(&mut self.holder, "ROLLBACK");
        let code = outcome.err().map(|error| error.code().map(|code| code.code().to_owned()));
        // Some wait for nobody, and say so or go on.
        let expected = if waited { &["57014"][..] } else { &["55P03", "none"][..] };
        let code = code.map_or("none".to_owned(), Option::unwrap_or_default);
        assert!(expected.contains(&code.as_str()), "{code}: {sql}\n{statement}");
        waited
    }
}

/// On a server of its own, where nothing but the test locks anything.
fn scene(name: &str) -> (Server, Database, Scene) {
    let server = Server::start(name, &[("autovacuum", "off")]);
    let db = server.books();
    let mut holder = db.client();
    calls::fill(&mut holder);
    calls::assert_complete(&mut holder);
    let caller = db.client_with("-c lock_timeout=4ms -c client_min_messages=error");
    let before = state(&mut holder);
    let watcher = db.client();
    (server, db, Scene { holder, caller, watcher, before, number: Cell::new(0) })
}

pub fn each_in_somebody_elses_hands() {
    let (_server, _db, mut scene) = scene("locks-held");
    let (mut tried, mut refused) = (0, 0);
    for call in CALLS {
        let statements = scene.in_the_way(call);
        let times = statements.iter().filter(|s| scene.is_refused(call, s)).count();
        if !call.is_procedure() {
            assert_unchanged(&mut scene.holder, &scene.before, call.of[0]);
        }
        assert!(times > 0, "nothing is in the way of {call:?}: {statements:#?}");
        tried += statements.len();
        refused += times;
        // With nobody in the way it goes on.
        let sql = scene.sql(call);
        run_sql(&mut scene.caller, "SET lock_timeout = '30s'");
        run_sql(&mut scene.caller, &sql);
        run_sql(&mut scene.caller, "SET lock_timeout = '4ms'");
        scene.before = state(&mut scene.holder);
    }
    run_sql(&mut scene.caller, "SELECT exa_billing.post_spend(1000000)");
    assert_books_hold(&mut scene.caller);
    figure(
        "faults",
        &format!(
            "{} writing calls against {tried} locks of others: {refused} refused with 55P03 and nothing written, {} went on",
            CALLS.len(),
            tried - refused
        ),
    );
}

/// However deep in its work a call is, who cancels it is obeyed, and nothing of it stays.
pub fn a_wait_can_be_cancelled_anywhere() {
    let (_server, _db, mut scene) = scene("locks-cancelled");
    run_sql(&mut scene.caller, "SET lock_timeout = '10s'");
    let mut cancelled = 0;
    for call in CALLS {
        let mut statements = scene.in_the_way(call);
        statements.retain(|statement| statement.starts_with("LOCK TABLE"));
        // Of a function one in four: each of them costs a few looks.
        let step = if call.is_procedure() { 1 } else { 4 };
        let times = statements.iter().step_by(step).filter(|s| scene.is_cancelled(call, s)).count();
        if !call.is_procedure() {
            assert_unchanged(&mut scene.holder, &scene.before, call.of[0]);
        }
        cancelled += times;
        let sql = scene.sql(call);
        run_sql(&mut scene.caller, &sql);
        scene.before = state(&mut scene.holder);
    }
    run_sql(&mut scene.caller, "SELECT exa_billing.post_spend(1000000)");
    assert_books_hold(&mut scene.caller);
    assert!(cancelled > CALLS.len(), "{cancelled} waits were cancelled");
    figure("faults", &format!("{cancelled} waits of {} writing calls cancelled", CALLS.len()));
}

/// The locks that matter most, one by one, and what each stops.
pub fn of_rows_stop_what_needs_them_and_nothing_else() {
    let (_server, _db, mut scene) = scene("locks-of-rows");
    let account = "SELECT 1 FROM exa_billing.accounts WHERE owner_id = 'paid' FOR UPDATE";
    let allowance =
        "SELECT 1 FROM exa_billing.exa_monthly_allowance WHERE user_id = 'free' FOR UPDATE";
    let free = "SELECT exa_billing.record_exa_usage('free', '/search', 1)";
    let paid = "SELECT exa_billing.record_exa_usage('paid', '/search', 1)";
    let spend = "SELECT exa_billing.record_spend('user', 'paid', 1, 'scheduled', 'other', 'p')";
    let purchase = "SELECT exa_billing.record_spend('user', 'paid', 1, 'scheduled', 'other', 'p', require_balance => true)";
    let grant = "SELECT exa_billing.grant_credit('user', 'paid', 1)";
    let post = "SELECT exa_billing.post_spend()";
    let expire = "SELECT exa_billing.expire_credits('user', 'paid')";
    let recompute = "SELECT exa_billing.recompute_user_balances('paid')";
    run_sql(&mut scene.caller, free);
    for (lock, stopped, going_on) in [
        (account, &[purchase, grant, expire, recompute][..], &[free, paid, spend, post][..]),
        (allowance, &[free][..], &[paid, spend, purchase, grant, post, expire, recompute][..]),
    ] {
        run_sql(&mut scene.holder, &format!("BEGIN; {lock}"));
        for sql in stopped {
            let before = state(&mut scene.holder);
            assert_eq!(error_of(&mut scene.caller, sql).code, "55P03", "{lock}: {sql}");
            assert_eq!(before, state(&mut scene.holder), "{lock}: {sql}");
        }
        for sql in going_on {
            run_sql(&mut scene.caller, sql);
        }
        run_sql(&mut scene.holder, "ROLLBACK");
        for sql in stopped {
            run_sql(&mut scene.caller, sql);
        }
    }
    run_sql(&mut scene.caller, post);
    assert_books_hold(&mut scene.caller);
}
