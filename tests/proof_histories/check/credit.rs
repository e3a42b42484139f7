//! Balances, blocks of credit, statements, and what a recompute would find.

use super::{Look, View, look, shown};
use crate::model::At;
use crate::model::calendar::{DAY, literal, on};
use crate::step::{line, micros, recompute_told, whose};

pub const NAMES: [&str; 8] = [
    "balance",
    "balance forecast",
    "blocks",
    "statement",
    "statement of a while",
    "baselines",
    "dry run",
    "dry run of the balance",
];

pub fn look_at(view: &View, name: &'static str) -> Look {
    let far = on(2095, 1, 1, 0);
    match name {
        "balance" => balance(view, name, view.as_of),
        "balance forecast" => balance(view, name, far),
        "blocks" => blocks(view, name),
        "statement" => statement(view, name, on(2000, 1, 1, 0), far),
        "statement of a while" => statement(view, name, view.as_of - 3 * DAY, view.as_of),
        "baselines" => baselines(view, name),
        "dry run" => recompute(view, name, "true"),
        _ => recompute(view, name, "true, false"),
    }
}

fn balance(view: &View, name: &'static str, as_of: At) -> Look {
    let told = line(&[
        "total_microdollars_acquired",
        "microdollars_used",
        "balance_microdollars",
        &micros("next_credit_expiration_at"),
        "next_expiration_microdollars",
    ]);
    let (who, at) = (whose(view.owner), literal(as_of));
    let sql = format!("select {told} from exa_billing.account_balance({who}, {at})");
    look(name, sql, vec![view.model.balance_told(view.owner, as_of)])
}

fn blocks(view: &View, name: &'static str) -> Look {
    let told = line(&[
        "amount_microdollars",
        "claimed_microdollars",
        "remaining_microdollars",
        &micros("expiry_date"),
        "is_free",
        &micros("created_at"),
    ]);
    let (who, at) = (whose(view.owner), literal(view.as_of));
    let sql = format!("select {told} from exa_billing.credit_blocks({who}, {at})");
    look(name, sql, view.model.blocks(view.owner, view.as_of))
}

fn recompute(view: &View, name: &'static str, how: &str) -> Look {
    let sql = recompute_told(view.owner, how).replacen("null, null, ", "", 1);
    look(name, sql, vec![view.model.recompute_told(view.owner)])
}

/// The lines, and that each balance is the one before it and the line's amount.
fn statement(view: &View, name: &'static str, from: At, to: At) -> Look {
    let told = line(&[&micros("line_time"), "kind", "amount_microdollars", "description"]);
    let sql = format!(
        "select case when kind = 'balance_brought_forward'
                then 'before ' || balance_microdollars || ' ' || is_right
                else {told} || case when is_right then '' else ' with a wrong balance' end end
         from (select *, balance_microdollars = sum(case when kind = 'balance_brought_forward'
                   then balance_microdollars else amount_microdollars end) over (order by place)
                   and line_time >= coalesce(lag(line_time) over (order by place), '-infinity') as is_right
               from exa_billing.account_statement({}, {}, {}) with ordinality as s(
                   line_time, kind, description, amount_microdollars, balance_microdollars, place)) as s",
        whose(view.owner),
        literal(from),
        literal(to)
    );
    let (before, mut lines) = view.model.statement(view.owner, from, to);
    lines.push(format!("before {before} true"));
    look(name, sql, lines)
}

fn baselines(view: &View, name: &'static str) -> Look {
    let told = line(&[
        &micros("created_at"),
        "amount_microdollars",
        &micros("expiry_date"),
        "stored_original_baseline_microdollars_used",
        "new_original_baseline_microdollars_used",
        "stored_expiration_baseline_microdollars_used",
        "new_expiration_baseline_microdollars_used",
    ]);
    let sql = format!("select {told} from exa_billing.recompute_baselines({})", whose(view.owner));
    let new = view.model.recomputed(view.owner);
    let lines = view.model.entries_of(view.owner).zip(&new).map(|(stored, new)| {
        format!(
            "{} {} {} {} {} {} {}",
            stored.at,
            stored.amount,
            shown(stored.expiry),
            stored.original,
            new.original,
            shown(stored.claims_from),
            shown(new.claims_from)
        )
    });
    look(name, sql, lines.collect())
}
