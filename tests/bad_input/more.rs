//! The table of bad input goes on: tables of the application, and the functions of maintenance.

use crate::table::{Function, OWNER_KIND, PAST};
use crate::values::Bad::{NoId, NoLabel, NoWordOf, Null, Values};

/// A table to attach, and one to detach where there are books.
pub const LEDGERS: &str = "
    CREATE TABLE public.free_ledger (who text, cost bigint, at timestamptz);
    CREATE INDEX ON public.free_ledger (who, at);
    CREATE TABLE public.taken_ledger (LIKE public.free_ledger INCLUDING ALL)";
pub const LEDGER_MAP: &str = r#"'{"user_id": "who", "organization_id": {"value": null}, "amount": "cost", "created_at": "at"}'"#;

/// A delivery that was claimed.
pub const DELIVERY: &str = "
    INSERT INTO exa_billing.notification_deliveries
        (delivery_id, event_id, owner_kind, owner_id, recipient_user_id, event_type, payload, status,
         attempt_count, next_attempt_at, claim_token, leased_until, occurred_at, created_at)
    SELECT '00000000-0000-0000-0000-00000000000d', gen_random_uuid(), 'user', 'u', 'u', 'low_balance',
           '{}', 'sending', 1, at, '00000000-0000-0000-0000-00000000000c', at, at, at
    FROM (SELECT now() + interval '1 hour' AS at) AS later";
const DELIVERY_ID: &str = "'00000000-0000-0000-0000-00000000000d'";
const CLAIM_TOKEN: &str = "'00000000-0000-0000-0000-00000000000c'";

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "claim_notifications",
        arguments: &[
            ("max_rows", "10", &[Null, Values(&["0", "-1", "1001", "2147483647", "-2147483648"])]),
            (
                "lease",
                "'1 day'",
                &[
                    Null,
                    Values(&[
                        "'0'",
                        "'-1 second'",
                        "'1 day 0.000001 seconds'",
                        "'1 month'",
                        "'1 month -30 days'",
                        "'100000000 years'",
                        "make_interval(days => -2147483648)",
                    ]),
                ],
            ),
        ],
    },
    Function {
        name: "complete_notification",
        arguments: &[("delivery_id", DELIVERY_ID, &[Null]), ("claim_token", CLAIM_TOKEN, &[Null])],
    },
    Function {
        name: "fail_notification",
        arguments: &[
            ("delivery_id", DELIVERY_ID, &[Null]),
            ("claim_token", CLAIM_TOKEN, &[Null]),
            ("error", "null", &[]),
        ],
    },
    Function {
        name: "delete_old_events",
        arguments: &[
            ("as_of", "now()", PAST),
            (
                "max_rows",
                "1000",
                &[Null, Values(&["0", "-1", "100001", "2147483647", "-2147483648"])],
            ),
        ],
    },
    Function {
        name: "attach_spend_source",
        arguments: &[
            ("source_name", "'free'", &[Null, NoLabel, Values(&["'exa'", "'spend'"])]),
            (
                "relation",
                "'public.free_ledger'",
                &[Null, Values(&["0", "'pg_class'", "'information_schema.tables'"])],
            ),
            ("spend_category", "'variable'", &[Null, NoWordOf("variable"), NoWordOf("scheduled")]),
            ("source", "'shop'", &[Null, NoLabel]),
            (
                "column_map",
                LEDGER_MAP,
                &[
                    Null,
                    Values(&["'{}'", "'[]'", "'null'", "'5'", r#"'{"user_id": "who"}'"#]),
                    // Deep, long, and out of range.
                    Values(&[
                        "(repeat('[', 3000) || repeat(']', 3000))::jsonb",
                        "jsonb_build_object(repeat('x', 1000000), 1)",
                        "jsonb_build_object('user_id', repeat('x', 1000000))",
                        "jsonb_build_object('negate', 1e999::numeric)",
                    ]),
                ],
            ),
            ("backfill", "true", &[Null]),
            ("on_delete", "'keep'", &[Null, NoWordOf("keep"), NoWordOf("reverse")]),
        ],
    },
    Function {
        name: "detach_spend_source",
        arguments: &[("source_name", "'taken'", &[Null, NoLabel, Values(&["'exa'", "'spend'"])])],
    },
    Function { name: "run_maintenance_step", arguments: &[("job_number", "1", &[Null])] },
    Function { name: "erase_user", arguments: &[("user_id", "'u'", &[Null, NoId])] },
    Function {
        name: "maintain_partitions",
        arguments: &[(
            "months_ahead",
            "12",
            &[Null, Values(&["-1", "121", "2147483647", "-2147483648"])],
        )],
    },
    Function {
        name: "post_spend",
        arguments: &[(
            "max_rows",
            "10000",
            &[Null, Values(&["0", "-1", "1000001", "2147483647", "-2147483648"])],
        )],
    },
    Function {
        name: "verify_books",
        arguments: &[("owner_kind", "'user'", OWNER_KIND), ("owner_id", "'u'", &[Null, NoId])],
    },
];
