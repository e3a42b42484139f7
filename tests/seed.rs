//! The example: it loads into empty books only, says the same whenever it runs, and its books hold.

mod common;
mod usage_common;

use common::{Database, Server, one};
use std::process::{Command, Output};
use usage_common::{assert_books_hold, session};

fn load(server: &Server, db: &Database) -> Output {
    Command::new(server.bin("psql"))
        .args(["-X", "-U", "postgres", "-h", server.host(), "-p", &server.port().to_string()])
        .args(["-d", db.name(), "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/examples/seed.sql")])
        .env("PGTZ", "Asia/Tokyo")
        .output()
        .expect("psql")
}

#[test]
fn the_example_loads_once_and_its_figures_are_fixed() {
    let server = Server::shared();
    let db = server.empty_database();
    let output = load(&server, &db);
    let (said, complaints) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && complaints.is_empty(), "{said}\n{complaints}");
    // Model requests, searches, plan charges, unposted rows, violations.
    let counts = said.lines().find(|line| line.contains("24079")).expect("what was recorded");
    let counts: Vec<&str> = counts.split('|').map(str::trim).collect();
    assert_eq!(counts, ["24079", "3610", "9", "0", "0"]);

    let mut client = session(&db);
    let figures =
        "select string_agg(concat_ws(' ', owner_id, balance_microdollars, total_microdollars,
                              scheduled_microdollars, spend_record_count), ', ' order by owner_id)
        from (values ('organization', 'acme'), ('user', 'ada')) as o(owner_kind, owner_id),
             account_balance(owner_kind, owner_id), rolling_spend(owner_kind, owner_id, '91 days')";
    assert_eq!(
        one::<String>(&mut client, figures, &[]),
        "acme 422944800 1727055200 315000000 22373, ada 45866900 404133100 60000000 5325"
    );
    assert_books_hold(&mut client);

    let again = load(&server, &db);
    let complaints = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && complaints.contains("have rows already"), "{complaints}");
    assert_eq!(one::<i64>(&mut client, "select count(*) from spend_log", &[]), 24_088);
}
