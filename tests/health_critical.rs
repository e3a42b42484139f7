//! health: each check there is turns critical when its fault is planted, with the figure and the cause,
//! and is well again when what it says was done.

mod books_common;
mod common;
mod health_common;

use books_common::{assert_no_violations, texts};
use common::{Server, one, run_sql, wait_until};
use health_common::*;
use postgres::Client;
use std::collections::BTreeSet;

/// What puts an end to a fault.
enum Mend {
    /// Exactly what the check says.
    AsTold,
    /// The named cause is mended; then what the check says besides.
    Cause { told: &'static str, by: &'static [&'static str] },
}
use Mend::{AsTold, Cause};

struct Plant {
    check: &'static str,
    fault: &'static [&'static str],
    /// With `*` for anything.
    figure: &'static str,
    mend: Mend,
    /// Other checks that this fault turns too.
    also: &'static [&'static str],
}

const fn plant(
    check: &'static str,
    fault: &'static [&'static str],
    figure: &'static str,
    mend: Mend,
) -> Plant {
    Plant { check, fault, figure, mend, also: &[] }
}

const A_CHARGE: &str = "SELECT exa_billing.record_exa_usage('u', '/search', 12000000)";
/// The ids of the queue carry the time.
const HALF_AN_HOUR_AGO: &str = "UPDATE exa_billing.unposted_spend SET entry_id = (
    lpad(to_hex((extract(epoch FROM now() - interval '31 minutes') * 1000)::bigint), 12, '0')
    || '7000' || '8' || substr(md5(entry_id::text), 1, 15))::uuid";
const A_LOW_BALANCE: &str = "UPDATE exa_billing.accounts SET minimum_balance_microdollars = 6000";
const A_WITHDRAWAL: &str = "SELECT exa_billing.adjust_credit('user', 'u', -1, 'why')";
const TWICE: &str = "2 failures in a row: it broke";

macro_rules! fails {
    ($job:literal) => {
        concat!(
            "UPDATE exa_billing.job_runs SET failures_in_a_row = 2, last_error = 'it broke'
             WHERE job_name = '",
            $job,
            "'"
        )
    };
}

/// A fault for each check, of most checks several.
const PLANTS: &[Plant] = &[
    plant(
        "books",
        &["DELETE FROM exa_billing.storage_migrations"],
        "0, storage_migrations is empty",
        AsTold,
    ),
    plant(
        "books",
        &["INSERT INTO exa_billing.storage_migrations VALUES (99, 'later', '9.9.9', now())"],
        "99, the library's is *",
        Cause {
            told: "Install the newer library again",
            by: &["DELETE FROM exa_billing.storage_migrations WHERE version = 99"],
        },
    ),
    plant(
        "functions",
        &["SET allow_system_table_mods = on;
           UPDATE pg_extension SET extversion = '0.0.9' WHERE extname = 'exa_billing'"],
        "0.0.9, the library's is *",
        Cause {
            told: "ALTER EXTENSION exa_billing UPDATE",
            by: &["UPDATE pg_extension SET extversion = default_version
                   FROM pg_available_extensions WHERE extname = name AND name = 'exa_billing'"],
        },
    ),
    plant(
        "foreign hands",
        &["CREATE RULE r AS ON INSERT TO exa_billing.spend_log DO ALSO NOTIFY spent"],
        "1 or more: table spend_log has a rule.",
        Cause {
            told: "Remove what does not belong to exa_billing",
            by: &["DROP RULE r ON exa_billing.spend_log"],
        },
    ),
    plant(
        "guards",
        &["ALTER TABLE exa_billing.idempotency_keys DISABLE TRIGGER append_only"],
        "1 missing: table idempotency_keys has no enabled guard \"append_only\"*",
        AsTold,
    ),
    plant(
        "guards",
        &["DROP TRIGGER by_erasure_only ON exa_billing.credit_transactions"],
        "1 missing: table credit_transactions has no enabled guard \"by_erasure_only\"*",
        AsTold,
    ),
    plant(
        "guards",
        &[
            "SELECT exa_billing.enable_row_security()",
            "ALTER TABLE exa_billing.accounts DISABLE ROW LEVEL SECURITY",
        ],
        "1 missing: table accounts has no row security*",
        AsTold,
    ),
    plant(
        "guards",
        &["ALTER TABLE public.llm DISABLE TRIGGER exa_billing_capture_update"],
        "1 missing: table public.llm has no enabled trigger \"exa_billing_capture_update\"*",
        AsTold,
    ),
    plant(
        "guards",
        &["ALTER EVENT TRIGGER exa_billing_guard_dropped_objects DISABLE"],
        "1 missing: event trigger exa_billing_guard_dropped_objects is not enabled always",
        AsTold,
    ),
    plant(
        "months ahead",
        &["DO $$ BEGIN EXECUTE format('DROP TABLE exa_billing.%I', to_char(
               now() AT TIME ZONE 'UTC' + interval '1 month', '\"exa_usage_log_\"YYYY_MM')); END $$"],
        "0 months, exa_usage_log",
        AsTold,
    ),
    Plant {
        also: &["skipped owner"],
        ..plant(
            "unposted rows",
            &[A_CHARGE, HALF_AN_HOUR_AGO],
            "1 rows, the oldest 18?? s old",
            AsTold,
        )
    },
    Plant {
        also: &["unposted rows"],
        ..plant("skipped owner", &[A_CHARGE, HALF_AN_HOUR_AGO], "18?? s, user/u", AsTold)
    },
    plant(
        "blocked rows",
        &[
            A_CHARGE,
            A_CHARGE,
            "UPDATE exa_billing.unposted_spend SET blocked_reason = 'out of range'",
        ],
        "2 rows: out of range",
        AsTold,
    ),
    plant(
        "dead rows",
        &[
            "BEGIN",
            "INSERT INTO exa_billing.unposted_spend
             SELECT 'user', 'u', lpad(to_hex(n), 32, '0')::uuid, 'spend', NULL, NULL, 0, 0,
                    lpad('7', 32, '0')::uuid, NULL, NULL, now(), pg_current_xact_id()
             FROM generate_series(1, 1000000) AS n",
            "ROLLBACK",
            "SELECT pg_stat_force_next_flush()",
        ],
        "10000?? rows",
        AsTold,
    ),
    plant(
        "coverage",
        &[
            "SELECT exa_billing.record_degraded_interval(date_trunc('hour', now(), 'UTC') - interval '2 hours',
                 date_trunc('hour', now(), 'UTC'), 'restored')",
            "UPDATE exa_billing.spend_degraded_intervals SET detected_at = now() - interval '25 hours'",
        ],
        "1 intervals, the oldest open for 900?? s: restored",
        AsTold,
    ),
    plant(
        "coverage",
        &[
            "SELECT exa_billing.record_degraded_interval(date_trunc('hour', now(), 'UTC') - interval '2 hours',
                 date_trunc('hour', now(), 'UTC'), 'one''s own', 'user', 'u')",
            "UPDATE exa_billing.spend_degraded_intervals SET detected_at = now() - interval '25 hours'",
        ],
        "1 intervals, the oldest open for 900?? s: one's own",
        AsTold,
    ),
    plant(
        "proof of the books",
        &[
            "UPDATE exa_billing.accounts SET microdollars_used = microdollars_used + 1 WHERE owner_id = 'u'",
            "CALL exa_billing.run_maintenance()",
        ],
        "1 violations, the first: I3 user u*",
        Cause {
            told: "mend what it shows",
            by: &["UPDATE exa_billing.accounts SET microdollars_used = microdollars_used - 1 WHERE owner_id = 'u'"],
        },
    ),
    plant(
        "proof of the books",
        &["UPDATE exa_billing.books_proof SET finished_at = now() - interval '15 days'"],
        "12960?? s ago, 0 violations",
        AsTold,
    ),
    plant(
        "evaluation backlog",
        &["INSERT INTO exa_billing.evaluation_queue
           VALUES ('user', 'u', gen_random_uuid(), now() - interval '2 hours', 0, NULL)"],
        "72?? s overdue",
        AsTold,
    ),
    plant(
        "failing evaluations",
        &["INSERT INTO exa_billing.evaluation_queue VALUES
               ('user', 'u', gen_random_uuid(), now() - interval '1 second', 5, 'it broke')"],
        "1 owners, user/u 5 times: it broke",
        AsTold,
    ),
    plant(
        "deliveries pending",
        &[
            A_LOW_BALANCE,
            A_WITHDRAWAL,
            "UPDATE exa_billing.notification_deliveries SET next_attempt_at = now() - interval '7 hours'",
        ],
        "252?? s overdue",
        Cause {
            told: "Start the mailer",
            by: &["SELECT exa_billing.complete_notification(delivery_id, claim_token)
                   FROM exa_billing.claim_notifications(10)"],
        },
    ),
    plant(
        "deliveries dead",
        &[
            "UPDATE exa_billing.notification_deliveries
             SET status = 'pending', attempt_count = 4, next_attempt_at = now(), claim_token = NULL,
                 finished_at = NULL",
            "SELECT exa_billing.fail_notification(delivery_id, claim_token, 'no such mailbox')
             FROM exa_billing.claim_notifications(10)",
        ],
        "1 in a day, the last one: no such mailbox",
        Cause {
            told: "well again a day after the last one",
            by: &["UPDATE exa_billing.notification_deliveries
                   SET finished_at = finished_at - interval '25 hours' WHERE status = 'dead'"],
        },
    ),
    plant("clone guard", &["SELECT exa_billing.stop_worker()"], "not started", AsTold),
    plant(
        "clone guard",
        &["UPDATE exa_billing.worker_registration SET system_identifier = 1"],
        "a copy: *",
        AsTold,
    ),
    plant(
        "clone guard",
        &["UPDATE exa_billing.worker_registration SET database_oid = 1"],
        "a copy: *",
        AsTold,
    ),
    plant(
        "clone guard",
        &["UPDATE exa_billing.worker_registration SET instance_name = 'staging'"],
        "a copy: *",
        AsTold,
    ),
    Plant {
        also: EACH_JOB,
        ..plant(
            "worker",
            &["UPDATE exa_billing.job_runs SET last_started_at = now() - interval '5 days'"],
            "4320?? s since the last run of a job",
            AsTold,
        )
    },
    Plant {
        also: EACH_JOB,
        ..plant("worker", &["DELETE FROM exa_billing.job_runs"], "nothing has ever run", AsTold)
    },
    plant(
        "databases",
        &["ALTER SYSTEM SET exa_billing.databases = 'gone'", "SELECT pg_reload_conf()"],
        "0 served of 1 listed",
        Cause {
            told: "Take what does not exist (gone) out of exa_billing.databases and reload the server.",
            by: &["ALTER SYSTEM RESET exa_billing.databases", "SELECT pg_reload_conf()"],
        },
    ),
    plant("job: post spend", &[fails!("post spend")], TWICE, AsTold),
    plant("job: expire credits", &[fails!("expire credits")], TWICE, AsTold),
    plant("job: evaluate due owners", &[fails!("evaluate due owners")], TWICE, AsTold),
    plant("job: remind mailers", &[fails!("remind mailers")], TWICE, AsTold),
    plant("job: maintain partitions", &[fails!("maintain partitions")], TWICE, AsTold),
    plant("job: sweep spend alerts", &[fails!("sweep spend alerts")], TWICE, AsTold),
    plant("job: delete old events", &[fails!("delete old events")], TWICE, AsTold),
    plant("job: prove the books", &[fails!("prove the books")], TWICE, AsTold),
    plant(
        "job: prove the books",
        &["UPDATE exa_billing.job_runs SET last_started_at = now() - interval '5 days'
           WHERE job_name = 'prove the books'"],
        "4320?? s since the last run",
        AsTold,
    ),
];
const EACH_JOB: &[&str] = &[
    "job: post spend",
    "job: expire credits",
    "job: evaluate due owners",
    "job: remind mailers",
    "job: maintain partitions",
    "job: sweep spend alerts",
    "job: delete old events",
    "job: prove the books",
];

/// Whether a text is as the pattern says: `*` is anything, `?` one character.
fn is_like(text: &str, pattern: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = &pattern[1..];
            (0..=text.len()).any(|at| text.is_char_boundary(at) && is_like(&text[at..], rest))
        }
        Some(wanted) => text.chars().next().is_some_and(|first| {
            (wanted == '?' || wanted == first)
                && is_like(&text[first.len_utf8()..], &pattern[wanted.len_utf8()..])
        }),
    }
}

/// A person is told what to do in sentences, with calls that there are.
fn assert_can_be_done(client: &mut Client, what_to_do: &str) {
    assert!(what_to_do.starts_with(|first: char| first.is_ascii_uppercase()), "{what_to_do}");
    assert!(what_to_do.ends_with(['.', ';']) && !what_to_do.contains(";;"), "{what_to_do}");
    let of_name = |character: char| character.is_ascii_alphanumeric() || "_.".contains(character);
    let mut rest = what_to_do;
    while let Some(end) = rest.find('(') {
        let name = rest[..end].rsplit(|character| !of_name(character)).next().unwrap();
        if !name.is_empty() {
            let bare = name.strip_prefix("exa_billing.").unwrap_or(name);
            let known = "SELECT count(*) > 0 FROM pg_proc WHERE proname = $1
                         AND pronamespace = 'exa_billing'::regnamespace";
            assert!(one::<bool>(client, known, &[&bare]), "{name} in: {what_to_do}");
        }
        rest = &rest[end + 1..];
    }
}

fn unwell_names(client: &mut Client) -> BTreeSet<String> {
    texts(client, "SELECT name FROM exa_billing.health WHERE status <> 'ok'").into_iter().collect()
}

/// Plants one fault, and has it mended.
fn play(client: &mut Client, plant: &Plant) {
    let name = plant.check;
    for statement in plant.fault {
        run_sql(client, statement);
    }
    // Settings and statistics arrive a moment later.
    wait_until(name, || check(client, name).is("critical"));
    let found = check(client, name);
    assert!(is_like(&found.figure, plant.figure), "{name}: {found:?}, not {}", plant.figure);
    let expected = plant.also.iter().copied().chain([name]).map(str::to_owned).collect();
    assert_eq!(unwell_names(client), expected, "{name}");
    let what_to_do = found.what_to_do.as_deref().expect("what to do");
    assert_can_be_done(client, what_to_do);
    match plant.mend {
        AsTold => assert!(!found.statements().is_empty(), "{name}: {what_to_do}"),
        Cause { told, by } => {
            assert!(what_to_do.contains(told), "{name}: {what_to_do}");
            by.iter().for_each(|statement| run_sql(client, statement));
        }
    }
    found.statements().iter().for_each(|statement| run_sql(client, statement));
    wait_until(name, || check(client, name).is("ok"));
    assert_eq!(check(client, name).what_to_do, None, "{name}");
    assert_eq!(unwell(client), [""; 0], "after {name} was mended");
}

#[test]
fn each_check_turns_critical_and_is_well_again_after_what_it_says() {
    let server = Server::start("critical", &[("autovacuum", "off")]);
    let (_db, mut client) = well_on(&server);
    run_sql(
        &mut client,
        "CREATE TABLE public.llm (who text, cost bigint, at timestamptz);
         SELECT exa_billing.attach_spend_source('llm', 'public.llm', 'variable', 'ai_gateway',
             '{\"user_id\": \"who\", \"organization_id\": {\"value\": null}, \"amount\": \"cost\", \"created_at\": \"at\"}')",
    );
    assert_eq!(unwell(&mut client), [""; 0]);
    for plant in PLANTS {
        play(&mut client, plant);
    }
    assert_no_violations(&mut client);
}

/// Whoever adds a check plants its fault above.
#[test]
fn there_is_a_fault_for_each_check_of_the_view() {
    let (_db, mut client) = well();
    let shown: BTreeSet<String> =
        texts(&mut client, "SELECT name FROM exa_billing.health").into_iter().collect();
    let planted: BTreeSet<String> = PLANTS.iter().map(|plant| plant.check.to_owned()).collect();
    assert_eq!(planted, shown);
    assert_eq!(shown.len(), 18 + EACH_JOB.len());
    let text = include_str!("../docs/HEALTH.md");
    for name in shown.iter().filter(|name| !EACH_JOB.contains(&name.as_str())) {
        assert!(text.contains(&format!("\n| `{name}` |")), "{name} is not in docs/HEALTH.md");
    }
}
