//! Background work without a worker: run_maintenance(), and where it may go on.

mod books_common;
mod common;
mod sessions;

use books_common::{assert_no_violations, texts};
use common::{Database, Server, error_of, one, run_sql};
use postgres::Client;
use sessions::{books, in_sessions};

const MAINTAIN: &str = "CALL exa_billing.run_maintenance()";
const REGISTRATIONS: &str = "SELECT count(*) FROM exa_billing.worker_registration";

fn queue(client: &mut Client) -> i64 {
    one(client, "SELECT count(*) FROM exa_billing.unposted_spend", &[])
}

fn charge(client: &mut Client, count: i32) {
    let sql = "SELECT exa_billing.record_spend('user', 'u' || n % 3, 5, 'scheduled', 'other', 'p')
               FROM generate_series(1, $1) AS n";
    client.query(sql, &[&count]).expect("charges");
}

/// Runs and failures of each job.
fn runs(client: &mut Client) -> Vec<String> {
    texts(
        client,
        "SELECT job_name || ' ' || run_count || ' ' || failures_in_a_row
         FROM exa_billing.worker_jobs ORDER BY job_name",
    )
}

#[test]
fn run_maintenance_does_every_job_for_whoever_may() {
    let db = books();
    let mut client = db.client();
    let operator = format!("operator_{}", db.name());
    run_sql(
        &mut client,
        &format!(
            "CREATE ROLE {operator} LOGIN; SELECT exa_billing.grant_operator('{operator}');
             SELECT exa_billing.start_worker()"
        ),
    );
    charge(&mut client, 30);
    run_sql(
        &mut client,
        "SELECT exa_billing.grant_credit('user', 'u1', 5, now() - interval '1 hour', created_at => now() - interval '2 hours')",
    );
    let partition: String = one(
        &mut client,
        "SELECT max(relname)::text FROM pg_class WHERE relname ~ '^spend_log_20' AND relkind = 'r'",
        &[],
    );
    run_sql(&mut client, &format!("DROP TABLE exa_billing.{partition}"));
    // Whatever a name means to who calls it.
    let mut caller = db.client_as(&operator);
    run_sql(&mut client, &format!("CREATE SCHEMA traps; GRANT ALL ON SCHEMA traps TO {operator}"));
    run_sql(
        &mut caller,
        "CREATE FUNCTION traps.trap(int, int) RETURNS boolean LANGUAGE plpgsql AS
             $$ BEGIN RAISE 'a trap'; END $$;
         CREATE FUNCTION traps.less(int, int) RETURNS int LANGUAGE plpgsql AS
             $$ BEGIN RAISE 'a trap'; END $$;
         CREATE OPERATOR traps.>= (LEFTARG = int, RIGHTARG = int, FUNCTION = traps.trap);
         CREATE OPERATOR traps.= (LEFTARG = int, RIGHTARG = int, FUNCTION = traps.trap);
         CREATE OPERATOR traps.+ (LEFTARG = int, RIGHTARG = int, FUNCTION = traps.less);
         SET search_path = traps, pg_catalog",
    );
    run_sql(&mut caller, MAINTAIN);
    assert_eq!(queue(&mut client), 0);
    let closed = "SELECT count(*) FROM exa_billing.credit_transactions
                  WHERE original_transaction_id IS NOT NULL";
    assert_eq!(one::<i64>(&mut client, closed, &[]), 1);
    let is_back = "SELECT to_regclass('exa_billing.' || $1) IS NOT NULL";
    assert!(one::<bool>(&mut client, is_back, &[&partition]));
    assert_eq!(
        runs(&mut client),
        [
            "delete old events 1 0",
            "evaluate due owners 1 0",
            "expire credits 1 0",
            "maintain partitions 1 0",
            "post spend 1 0",
            "prove the books 1 0",
            "remind mailers 1 0",
            "sweep spend alerts 1 0",
        ]
    );
    let proved = "SELECT count(*) FROM exa_billing.books_proof
                  WHERE finished_at IS NOT NULL AND violation_count = 0 AND owner_count = 3";
    assert_eq!(one::<i64>(&mut client, proved, &[]), 1);
    // Neither start nor stop is an operator's, and nobody else may do any of it.
    for call in ["start_worker", "stop_worker"] {
        let refused = error_of(&mut caller, &format!("SELECT exa_billing.{call}()"));
        assert_eq!(refused.code, "42501");
    }
    assert_no_violations(&mut client);
    run_sql(&mut client, &format!("DROP OWNED BY {operator}; DROP ROLE {operator}"));
}

#[test]
fn several_at_once_share_the_work() {
    let db = books();
    let mut client = db.client();
    run_sql(&mut client, "SELECT exa_billing.start_worker()");
    charge(&mut client, 3000);
    in_sessions(&db, 4, "", |number, client| {
        charge(client, 100);
        // Whatever the level that transactions have by default.
        if number % 2 == 0 {
            run_sql(client, "SET default_transaction_isolation = 'serializable'");
        }
        run_sql(client, MAINTAIN);
    });
    run_sql(&mut client, MAINTAIN);
    assert_eq!(queue(&mut client), 0);
    let used = "SELECT sum(microdollars_used)::bigint FROM exa_billing.accounts";
    assert_eq!(one::<i64>(&mut client, used, &[]), 3400 * 5);
    let failures = "SELECT count(*) FROM exa_billing.worker_jobs WHERE last_error IS NOT NULL";
    assert_eq!(one::<i64>(&mut client, failures, &[]), 0);
    assert_no_violations(&mut client);
}

#[test]
fn run_maintenance_wants_to_be_started_and_to_commit() {
    let db = books();
    let mut client = db.client();
    charge(&mut client, 3);
    let refused = error_of(&mut client, MAINTAIN);
    assert_eq!(refused.code, "55000");
    assert!(refused.hint.expect("a hint").contains("start_worker()"));
    run_sql(&mut client, "SELECT exa_billing.start_worker()");
    let refused = error_of(&mut client, &format!("BEGIN; {MAINTAIN}"));
    assert_eq!(refused.code, "2D000");
    run_sql(&mut client, "ROLLBACK");
    run_sql(&mut client, "SET default_transaction_read_only = on");
    assert_eq!(error_of(&mut client, MAINTAIN).code, "25006");
    run_sql(&mut client, "RESET default_transaction_read_only");
    assert_eq!((queue(&mut client), runs(&mut client).len()), (3, 0));
    // It was stopped while it went on: the step after that says so.
    run_sql(&mut client, "SELECT exa_billing.stop_worker()");
    let step = error_of(&mut client, "SELECT exa_billing.run_maintenance_step(1)");
    assert_eq!(step.code, "55000");
}

#[test]
fn a_job_that_there_is_not_is_the_end() {
    let db = books();
    let mut client = db.client();
    run_sql(&mut client, "SELECT exa_billing.start_worker()");
    for number in [i32::MIN, -1, 0, 9, i32::MAX] {
        let sql = "SELECT is_last FROM exa_billing.run_maintenance_step($1)";
        assert!(one::<bool>(&mut client, sql, &[&number]), "{number}");
    }
    assert_eq!(runs(&mut client).len(), 0);
}

/// Also when many are looked at by one statement.
#[test]
fn a_proof_finds_what_is_wrong_with_any_owner() {
    let db = books();
    let mut client = db.client();
    run_sql(
        &mut client,
        "SELECT exa_billing.start_worker();
         SELECT exa_billing.record_spend(kind, 'o' || n, 5, 'scheduled', 'other', 'p', actor_user_id => 'u')
         FROM generate_series(1, 70) AS n, unnest('{user,organization}'::text[]) AS kind",
    );
    run_sql(&mut client, MAINTAIN);
    let wrong = "UPDATE exa_billing.accounts SET microdollars_used = microdollars_used + 7
                 WHERE (owner_kind, owner_id) IN (('user', 'o13'), ('organization', 'o70'))";
    run_sql(&mut client, wrong);
    run_sql(&mut client, MAINTAIN);
    let proof = "SELECT owner_count || ' ' || violation_count || ' ' || first_violation
                 FROM exa_billing.books_proof WHERE finished_at IS NOT NULL";
    let found = texts(&mut client, proof);
    assert!(
        found.len() == 1 && found[0].starts_with("140 2 I3 organization o70 5 12 "),
        "{found:?}"
    );
}

/// A proof is one owner after the other: each must not cost as much as all.
#[test]
fn proving_one_owner_reads_no_others_rows() {
    let db = books();
    let mut client = db.client();
    let many = "SELECT exa_billing.record_spend('user', 'm' || n % 400, 5, 'scheduled', 'other', 'p', created_at => now() - n % 40 * interval '1 hour')
                FROM generate_series(1, 4000) AS n";
    run_sql(&mut client, many);
    run_sql(&mut client, "SELECT exa_billing.post_spend(4000)");
    run_sql(&mut client, many);
    run_sql(
        &mut client,
        "SELECT exa_billing.record_spend('user', 'u', 5, 'scheduled', 'other', 'p')",
    );
    run_sql(
        &mut client,
        "SELECT exa_billing.grant_credit('user', 'm' || n % 400, 5, now() + interval '1 day')
         FROM generate_series(1, 4000) AS n;
         ANALYZE exa_billing.accounts, exa_billing.credit_transactions, exa_billing.unposted_spend,
                 exa_billing.spend_hourly_totals, exa_billing.spend_daily_totals,
                 exa_billing.spend_hourly_drivers",
    );
    let read = |client: &mut Client| -> i64 {
        run_sql(client, "SELECT pg_stat_force_next_flush()");
        let sql = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint
                   FROM pg_stat_user_tables
                   WHERE relname IN ('accounts', 'credit_transactions', 'unposted_spend',
                                     'spend_hourly_totals', 'spend_daily_totals', 'spend_hourly_drivers')";
        one(client, sql, &[])
    };
    let before = read(&mut client);
    assert_eq!(
        texts(&mut client, "SELECT detail FROM exa_billing.verify_books('user', 'u')"),
        [""; 0]
    );
    let rows = read(&mut client) - before;
    assert!((1..400).contains(&rows), "{rows} rows");
}

/// Whatever the error; only who cancels the call ends it.
#[test]
fn a_job_that_fails_is_told_and_noted_and_the_others_go_on() {
    let db = books();
    let mut client = db.client();
    run_sql(
        &mut client,
        "SELECT exa_billing.start_worker();
         CREATE FUNCTION public.refuse() RETURNS boolean LANGUAGE plpgsql AS
             $$ BEGIN RAISE 'refused' USING errcode = current_setting('my.code'); END $$;
         ALTER TABLE exa_billing.accounts ADD CONSTRAINT refused CHECK (public.refuse()) NOT VALID",
    );
    charge(&mut client, 3);
    for code in ["40001", "40P01", "XX000", "42P01"] {
        run_sql(&mut client, &format!("SET my.code = '{code}'"));
        run_sql(&mut client, MAINTAIN);
    }
    let noted = "SELECT failures_in_a_row || ' ' || last_error FROM exa_billing.worker_jobs
                 WHERE job_name = 'post spend'";
    assert_eq!(texts(&mut client, noted), ["4 refused"]);
    let others = "SELECT count(*) FROM exa_billing.worker_jobs
                  WHERE failures_in_a_row = 0 AND run_count = 4";
    assert_eq!(one::<i64>(&mut client, others, &[]), 7);
    run_sql(&mut client, "SET my.code = '57014'");
    let cancelled = error_of(&mut client, MAINTAIN);
    assert_eq!(cancelled.code, "57014");
    run_sql(&mut client, "ALTER TABLE exa_billing.accounts DROP CONSTRAINT refused");
    run_sql(&mut client, MAINTAIN);
    assert_eq!((queue(&mut client), texts(&mut client, noted)), (0, vec!["0 refused".to_owned()]));
    assert_no_violations(&mut client);
}

#[test]
fn starting_and_stopping_twice_is_starting_and_stopping_once() {
    let db: Database = Server::shared().database();
    let mut client = db.client();
    // The first call makes the books too.
    run_sql(&mut client, "SELECT exa_billing.stop_worker()");
    assert_eq!(one::<i64>(&mut client, REGISTRATIONS, &[]), 0);
    in_sessions(&db, 8, "", |_, client| {
        for _ in 0..5 {
            run_sql(client, "SELECT exa_billing.start_worker()");
        }
    });
    assert_eq!(one::<i64>(&mut client, REGISTRATIONS, &[]), 1);
    run_sql(&mut client, "BEGIN; SELECT exa_billing.stop_worker(); ROLLBACK");
    run_sql(&mut client, MAINTAIN);
    for call in ["start_worker", "stop_worker"] {
        let refused = format!("BEGIN READ ONLY; SELECT exa_billing.{call}()");
        assert_eq!(error_of(&mut client, &refused).code, "25006");
        run_sql(&mut client, "ROLLBACK");
    }
    run_sql(&mut client, "SELECT exa_billing.stop_worker(); SELECT exa_billing.stop_worker()");
    assert_eq!(error_of(&mut client, MAINTAIN).code, "55000");
}
