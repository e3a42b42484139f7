//! No room left for the server's own log: PostgreSQL panics, and recovers when there is.

use crate::common::{Server, one, run_sql, wait_until};
use crate::proof_common::figure;
use crate::small_disk::{SmallDisk, succeeds};
use crate::usage_common::{assert_books_hold, column};
use crate::worker_common::{create, queue, serve, wait_for_worker};
use std::process::Command;

/// With pg_wal on a small disk. None where nothing can be mounted.
fn server() -> Option<(Server, SmallDisk)> {
    let sizes = [("min_wal_size", "32MB"), ("max_wal_size", "48MB"), ("wal_recycle", "off")];
    let server = Server::start("log-disk", &sizes);
    let disk = SmallDisk::mount(&server, "wal", 96)?;
    let mut client = create(&server, "app");
    run_sql(&mut client, "SELECT exa_billing.setup(), exa_billing.start_worker()");
    drop(client);
    server.stop("fast");
    let (wal, small) = (server.data().join("pg_wal"), &disk.dir);
    let mv =
        format!("cp -a {0}/. {1}/ && rm -r {0} && ln -s {1} {0}", wal.display(), small.display());
    assert!(succeeds(Command::new("sh").args(["-c", &mv])), "{mv}");
    server.start_again();
    serve(&server, "app");
    Some((server, disk))
}

pub fn ends_the_server_and_loses_nothing() {
    let Some((server, disk)) = server() else {
        return figure(
            "faults",
            "left out: a full disk of the server's log, which takes root's right to mount",
        );
    };
    let mut client = server.client("app");
    wait_for_worker(&mut client, "app");
    disk.fill();
    let mut acknowledged = Vec::new();
    // Now and then another segment of the log, until there is none to be had.
    for n in 1.. {
        assert!(n < 10_000, "the log goes on growing");
        let key = format!("key-{n}");
        let charge = "SELECT exa_billing.record_exa_usage('u', '/search', 5, NULL, $1)::text";
        if client.query(charge, &[&key]).is_err() {
            break;
        }
        acknowledged.push(key);
        if n % 50 == 0 && client.batch_execute("SELECT pg_switch_wal()").is_err() {
            break;
        }
    }
    drop(client);
    wait_until("the server has given up", || !server.data().join("postmaster.pid").exists());
    let log = server.log();
    assert!(log.contains("PANIC") && log.contains("No space left on device"), "{log}");
    disk.free();
    server.start_again();
    let mut client = server.client("app");
    let there: Vec<String> =
        column(&mut client, "SELECT idempotency_key FROM exa_billing.idempotency_keys");
    assert!(acknowledged.iter().all(|key| there.contains(key)), "{acknowledged:?} {there:?}");
    assert!(there.len() <= acknowledged.len() + 1, "{acknowledged:?} {there:?}");
    let cost = "SELECT total_cost_microdollars FROM exa_billing.exa_monthly_usage('u')";
    assert_eq!(one::<i64>(&mut client, cost, &[]), 5 * i64::try_from(there.len()).unwrap());
    wait_for_worker(&mut client, "app");
    wait_until("all is posted", || queue(&mut client) == 0);
    assert_books_hold(&mut client);
    figure(
        "faults",
        &format!(
            "a full disk of the server's log after {} acknowledged charges",
            acknowledged.len()
        ),
    );
}
