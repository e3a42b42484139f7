//! Where no small disk can be mounted: a session whose files may not grow any more, which PostgreSQL meets
//! at the same place and in the same way as a full disk.

use crate::common::{Server, error_of, one, run_sql, tested_bin};
use crate::proof_common::figure;
use crate::usage_common::{assert_books_hold, assert_unchanged, state};

const BATCH: &str = "SELECT count(*) FROM exa_billing.record_exa_usage_batch((SELECT jsonb_agg(jsonb_build_object(
    'user_id', 'u' || n % 50, 'path', '/search', 'cost_microdollars', n)) FROM generate_series(1, 9000) AS n))";

pub fn stops_charging_in_the_middle() {
    // The log is written in segments, which have to stay below the limit.
    let server = Server::of_release(&tested_bin(), "file-limit", &["--wal-segsize=1"], &[]);
    server.start_again();
    let db = server.books();
    let mut client = db.client();
    run_sql(&mut client, &format!("{BATCH};{BATCH};CHECKPOINT"));
    let mut limited = db.client();
    let pid: i32 = one(&mut limited, "SELECT pg_backend_pid()", &[]);
    let queue = "SELECT pg_relation_size('exa_billing.unposted_spend')";
    let size: i64 = one(&mut client, queue, &[]);
    assert!(size > 2 << 20, "the queue has {size} bytes, and the log's segments a MB");
    // In the midst of a block.
    let limit = |bytes: String| {
        let (whose, fsize) = (format!("--pid={pid}"), format!("--fsize={bytes}:"));
        let limited = server.run("prlimit", &[&whose, &fsize]);
        assert!(limited.status.success(), "nothing can be mounted or limited: no disk can be full");
    };
    limit((size + 5000).to_string());
    let before = state(&mut client);
    let error = error_of(&mut limited, BATCH);
    let is_clear = error.code == "53100" || error.message.ends_with("File too large");
    assert!(is_clear, "{error:?}");
    assert_unchanged(&mut client, &before, "a batch that finds no room");
    limit("unlimited".to_owned());
    run_sql(&mut limited, BATCH);
    run_sql(&mut limited, "SELECT exa_billing.post_spend(1000000)");
    assert_books_hold(&mut client);
    figure(
        "faults",
        "no disk could be mounted; a file that may not grow (prlimit) in the middle of a batch",
    );
}
