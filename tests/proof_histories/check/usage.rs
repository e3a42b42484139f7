//! Months of usage, and whether a request may be made.

use super::{Look, View, look};
use crate::model::At;
use crate::model::calendar::{day_text, literal, month_of};
use crate::step::{line, maybe, text};

pub const NAMES: [&str; 3] = ["decision", "month", "month before"];

pub fn look_at(view: &View, name: &'static str) -> Look {
    let this = month_of(view.as_of);
    match name {
        "decision" => decision(view, name),
        "month" => month(view, name, this),
        _ => month(view, name, month_of(this - 1)),
    }
}

/// For oneself, or for the organization that is looked at.
fn decision(view: &View, name: &'static str) -> Look {
    let told = line(&[
        "allowed",
        "reason",
        "is_paid",
        "month_used_microdollars",
        "free_allowance_microdollars",
        "balance_microdollars",
        "member_limit_remaining_microdollars",
    ]);
    let organization = view.owner.is_organization.then_some(view.owner.id.as_str());
    let user = user(view);
    let sql = format!(
        "select {told} from exa_billing.check_exa_usage({}, {}, {})",
        text(user),
        maybe(organization),
        literal(view.as_of)
    );
    look(name, sql, vec![view.model.decision(user, organization, view.as_of)])
}

fn user<'a>(view: &'a View) -> &'a str {
    let own = || view.owner.id.as_str();
    if view.owner.is_organization {
        view.users.last().map_or_else(own, String::as_str)
    } else {
        own()
    }
}

fn month(view: &View, name: &'static str, month: At) -> Look {
    let told = line(&[
        "total_cost_microdollars",
        "total_charged_microdollars",
        "request_count",
        "free_allowance_microdollars",
    ]);
    let (user, day) = (user(view), day_text(month));
    let sql = format!("select {told} from exa_billing.exa_monthly_usage({}, '{day}')", text(user));
    look(name, sql, vec![view.model.month(user, month)])
}
