//! Transactions that are prepared and wait for their end, through a crash of the server.

use crate::common::{Server, error_of, one, run_sql, wait_until};
use crate::usage_common::{assert_books_hold, balance, column};
use crate::worker_common::{queue, serve, wait_for_worker};
use postgres::Client;

/// Everything that charges and grants, by one user alone, by an organization that others use as well,
/// and in an attached table.
fn prepare(client: &mut Client, name: &str) {
    run_sql(
        client,
        &format!(
            "BEGIN;
             SELECT exa_billing.record_exa_usage('{name}', '/search', 700, NULL, 'key');
             SELECT exa_billing.record_exa_usage('{name}', '/search', 50, 'org', 'org-key');
             SELECT exa_billing.record_spend('organization', 'org', 30, 'variable', 'kiloclaw', 'new-to-{name}');
             SELECT exa_billing.grant_credit('user', '{name}', 10000, now() + interval '1 day', idempotency_key => 'grant');
             INSERT INTO public.llm VALUES ('{name}', '{name}', 9, now());
             PREPARE TRANSACTION '{name}'"
        ),
    );
}

fn charge_others(client: &mut Client) {
    run_sql(
        client,
        "SELECT exa_billing.record_exa_usage('other', '/search', 5, 'org');
         SELECT exa_billing.record_spend('organization', 'org', 3, 'variable', 'kiloclaw', 'p');
         SELECT exa_billing.grant_credit('organization', 'org', 1000)",
    );
}

/// Charges of somebody whose account a prepared grant has locked: appended, and not posted by anybody.
fn charge_held(client: &mut Client) {
    run_sql(
        client,
        "SELECT exa_billing.record_spend('user', 'kept', 1, 'variable', 'kiloclaw', 'p')",
    );
}

fn used(client: &mut Client, kind: &str, id: &str) -> i64 {
    one(client, "SELECT microdollars_used FROM exa_billing.account_balance($1, $2)", &[&kind, &id])
}

/// Figures are those of what is committed; what waits is of nobody else's concern, but for its keys.
fn assert_waiting(client: &mut Client, others: i64, held: i64) {
    for (name, held) in [("kept", held), ("undone", 0)] {
        assert_eq!((used(client, "user", name), balance(client, "user", name)), (held, -held));
        run_sql(client, "SET lock_timeout = '100ms'");
        for retry in [
            format!("SELECT exa_billing.record_exa_usage('{name}', '/search', 700, NULL, 'key')"),
            format!("SELECT exa_billing.grant_credit('user', '{name}', 10000)"),
            format!("SELECT exa_billing.adjust_credit('user', '{name}', 1, 'why')"),
        ] {
            assert_eq!(error_of(client, &retry).code, "55P03", "{retry}");
        }
        run_sql(client, "RESET lock_timeout");
    }
    assert_eq!(used(client, "organization", "org"), others);
    // Nobody else is held back; what somebody has prepared is seen by nobody.
    wait_until("others are posted", || queue(client) == held);
    run_sql(client, "SELECT exa_billing.recompute_organization_balances('org')");
    assert_books_hold(client);
}

fn served() -> (Server, Client) {
    let server =
        Server::start("two-phase", &[("fsync", "on"), ("recovery_init_sync_method", "syncfs")]);
    let mut client = crate::worker_common::create(&server, "app");
    run_sql(
        &mut client,
        "SELECT exa_billing.setup(), exa_billing.start_worker();
         SELECT exa_billing.set_free_allowance(0, '2020-01-01');
         CREATE TABLE public.llm (id text PRIMARY KEY, who text, cost bigint, at timestamptz);
         CREATE INDEX ON public.llm (who, at);
         SELECT exa_billing.attach_spend_source('llm', 'public.llm', 'variable', 'ai_gateway',
             '{\"user_id\": \"who\", \"organization_id\": {\"value\": null}, \"amount\": \"cost\", \"created_at\": \"at\"}')",
    );
    serve(&server, "app");
    wait_for_worker(&mut client, "app");
    (server, client)
}

pub fn prepared_charges_and_grants_wait_through_a_crash() {
    let (server, mut client) = served();
    charge_others(&mut client);
    prepare(&mut client, "kept");
    prepare(&mut client, "undone");
    assert_waiting(&mut client, 8, 0);
    charge_held(&mut client);
    charge_others(&mut client);
    drop(client);
    server.kill9();
    server.start_again();
    let mut client = server.client("app");
    wait_for_worker(&mut client, "app");
    let prepared: Vec<String> =
        column(&mut client, "SELECT gid FROM pg_prepared_xacts ORDER BY gid");
    assert_eq!(prepared, ["kept", "undone"]);
    assert_waiting(&mut client, 16, 1);
    charge_held(&mut client);
    charge_others(&mut client);
    run_sql(&mut client, "COMMIT PREPARED 'kept'");
    // Exact the moment it is committed, whether it is posted by then or not.
    assert_eq!(
        (used(&mut client, "user", "kept"), balance(&mut client, "user", "kept")),
        (711, 9289)
    );
    assert_eq!(used(&mut client, "organization", "org"), 24 + 80);
    run_sql(&mut client, "ROLLBACK PREPARED 'undone'");
    wait_until("all is posted", || queue(&mut client) == 0);
    assert_books_hold(&mut client);
    assert_eq!(used(&mut client, "organization", "org"), 24 + 80);
    // The one replays, of the other nothing is left.
    for (name, is_replay) in [("kept", true), ("undone", false)] {
        let sql = format!(
            "SELECT is_replay FROM exa_billing.record_exa_usage('{name}', '/search', 700, NULL, 'key')"
        );
        assert_eq!(one::<bool>(&mut client, &sql, &[]), is_replay, "{name}");
        assert_eq!(used(&mut client, "user", name), if is_replay { 711 } else { 700 });
    }
    wait_until("all is posted", || queue(&mut client) == 0);
    assert_books_hold(&mut client);
}
