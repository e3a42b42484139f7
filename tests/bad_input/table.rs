//! The table of bad input: every parameter of every function, and what it must
//! refuse.

use std::collections::BTreeSet;

/// A call that is accepted, argument by argument, each with what it refuses.
pub struct Function {
    pub name: &'static str,
    pub arguments: &'static [(&'static str, &'static str, &'static [Bad])],
}

/// A class of values that an argument refuses.
#[derive(Clone, Copy)]
pub enum Bad {
    Null,
    /// Empty, padded, with control characters.
    NoWords,
    /// The same, and more than 255 characters.
    NoId,
    /// The same, and more than 128 characters.
    NoLabel,
    LongerThan(usize),
    Negative,
    NotPositive,
    /// 2^53 and more.
    TooLarge,
    /// `infinity` and `-infinity`, and what no calendar has.
    Endless,
    Future,
    LongAgo,
    NoWordOf(&'static str),
    Values(&'static [&'static str]),
}

use Bad::{
    Endless, Future, LongAgo, LongerThan, Negative, NoId, NoLabel, NoWordOf, NoWords, NotPositive,
    Null, TooLarge, Values,
};

const PATH: &[Bad] = &[Null, Values(&["''", "'search'", "' /search'", "repeat('p', 1025)"])];
const LONG_PATH: Bad = Values(&["'/' || repeat('p', 1024)", "'/' || repeat('𝄞', 1024)"]);
const OWNER_KIND: &[Bad] = &[Null, NoWordOf("user")];
const EXA_TIME: &[Bad] = &[Endless, Future, LongAgo];
const PAST: &[Bad] = &[Null, Endless, Values(&["clock_timestamp() + interval '1 minute'"])];
const NO_DATE: Bad = Values(&["'infinity'", "'-infinity'"]);

pub const FUNCTIONS: &[Function] = &[
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

impl Bad {
    /// The values, as SQL.
    pub fn values(self) -> Vec<String> {
        let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        match self {
            Null => list(&["null"]),
            NoId => NoWords.values().into_iter().chain(LongerThan(255).values()).collect(),
            NoLabel => NoWords.values().into_iter().chain(LongerThan(128).values()).collect(),
            NoWords => list(&[
                "''",
                "' '",
                "' a'",
                "'a '",
                r"E'\ta'",
                r"E'a\n'",
                r"E'a\nb'",
                r"E'a\x01b'",
                r"E'a\x7f'",
                r"E'\u00a0a'",
                r"E'a\u3000'",
                r"E'a\u0085b'",
            ]),
            LongerThan(limit) => ["x", "𝄞"]
                .iter()
                .map(|character| format!("repeat('{character}', {})", limit + 1))
                .collect(),
            Negative => list(&["-1", "-9223372036854775808"]),
            NotPositive => list(&["0", "-1", "-9223372036854775808"]),
            TooLarge => list(&["9007199254740992", "9223372036854775807"]),
            Endless => list(&["'infinity'", "'-infinity'", "'294276-12-31 23:59:59.999999+00'"]),
            Future => list(&["clock_timestamp() + interval '6 minutes'", "'9999-12-31 00:00+00'"]),
            LongAgo => {
                list(&["clock_timestamp() - interval '36 days'", "'4714-11-24 00:00+00 BC'"])
            }
            NoWordOf(word) => {
                let capital = word.to_uppercase();
                ["", "nonsense", &capital, &format!(" {word}"), &format!("{word}s")]
                    .map(|text| format!("'{text}'"))
                    .to_vec()
            }
            Values(values) => list(values),
        }
    }
}

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
