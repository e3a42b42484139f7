//! The table of bad input goes on: tables of the application, and the functions of maintenance.

use crate::table::{Function, OWNER_KIND};
use crate::values::Bad::{NoId, NoLabel, NoWordOf, Null, Values};

/// A table to attach, and one to detach where there are books.
pub const LEDGERS: &str = "
    CREATE TABLE public.free_ledger (who text, cost bigint, at timestamptz);
    CREATE INDEX ON public.free_ledger (who, at);
    CREATE TABLE public.taken_ledger (LIKE public.free_ledger INCLUDING ALL)";
pub const LEDGER_MAP: &str = r#"'{"user_id": "who", "organization_id": {"value": null}, "amount": "cost", "created_at": "at"}'"#;

pub const FUNCTIONS: &[Function] = &[
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
