//! The table of bad input: every parameter of every function, and what it must
//! refuse.

use std::collections::BTreeSet;

use crate::values::Bad;
use Bad::{
    Endless, Future, LongAgo, LongerThan, Negative, NoId, NoLabel, NoWordOf, NotPositive, Null,
    TooLarge, Values,
};

/// A call that is accepted, argument by argument, each with what it refuses.
pub struct Function {
    pub name: &'static str,
    pub arguments: &'static [(&'static str, &'static str, &'static [Bad])],
}

const PATH: &[Bad] = &[Null, Values(&["''", "'search'", "' /search'", "repeat('p', 1025)"])];
const LONG_PATH: Bad = Values(&["'/' || repeat('p', 1024)", "'/' || repeat('𝄞', 1024)"]);
pub const OWNER_KIND: &[Bad] = &[Null, NoWordOf("user")];
const EXA_TIME: &[Bad] = &[Endless, Future, LongAgo];
pub const PAST: &[Bad] = &[Null, Endless, Values(&["clock_timestamp() + interval '1 minute'"])];
/// An instant that has 90 days before it.
pub const READ_TIME: &[Bad] =
    &[Null, Endless, Values(&["'4713-11-24 00:00+00 BC'::timestamptz - interval '1 year'"])];
const RANGE: &[Bad] = &[Null, NoWordOf("7d"), Values(&["'60d'", "'7 days'", "'1H'"])];
const NO_HOUR: Bad = Values(&["'2026-11-01 00:00:00.000001Z'", "'2026-11-01 12:30Z'"]);
const HOUR: &[Bad] =
    &[Null, NO_DATE, Values(&["'2026-11-22 10:30Z'", "'2026-11-22 10:00:00.000001Z'"])];
const NO_LATER_HOUR: Bad = Values(&["'2026-11-20 10:00Z'", "'2026-11-19 10:00Z'"]);
const NO_DATE: Bad = Values(&["'infinity'", "'-infinity'"]);

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "grant_application",
        arguments: &[("role", "'postgres'", &[Null, Values(&["'-'"])])],
    },
    Function {
        name: "grant_operator",
        arguments: &[("role", "'postgres'", &[Null, Values(&["'-'"])])],
    },
    Function {
        name: "grant_auditor",
        arguments: &[("role", "'postgres'", &[Null, Values(&["'-'"])])],
    },
    Function {
        name: "grant_end_user",
        arguments: &[("role", "'postgres'", &[Null, Values(&["'-'"])])],
    },
    Function {
        name: "check_exa_usage",
        arguments: &[
            ("user_id", "'u'", &[Null, NoId]),
            ("organization_id", "'org'", &[NoId]),
            ("as_of", "now()", &[Null, Endless]),
        ],
    },
    Function {
        name: "record_exa_usage",
        arguments: &[
            ("user_id", "'u'", &[Null, NoId]),
            ("path", "'/search'", PATH),
            ("path", "'/search'", &[LONG_PATH]),
            ("cost_microdollars", "5000", &[Null, Negative, TooLarge]),
            ("organization_id", "'org'", &[NoId]),
            ("idempotency_key", "'key'", &[NoId]),
            ("created_at", "now()", EXA_TIME),
            ("feature_id", "'f'", &[LongerThan(128)]),
            ("request_type", "'t'", &[LongerThan(128)]),
        ],
    },
    Function {
        name: "record_exa_response",
        arguments: &[
            ("user_id", "'u'", &[Null, NoId]),
            ("path", "'/search'", PATH),
            ("path", "'/search'", &[LONG_PATH]),
            (
                "response",
                "'{\"costDollars\": {\"total\": 0.005}}'",
                &[Null, Values(&["'[]'", "'null'", "'\"free\"'", "'0.005'"])],
            ),
            ("organization_id", "'org'", &[NoId]),
            ("idempotency_key", "'key'", &[NoId]),
            ("created_at", "now()", EXA_TIME),
            ("feature_id", "'f'", &[LongerThan(128)]),
            ("request_type", "'t'", &[LongerThan(128)]),
        ],
    },
    Function {
        name: "record_exa_usage_batch",
        arguments: &[(
            "usage",
            "'[{\"user_id\": \"u\", \"path\": \"/search\", \"cost_microdollars\": 5}]'",
            &[
                Null,
                Values(&["'{}'", "'null'", "'5'", "'[5]'", "'[{}]'", "'[{\"user_id\": \"u\"}]'"]),
                // Deep, and many.
                Values(&[
                    "(repeat('[', 3000) || repeat(']', 3000))::jsonb",
                    "(select jsonb_agg(n) from generate_series(1, 10001) as n)",
                ]),
            ],
        )],
    },
    Function {
        name: "record_spend",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            ("amount_microdollars", "5000", &[Null, NotPositive, TooLarge]),
            ("spend_category", "'variable'", &[Null, NoWordOf("variable"), NoWordOf("scheduled")]),
            ("source", "'shop'", &[Null, NoLabel]),
            ("product_key", "'p'", &[Null]),
            // What is no plain key is counted as `other`.
            ("feature_key", "'f'", &[]),
            ("model_or_plan_key", "'m'", &[]),
            ("provider_key", "'p'", &[]),
            ("actor_user_id", "'u'", &[NoId]),
            ("idempotency_key", "'key'", &[NoId]),
            ("created_at", "now()", EXA_TIME),
            ("require_balance", "false", &[Null]),
        ],
    },
    Function {
        name: "grant_credit",
        arguments: &[
            ("owner_kind", "'organization'", OWNER_KIND),
            ("owner_id", "'org'", &[Null, NoId]),
            ("amount_microdollars", "5000", &[Null, NotPositive, TooLarge]),
            ("expires_at", "null", &[NO_DATE, Values(&["now()", "now() - interval '1 day'"])]),
            ("credit_category", "'promo'", &[LongerThan(255)]),
            ("description", "'for you'", &[LongerThan(2_000)]),
            ("is_free", "false", &[Null]),
            ("idempotency_key", "'key'", &[NoId]),
            ("created_at", "now()", &[Endless, Future]),
        ],
    },
    Function {
        name: "adjust_credit",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            (
                "amount_microdollars",
                "-5000",
                &[Null, TooLarge, Values(&["0", "-9007199254740992", "-9223372036854775808"])],
            ),
            ("reason", "'refund'", &[Null, LongerThan(2_000), Values(&["''", "' '"])]),
            ("idempotency_key", "'key'", &[NoId]),
        ],
    },
    Function {
        name: "credit_blocks",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            ("as_of", "now()", &[Null, NO_DATE]),
        ],
    },
    Function {
        name: "expire_credits",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            ("as_of", "now()", PAST),
        ],
    },
    Function {
        name: "expire_due_credits",
        arguments: &[
            ("as_of", "now()", PAST),
            ("max_owners", "1000", &[Null, Values(&["0", "-1", "100001", "2147483647"])]),
        ],
    },
    Function {
        name: "close_out_credits",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            ("as_of", "now()", PAST),
        ],
    },
    Function {
        name: "recompute_user_balances",
        arguments: &[
            ("user_id", "'u'", &[Null, NoId]),
            ("dry_run", "false", &[Null]),
            ("keep_balance", "true", &[Null]),
        ],
    },
    Function {
        name: "recompute_organization_balances",
        arguments: &[
            ("organization_id", "'org'", &[Null, NoId]),
            ("dry_run", "true", &[Null]),
            ("keep_balance", "false", &[Null]),
        ],
    },
    Function {
        name: "recompute_baselines",
        arguments: &[("owner_kind", "'user'", OWNER_KIND), ("owner_id", "'u'", &[Null, NoId])],
    },
    Function {
        name: "recompute_next_owner",
        arguments: &[
            ("is_first", "true", &[Null]),
            ("dry_run", "true", &[Null]),
            ("keep_balance", "true", &[Null]),
        ],
    },
    Function {
        name: "account_statement",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            ("from_time", "now() - interval '1 day'", &[Null, NO_DATE]),
            ("to_time", "now()", &[Null, NO_DATE, Values(&["now() - interval '2 days'"])]),
        ],
    },
    Function {
        name: "import_opening_balance",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'new'", &[Null, NoId]),
            ("total_microdollars_acquired", "5000", &[Null, Negative, TooLarge]),
            ("microdollars_used", "3000", &[Null, Negative, TooLarge]),
            ("as_of", "now()", PAST),
            ("idempotency_key", "'key'", &[Null, NoId]),
        ],
    },
    Function {
        name: "account_balance",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            ("as_of", "now()", &[Null, NO_DATE]),
        ],
    },
    Function {
        name: "spend_by_hour",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            ("from_hour", "'2026-11-01 00:00Z'", &[Null, Endless, NO_HOUR]),
            ("from_hour", "'2026-11-01 00:00Z'", &[Values(&["'2026-08-03 23:00Z'"])]),
            ("to_hour", "'2026-11-02 00:00Z'", &[Null, Endless, NO_HOUR]),
            (
                "to_hour",
                "'2026-11-02 00:00Z'",
                &[Values(&["'2026-11-01 00:00Z'", "'2026-10-31 00:00Z'", "'2027-01-30 01:00Z'"])],
            ),
        ],
    },
    Function {
        name: "spend_series",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            ("range", "'90d'", RANGE),
            (
                "as_of",
                "now()",
                &[
                    Null,
                    Endless,
                    Values(&["'4713-11-24 00:00+00 BC'::timestamptz - interval '1 year'"]),
                ],
            ),
        ],
    },
    Function {
        name: "rolling_spend",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            (
                "span",
                "'30 days'",
                &[
                    Null,
                    Values(&[
                        "'0'",
                        "'-1 second'",
                        "'-1 month'",
                        "'1 day -24 hours'",
                        "'9000 years'",
                    ]),
                ],
            ),
            ("as_of", "now()", &[Null, Endless]),
        ],
    },
    Function {
        name: "top_spend_drivers",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            ("from_time", "'2026-11-01 00:00Z'", &[Null, Endless]),
            ("to_time", "'2026-11-02 00:00Z'", &[Null, Endless]),
            (
                "to_time",
                "'2026-11-02 00:00Z'",
                &[Values(&["'2026-11-01 00:00Z'", "'2026-10-01 00:00Z'"])],
            ),
            ("spend_category", "'variable'", &[NoWordOf("variable"), NoWordOf("scheduled")]),
            (
                "max_drivers",
                "5",
                &[Null, Values(&["0", "-1", "1001", "2147483647", "-2147483648"])],
            ),
        ],
    },
    Function {
        name: "spend_evidence",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            ("range", "'7d'", RANGE),
            ("as_of", "now()", &[Null, Endless]),
        ],
    },
    Function {
        name: "set_free_allowance",
        arguments: &[
            ("free_allowance_microdollars", "5000", &[Negative, TooLarge]),
            (
                "effective_month",
                "'2030-01-01'",
                &[Null, NO_DATE, Values(&["'2030-01-02'", "'2030-01-31'", "'5874897-12-01'"])],
            ),
            ("user_id", "'u'", &[NoId]),
            ("overage_rule", "'split'", &[NoWordOf("split"), NoWordOf("whole")]),
        ],
    },
    Function {
        name: "exa_monthly_usage",
        arguments: &[
            ("user_id", "'u'", &[Null, NoId]),
            ("month", "'2030-01-17'", &[NO_DATE, Values(&["'5874897-12-31'"])]),
        ],
    },
    Function {
        name: "set_organization_member",
        arguments: &[
            ("organization_id", "'org'", &[Null, NoId]),
            ("user_id", "'u'", &[Null, NoId]),
            ("role", "'member'", &[Null, NoWordOf("member"), NoWordOf("billing_manager")]),
            ("daily_limit_microdollars", "5000", &[Negative, TooLarge]),
        ],
    },
    Function {
        name: "remove_organization_member",
        arguments: &[
            ("organization_id", "'org'", &[Null, NoId]),
            ("user_id", "'u'", &[Null, NoId]),
        ],
    },
    Function {
        name: "record_degraded_interval",
        arguments: &[
            ("from_hour", "'2026-11-20 10:00Z'", HOUR),
            ("to_hour", "'2026-11-22 10:00Z'", HOUR),
            ("to_hour", "'2026-11-22 10:00Z'", &[NO_LATER_HOUR]),
            ("reason", "'restored'", &[Null, LongerThan(2_000), Values(&["''", "' '"])]),
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
        ],
    },
    Function {
        name: "resolve_degraded_interval",
        arguments: &[(
            "interval_id",
            "exa_billing.record_degraded_interval('2026-11-20 10:00Z', '2026-11-22 10:00Z', 'r')",
            &[Null],
        )],
    },
    Function {
        name: "rebuild_rollups",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            ("from_hour", "'2026-11-20 10:00Z'", HOUR),
            ("to_hour", "'2026-11-22 10:00Z'", HOUR),
            ("to_hour", "'2026-11-22 10:00Z'", &[NO_LATER_HOUR]),
        ],
    },
    Function {
        name: "reconcile_rollups",
        arguments: &[
            ("from_hour", "'2026-11-20 10:00Z'", HOUR),
            ("to_hour", "'2026-11-22 10:00Z'", HOUR),
            ("to_hour", "'2026-11-22 10:00Z'", &[NO_LATER_HOUR]),
            ("max_details", "1000", &[Null, Values(&["-1", "-2147483648"])]),
        ],
    },
    Function {
        name: "backfill_next_hours",
        arguments: &[
            ("is_first", "true", &[Null]),
            ("from_hour", "'2026-11-20 10:00Z'", HOUR),
            ("to_hour", "'2026-11-22 10:00Z'", HOUR),
            ("to_hour", "'2026-11-22 10:00Z'", &[NO_LATER_HOUR]),
            ("dry_run", "false", &[Null]),
        ],
    },
];

impl Function {
    /// The call with one argument replaced.
    pub fn call(&self, replaced: &str, value: &str) -> String {
        let mut names = BTreeSet::new();
        let arguments: Vec<String> = self
            .arguments
            .iter()
            .filter(|(name, ..)| names.insert(*name))
            .map(|(name, good, _)| {
                format!("{name} => {}", if *name == replaced { value } else { good })
            })
            .collect();
        format!("select * from exa_billing.{}({})", self.name, arguments.join(", "))
    }
}
