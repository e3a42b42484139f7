//! What the tests of copies share: books with something in every table, and proof that a worker has
//! looked at them.
#![allow(dead_code)] // each test program uses a part of it

use crate::books_common::{contents, fill, texts};
use crate::common::{Server, one, run_sql, wait_until};
use postgres::Client;

/// Alerts, an event for a mailer, a delivery that a mailer has, a suggestion, a hole in the coverage, an
/// attached table and row security; `$` is a role.
const MORE: &str = "
    SELECT exa_billing.start_worker();
    CREATE TABLE shop.llm (id bigint PRIMARY KEY, who text, org text, cost bigint, at timestamptz);
    CREATE INDEX ON shop.llm (who, at); CREATE INDEX ON shop.llm (org, at);
    GRANT SELECT, INSERT ON shop.llm TO $;
    ATTACH;
    INSERT INTO shop.llm SELECT n, 'user-' || n % 3, CASE WHEN n < 4 THEN 'org-1' END, 100 * n,
        now() - n * interval '3 hours' FROM generate_series(1, 12) AS n;
    SELECT exa_billing.update_spend_alert_settings('user', 'user-2', '{\"spend_alerts_enabled\": true,
        \"cost_suggestions_enabled\": true, \"threshold_24h_microdollars\": 1000,
        \"minimum_balance_microdollars\": 5000}', 'user-2', now() - interval '1 minute');
    SELECT exa_billing.record_spend('user', 'user-2', 60000000, 'variable', 'ai_gateway', 'gateway',
        model_or_plan_key => 'minimax/minimax-m3', provider_key => 'minimax');
    SELECT exa_billing.post_spend(60);
    SELECT exa_billing.evaluate_spend_alerts('user', 'user-2');
    SELECT exa_billing.record_degraded_interval('2020-01-01Z', '2020-01-02Z', 'a test', 'user', 'user-2');
    SELECT exa_billing.claim_notifications(1, '1 day');
    SELECT exa_billing.enable_row_security();
    SELECT exa_billing.grant_application('$');
    CALL exa_billing.run_maintenance()";

/// Makes the table charge its users and organizations.
pub const ATTACH: &str = "
    SELECT exa_billing.attach_spend_source('llm', 'shop.llm', 'variable', 'ai_gateway', '{\"user_id\": \"who\",
        \"organization_id\": \"org\", \"amount\": \"cost\", \"created_at\": \"at\"}', backfill => true)";

/// Rows that wait: charges, and owners to be evaluated.
pub const CHARGES: &str = "
    SELECT exa_billing.record_exa_usage('user-' || n % 3, '/search', 1000 + n,
        CASE WHEN n % 2 = 0 THEN 'org-1' END) FROM generate_series(1, 20) AS n;
    INSERT INTO shop.llm VALUES (1000, 'user-1', NULL, 777, now())";

/// Fills every table of the books. Background work is started, and nobody does it yet; the charges and
/// the due evaluation of the end wait for it, and deliveries for a mailer.
pub fn fill_all(client: &mut Client, role: &str) {
    fill(client);
    run_sql(
        client,
        &format!("CREATE ROLE {role}; CREATE SCHEMA shop; GRANT USAGE ON SCHEMA shop TO {role}"),
    );
    for statement in MORE.split(";\n") {
        run_sql(client, &statement.replace('$', role).replace("ATTACH", ATTACH));
    }
    run_sql(client, CHARGES);
    // The posting of a charge is what queues an evaluation; this one is of a charge already posted.
    run_sql(client, "SELECT exa_billing.post_spend(2)");
    let tables = texts(
        client,
        "SELECT c.oid::regclass::text FROM pg_class AS c
         WHERE relnamespace = 'exa_billing'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition",
    );
    let mut is_empty = |table: &String| {
        one::<bool>(client, &format!("SELECT NOT EXISTS (SELECT FROM {table})"), &[])
    };
    let empty: Vec<&String> = tables.iter().filter(|table| is_empty(table)).collect();
    assert!(empty.is_empty(), "{empty:?}");
    assert!(queue(client) > 10 && evaluations(client) > 0 && pending(client) > 0);
}

/// All rows but those of the registry: it knows its tables by their oids, which are others where a dump
/// was restored.
pub fn rows(client: &mut Client) -> Vec<String> {
    contents(client).into_iter().filter(|line| !line.contains("spend_sources")).collect()
}

pub fn queue(client: &mut Client) -> i64 {
    one(client, "SELECT count(*) FROM exa_billing.unposted_spend", &[])
}

/// Owners who wait for their evaluation.
pub fn evaluations(client: &mut Client) -> i64 {
    one(client, "SELECT count(*) FROM exa_billing.evaluation_queue", &[])
}

/// Deliveries that wait for a mailer.
pub fn pending(client: &mut Client) -> i64 {
    let sql = "SELECT count(*) FROM exa_billing.notification_deliveries WHERE status = 'pending'";
    one(client, sql, &[])
}

pub fn serve(server: &Server, databases: &str) {
    server.set_conf(&[("exa_billing.databases", databases)]);
    server.reload();
}

/// Waits until no worker is connected to a database any more; its list has to leave it out.
pub fn wait_until_left(server: &Server, database: &str) {
    let mut client = server.client("postgres");
    let workers = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = $1 AND backend_type = 'exa_billing worker'";
    wait_until("no worker is connected", || one::<i64>(&mut client, workers, &[&database]) == 0);
}

/// Returns when the worker of a database has looked whether it may work, and has done everything that
/// it does then: a second look begins after all that.
pub fn wait_for_a_round(server: &Server, database: &str) {
    let (mut holder, mut watcher) = (server.client(database), server.client(database));
    let waiting = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
                   WHERE NOT l.granted AND l.relation = 'exa_billing.worker_registration'::regclass
                     AND a.backend_type = 'exa_billing worker' AND a.datname = current_database()";
    for _ in 0..2 {
        run_sql(
            &mut holder,
            "BEGIN; LOCK TABLE exa_billing.worker_registration IN ACCESS EXCLUSIVE MODE",
        );
        wait_until("the worker looks", || one::<i64>(&mut watcher, waiting, &[]) > 0);
        run_sql(&mut holder, "COMMIT");
    }
}
