//! What a history consists of, and each step as the SQL that takes it.

mod sql;

use crate::model::alerts::SettingsChange;
use crate::model::calendar::literal;
use crate::model::credit::{Give, Opening};
use crate::model::tables::{Attached, Change};
use crate::model::usage::{Ask, Member, Pay, Policy};
use crate::model::{At, Owner};
use sql::*;

pub use sql::{
    SETTINGS, create_table, line, maybe, micros, of_owner, recompute_told, settings_told, text,
    whose,
};

#[derive(Debug, Clone)]
pub enum Step {
    Record(Ask),
    /// A request that Exa has answered: with these words for its cost, and an id.
    Respond {
        ask: Ask,
        total: Total,
        request_id: Option<String>,
    },
    Batch(Vec<Ask>),
    Pay(Pay),
    Give(Give),
    Adjust(Give),
    Open(Opening),
    Expire {
        owner: Owner,
        as_of: Option<At>,
    },
    ExpireDue {
        as_of: At,
    },
    CloseOut {
        owner: Owner,
        as_of: Option<At>,
    },
    Recompute {
        owner: Owner,
        keep_balance: bool,
    },
    Policy(Policy),
    Member(Member),
    Leave {
        organization: String,
        user: String,
    },
    Post {
        max_rows: i64,
    },
    Retry,
    Rebuild {
        owner: Owner,
        from: At,
        to: At,
    },
    Degrade {
        owner: Owner,
        from: At,
        to: At,
        reason: String,
    },
    Resolve {
        id: Option<String>,
    },
    Attach {
        table: String,
        attached: Attached,
        backfill: bool,
    },
    Detach {
        table: String,
    },
    Change {
        table: String,
        change: Change,
    },
    Settings {
        owner: Owner,
        change: SettingsChange,
        actor: String,
        as_of: At,
    },
    Evaluate {
        owner: Owner,
        as_of: At,
    },
    Sweep {
        as_of: At,
    },
    EvaluateDue {
        as_of: At,
    },
    Review {
        owner: Owner,
        alert: Which,
        actor: String,
    },
    Dismiss {
        owner: Owner,
        place: usize,
        target: String,
        is_open: bool,
        actor: String,
    },
    Claim {
        is_short: bool,
    },
    Finish {
        owner: Owner,
        place: usize,
        id: String,
        token: String,
        is_sent: bool,
    },
    ForgetEvents,
    Erase {
        user: String,
    },
}

/// Which alert is reviewed.
#[derive(Debug, Clone)]
pub enum Which {
    /// The one that lasts, of this kind.
    Lasting(&'static str, usize),
    /// One that is over, or something that is no alert.
    Stale(usize),
    Unknown,
}

/// What an answer says of its cost.
#[derive(Debug, Clone)]
pub enum Total {
    /// Its text, and the microdollars it means; none for what is no cost.
    Number(String, Option<i64>),
    /// What cannot be a cost.
    Bad(&'static str),
}

impl Step {
    pub fn sql(&self) -> String {
        match self {
            Step::Record(ask) => {
                let (path, cost) = (text(&ask.path), ask.cost.to_string());
                let arguments = arguments(ask, &path, &cost, ask.key.as_deref());
                recorded(&format!("record_exa_usage({arguments})"))
            }
            Step::Respond { ask, total, request_id } => {
                response(ask, total, request_id.as_deref())
            }
            Step::Batch(asks) => batch(asks),
            Step::Pay(one) => pay(one),
            Step::Give(one) => give(one),
            Step::Adjust(one) => adjust(one),
            Step::Open(Opening { owner, acquired, used, at, key }) => id(&format!(
                "import_opening_balance({}, {acquired}, {used}, {}, {})",
                whose(owner),
                literal(*at),
                text(key)
            )),
            Step::Expire { owner, as_of: at } => {
                value(&format!("expire_credits({})", as_of(owner, *at)))
            }
            // How many owners that are is everybody's business.
            Step::ExpireDue { as_of } => format!(
                "select null, null, (exa_billing.expire_due_credits({}) >= 0)::text",
                literal(*as_of)
            ),
            Step::CloseOut { owner, as_of: at } => {
                value(&format!("close_out_credits({})", as_of(owner, *at)))
            }
            Step::Recompute { owner, keep_balance } => recompute(owner, *keep_balance),
            Step::Policy(one) => policy(one),
            Step::Member(Member { organization, user, role, limit }) => value(&format!(
                "set_organization_member({}, {}, '{role}', {})",
                text(organization),
                text(user),
                number(*limit)
            )),
            Step::Leave { organization, user } => value(&format!(
                "remove_organization_member({}, {})",
                text(organization),
                text(user)
            )),
            Step::Post { max_rows } => {
                format!("select null, null, (exa_billing.post_spend({max_rows}) >= 0)::text")
            }
            Step::Retry => value("retry_blocked_spend()"),
            Step::Rebuild { owner, from, to } => {
                let (from, to) = (literal(*from), literal(*to));
                value(&format!("rebuild_rollups({}, {from}, {to})", whose(owner)))
            }
            Step::Degrade { owner, from, to, reason } => id(&format!(
                "record_degraded_interval({}, {}, {}, {})",
                literal(*from),
                literal(*to),
                text(reason),
                whose(owner)
            )),
            Step::Resolve { id } => {
                let id = id.as_deref().unwrap_or("00000000-0000-4000-8000-000000000000");
                value(&format!("resolve_degraded_interval('{id}')"))
            }
            Step::Attach { table, attached, backfill } => attach(table, attached, *backfill),
            Step::Detach { table } => value(&format!("detach_spend_source('{table}')")),
            Step::Change { table, change: one } => change(table, one),
            Step::Settings { owner, change, actor, as_of } => {
                settings(owner, change, actor, *as_of)
            }
            Step::Evaluate { owner, as_of } => summary(&format!(
                "evaluate_spend_alerts({}, {})",
                whose(owner),
                literal(*as_of)
            )),
            Step::Sweep { as_of } => format!(
                "select null, null, complete::text from exa_billing.run_spend_alert_sweep({}, 100000)",
                literal(*as_of)
            ),
            Step::EvaluateDue { as_of } => format!(
                "select null, null, failed::text from exa_billing.evaluate_due_owners({}, 100000)",
                literal(*as_of)
            ),
            Step::Review { owner, alert, actor } => review(owner, alert, actor),
            Step::Dismiss { owner, target, is_open, actor, .. } => value(&format!(
                "dismiss_cost_suggestion((select suggestion_id from exa_billing.cost_suggestions
                     where {} and target = '{target}' and (status = 'open') = {is_open} limit 1), {})",
                of_owner(owner),
                text(actor)
            )),
            Step::Claim { is_short } => claim(*is_short),
            Step::Finish { id, token, is_sent, .. } => finish(id, token, *is_sent),
            Step::ForgetEvents => {
                "select null, null, (exa_billing.delete_old_events(max_rows => 100000) >= 0)::text".to_owned()
            }
            Step::Erase { user } => value(&format!("erase_user({})", text(user))),
        }
    }

    /// What takes everybody's turn leaves nothing to the next call.
    pub fn left(&self) -> Option<String> {
        let (value, call) = match self {
            Step::Post { max_rows: 1_000.. } => ("post_spend", "post_spend(1000000)".to_owned()),
            Step::ExpireDue { as_of } => {
                ("expire_due_credits", format!("expire_due_credits({})", literal(*as_of)))
            }
            Step::ForgetEvents => {
                ("delete_old_events", "delete_old_events(max_rows => 100000)".to_owned())
            }
            Step::EvaluateDue { as_of } => {
                ("evaluated", format!("evaluate_due_owners({}, 100000)", literal(*as_of)))
            }
            _ => return None,
        };
        Some(format!("select null, null, {value} from exa_billing.{call}"))
    }
}
