//! Credits: balances, expirations at their instants, recomputing, and the statement.

use super::compared;
use super::edges::{At, day_of, later, shown};
use super::history::{DAY, Grant, HOUR, MICROSECOND};
use super::model::{BOTH, Model, Whose};
use super::writing::{row, rows};
use chrono::NaiveDate;
use postgres::Client;
use std::collections::BTreeMap;

/// A grant that is open, and from where on it claims usage.
#[derive(Debug, Clone)]
struct Open {
    name: String,
    amount: i64,
    baseline: i64,
    created: At,
    expiry: At,
}

/// The end of a grant: its name, when, how much expired, and the usage before.
type Closing = (String, At, i64, i64);

fn grants<'a>(model: &'a Model, whose: Whose) -> impl Iterator<Item = &'a Grant> {
    let for_organization = whose == Whose::Organization;
    model.history.grants.iter().filter(move |grant| grant.for_organization == for_organization)
}

fn open(model: &Model, whose: Whose) -> Vec<Open> {
    let expiring = grants(model, whose).filter_map(|grant| Some((grant, grant.expiry?)));
    let mut open: Vec<Open> = expiring
        .map(|(grant, expiry)| Open {
            name: grant.name.clone(),
            amount: grant.amount,
            baseline: model.used_before(whose, grant.created),
            created: grant.created,
            expiry,
        })
        .collect();
    open.sort_by_key(|grant| (grant.expiry, grant.created));
    open
}

/// Ends the first of the open grants at an instant; what it claimed is no more to be claimed.
fn end_first(model: &Model, whose: Whose, open: &mut Vec<Open>, when: At) -> Closing {
    let grant = open.remove(0);
    let used = model.used_before(whose, when);
    let end = used.min(grant.baseline + grant.amount);
    let claimed = (end - grant.baseline).max(0);
    for other in open.iter_mut() {
        other.baseline += claimed.min(end - other.baseline).max(0);
    }
    (grant.name, when, grant.amount - claimed, used)
}

/// Ends what is due.
fn end_due(model: &Model, whose: Whose, open: &mut Vec<Open>, as_of: At) -> Vec<Closing> {
    let mut closings = Vec::new();
    while let Some(first) = open.first().filter(|first| first.expiry <= as_of) {
        let when = first.expiry;
        closings.push(end_first(model, whose, open, when));
    }
    closings
}

/// Acquired, used, balance and the next expiry, expirations due at `as_of` counted in.
pub fn balance(model: &Model, whose: Whose, as_of: At) -> (i64, i64, i64, Option<At>) {
    let mut open = open(model, whose);
    let expired: i64 =
        end_due(model, whose, &mut open, as_of).iter().map(|closing| closing.2).sum();
    let granted: i64 = grants(model, whose).map(|grant| grant.amount).sum();
    let (acquired, used) = (granted - expired, model.used(whose));
    (acquired, used, acquired - used, open.first().map(|grant| grant.expiry))
}

pub fn compare(c: &mut Client, model: &Model, who: &str) {
    for whose in BOTH {
        let mut when = model.history.moments.clone();
        for expiry in grants(model, whose).filter_map(|grant| grant.expiry) {
            when.extend([later(expiry, -MICROSECOND), expiry]);
        }
        for as_of in when {
            let sql = "select total_microdollars_acquired, microdollars_used, balance_microdollars,
                              next_credit_expiration_at from exa_billing.account_balance($1, $2, $3)";
            let told = row(c, sql, &[&Model::kind(whose), &model.id(whose), &as_of]);
            let told = (told.get(0), told.get(1), told.get(2), told.get(3));
            compared(&told, &balance(model, whose, as_of), who, "account_balance");
        }
    }
}

/// Recomputing finds all as it is, and the balance what is left after so much has expired.
fn recompute(c: &mut Client, model: &Model, whose: Whose, expired: i64, who: &str) {
    let sql = format!(
        "select previous_microdollars_used, new_microdollars_used, previous_total_microdollars_acquired,
                new_total_microdollars_acquired, original_baselines_changed, expiration_baselines_changed,
                late_arrivals
         from exa_billing.recompute_{}_balances($1, true)",
        Model::kind(whose)
    );
    let told = row(c, &sql, &[&model.id(whose)]);
    let told: Vec<i64> = (0..7).map(|column| told.get(column)).collect();
    let granted: i64 = grants(model, whose).map(|grant| grant.amount).sum();
    let (used, acquired) = (model.used(whose), granted - expired);
    compared(&told, &vec![used, used, acquired, acquired, 0, 0, 0], who, "recompute_…_balances");
}

/// Expires what is due step by step, closes out the rest, and reads the statement of it.
pub fn expire(c: &mut Client, model: &Model, who: &str) {
    for whose in BOTH {
        let mut left = open(model, whose);
        let mut steps: Vec<At> = left
            .iter()
            .flat_map(|grant| [later(grant.expiry, -MICROSECOND), grant.expiry])
            .collect();
        // The last expiry is left to the closing out.
        steps.truncate(steps.len().saturating_sub(2));
        let mut closings = Vec::new();
        for as_of in &steps {
            let due = end_due(model, whose, &mut left, *as_of);
            let expired: i64 = due.iter().map(|closing| closing.2).sum();
            for expected in [expired, 0] {
                let sql = "select exa_billing.expire_credits($1, $2, $3)";
                let told: i64 = row(c, sql, &[&Model::kind(whose), &model.id(whose), as_of]).get(0);
                compared(&told, &expected, who, "expire_credits");
            }
            closings.extend(due);
        }
        if let Some(last) = left.last() {
            // Every one was granted by then, and none was closed after it.
            let latest = left.iter().map(|grant| grant.created).max().expect("one that is left");
            let as_of = steps.last().copied().unwrap_or(latest).max(latest);
            let as_of = if last.expiry <= later(as_of, HOUR) { last.expiry } else { as_of };
            let mut ended = end_due(model, whose, &mut left, as_of);
            while !left.is_empty() {
                ended.push(end_first(model, whose, &mut left, as_of));
            }
            let expected: i64 = ended.iter().map(|closing| closing.2).sum();
            let sql = "select exa_billing.close_out_credits($1, $2, $3)";
            let told: i64 = row(c, sql, &[&Model::kind(whose), &model.id(whose), &as_of]).get(0);
            compared(&told, &expected, who, "close_out_credits");
            closings.extend(ended);
        }
        closing_rows(c, model, whose, &closings, who);
        recompute(c, model, whose, closings.iter().map(|closing| closing.2).sum(), who);
        statements(c, model, whose, &closings, who);
    }
}

fn closing_rows(c: &mut Client, model: &Model, whose: Whose, closings: &[Closing], who: &str) {
    let sql = "select g.description, e.created_at, -e.amount_microdollars, e.original_baseline_microdollars_used
               from exa_billing.credit_transactions as e
               join exa_billing.credit_transactions as g on g.id = e.original_transaction_id
               where e.owner_kind = $1 and e.owner_id = $2 order by 1";
    let told = rows(c, sql, &[&Model::kind(whose), &model.id(whose)]);
    let told: Vec<Closing> =
        told.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
    let mut expected = closings.to_vec();
    expected.sort();
    compared(&told, &expected, who, "closing rows");
}

/// When, what kind, what, and the signed amount.
type Line = (String, String, String, i64);

fn statements(c: &mut Client, model: &Model, whose: Whose, closings: &[Closing], who: &str) {
    let edge = model.history.edge;
    for (from, to) in [
        (later(edge, -40 * DAY), later(edge, 40 * DAY)),
        (later(edge, -MICROSECOND), later(edge, MICROSECOND)),
        (edge, later(edge, DAY)),
        (later(edge, -DAY), edge),
    ] {
        let sql = "select line_time, kind, coalesce(description, ''), amount_microdollars, balance_microdollars
                   from exa_billing.account_statement($1, $2, $3, $4)";
        let told = rows(c, sql, &[&Model::kind(whose), &model.id(whose), &from, &to]);
        let brought: (At, i64) = (told[0].get(0), told[0].get(4));
        let balance: i64 = told.last().expect("a first line").get(4);
        let mut lines: Vec<Line> = told[1..]
            .iter()
            .map(|row| (shown(row.get(0)), row.get(1), row.get(2), row.get(3)))
            .collect();
        lines.sort();
        let earlier = ledger(model, whose, closings, At::MIN_UTC, from);
        let before =
            earlier.iter().map(|line| line.3).sum::<i64>() - model.used_before(whose, from);
        let mut expected = ledger(model, whose, closings, from, to);
        expected.extend(spend_by_day(model, whose, from, to));
        expected.sort();
        let after = before + expected.iter().map(|line| line.3).sum::<i64>();
        compared(
            &(lines, brought, balance),
            &(expected, (from, before), after),
            who,
            "account_statement",
        );
    }
}

fn ledger(model: &Model, whose: Whose, closings: &[Closing], from: At, to: At) -> Vec<Line> {
    let given = grants(model, whose)
        .map(|grant| (grant.created, "grant", grant.name.clone(), grant.amount));
    let ended = closings.iter().map(|(name, when, expired, _)| {
        (*when, "expiration", format!("Expired: {name}"), -expired)
    });
    given
        .chain(ended)
        .filter(|(when, ..)| from <= *when && *when < to)
        .map(|(when, kind, name, amount)| (shown(when), kind.to_owned(), name, amount))
        .collect()
}

fn spend_by_day(model: &Model, whose: Whose, from: At, to: At) -> Vec<Line> {
    let mut days = BTreeMap::new();
    for entry in model.charged(whose, from, to) {
        let day = days.entry((day_of(entry.at), entry.product)).or_insert((entry.at, 0, 0));
        *day = (day.0.max(entry.at), day.1 + 1, day.2 + entry.amount);
    }
    let line = |((day, product), (last, count, amount)): ((NaiveDate, &str), (At, i64, i64))| {
        let charges = if count == 1 { "charge" } else { "charges" };
        let what = format!("{product} on {day}, {count} {charges}");
        (shown(last), "spend".to_owned(), what, -amount)
    };
    days.into_iter().map(line).collect()
}
