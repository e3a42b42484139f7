//! The table of bad input goes on: alerts, suggestions, and what happened.

use crate::table::{Function, OWNER_KIND, PAST, READ_TIME};
use crate::values::Bad::{self, NoId, NoWordOf, Null, Values};

/// An event and a suggestion, where there are books.
pub const INSIGHTS: &str = "
    INSERT INTO exa_billing.cost_insight_events
        (event_id, owner_kind, owner_id, event_type, snapshot, occurred_at, recorded_at)
    VALUES ('00000000-0000-0000-0000-00000000000e', 'user', 'u', 'low_balance', '{}', now(), now());
    INSERT INTO exa_billing.cost_suggestions
        (suggestion_id, owner_kind, owner_id, suggestion_kind, target, status, observed_microdollars,
         price_microdollars, window_start, window_end, content, created_at, grounded_at)
    VALUES ('00000000-0000-0000-0000-000000000005', 'user', 'u', 'kilo_pass', 'pass', 'open', 5, 5,
            now() - interval '1 day', now(), '{}', now(), now())";

const MAX_OWNERS: &[Bad] = &[Null, Values(&["0", "-1", "100001", "2147483647", "-2147483648"])];

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "acknowledge_spend_alert",
        arguments: &[
            ("event_id", "'00000000-0000-0000-0000-00000000000e'", &[Null]),
            ("actor_user_id", "'u'", &[Null, NoId]),
        ],
    },
    Function {
        name: "evaluate_due_owners",
        arguments: &[("as_of", "now()", PAST), ("max_owners", "1000", MAX_OWNERS)],
    },
    Function {
        name: "evaluate_spend_alerts",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            ("as_of", "clock_timestamp()", PAST),
        ],
    },
    Function {
        name: "run_spend_alert_sweep",
        arguments: &[("as_of", "now()", PAST), ("max_owners", "10000", MAX_OWNERS)],
    },
    Function {
        name: "spend_alert_settings",
        arguments: &[("owner_kind", "'user'", OWNER_KIND), ("owner_id", "'u'", &[Null, NoId])],
    },
    Function {
        name: "update_spend_alert_settings",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            (
                "changes",
                r#"'{"spend_alerts_enabled": true, "threshold_24h_usd": "25.50"}'"#,
                &[
                    Null,
                    Values(&["'[]'", "'null'", "'5'", "'true'", r#"'"{}"'"#]),
                    Values(&[
                        r#"'{"": 1}'"#,
                        r#"'{"threshold_1h_usd": "5"}'"#,
                        r#"'{"spend_alerts_enabled": 1}'"#,
                        r#"'{"spend_alerts_enabled": null}'"#,
                        r#"'{"threshold_24h_usd": 5}'"#,
                        r#"'{"threshold_24h_usd": "5 "," threshold_7d_usd": "5"}'"#,
                        r#"'{"threshold_24h_microdollars": 5.5}'"#,
                        r#"'{"minimum_balance_microdollars": 9007199254740992}'"#,
                    ]),
                    // Deep, long, and out of range.
                    Values(&[
                        "(repeat('[', 3000) || repeat(']', 3000))::jsonb",
                        "jsonb_build_object(repeat('x', 1000000), 1)",
                        "jsonb_build_object('threshold_7d_usd', repeat('9', 1000000))",
                        "jsonb_build_object('threshold_7d_microdollars', 1e999::numeric)",
                        "jsonb_build_object('threshold_7d_microdollars', repeat('[', 3000)::text)",
                    ]),
                ],
            ),
            ("actor_user_id", "'u'", &[Null, NoId]),
            ("as_of", "clock_timestamp()", PAST),
        ],
    },
    Function {
        name: "dismiss_cost_suggestion",
        arguments: &[
            ("suggestion_id", "'00000000-0000-0000-0000-000000000005'", &[Null]),
            ("actor_user_id", "'u'", &[Null, NoId]),
        ],
    },
    Function {
        name: "cost_insight_activity",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            ("filter", "'alerts'", &[Null, NoWordOf("alerts"), NoWordOf("all")]),
            // What is no event of the owner is unknown, not bad.
            ("before_event", "'00000000-0000-0000-0000-00000000000e'", &[]),
            ("page_size", "20", &[Null, Values(&["0", "-1", "101", "2147483647", "-2147483648"])]),
        ],
    },
    Function {
        name: "cost_insights_attention",
        arguments: &[("owner_kind", "'user'", OWNER_KIND), ("owner_id", "'u'", &[Null, NoId])],
    },
    Function {
        name: "cost_insights_overview",
        arguments: &[
            ("owner_kind", "'user'", OWNER_KIND),
            ("owner_id", "'u'", &[Null, NoId]),
            ("as_of", "now()", READ_TIME),
        ],
    },
];
