//! Months, days and the decision: what is free, what is paid, what a member may still spend.

use super::edges::{At, day_of, days_later, month_after, month_of};
use super::model::{BOTH, Model, Whose};
use super::writing::{row, rows};
use super::{compared, credits};
use chrono::NaiveDate;
use postgres::Client;

pub fn compare(c: &mut Client, model: &Model, who: &str) {
    months(c, model, who);
    decisions(c, model, who);
    counters(c, model, who);
}

/// A month names itself by any of its days.
fn months(c: &mut Client, model: &Model, who: &str) {
    let month = month_of(model.history.edge);
    let last = month_after(month).pred_opt().expect("a day before");
    for day in [month.pred_opt().expect("a day before"), month, last, days_later(last, 1)] {
        let sql =
            "select month, total_cost_microdollars, total_charged_microdollars, request_count,
                          free_allowance_microdollars from exa_billing.exa_monthly_usage($1, $2)";
        let told = row(c, sql, &[&model.history.user, &day]);
        let told: (NaiveDate, i64, i64, i64, Option<i64>) =
            (told.get(0), told.get(1), told.get(2), told.get(3), told.get(4));
        let month = chrono::Datelike::with_day0(&day, 0).expect("a month's first day");
        let kept = model.months.get(&month).copied();
        let figures = kept.unwrap_or_default();
        let expected = (
            month,
            figures.cost,
            figures.charged,
            figures.requests,
            kept.map(|kept| kept.allowance),
        );
        compared(&told, &expected, who, "exa_monthly_usage");
    }
}

fn decisions(c: &mut Client, model: &Model, who: &str) {
    let history = model.history;
    for as_of in history.moments.iter().copied() {
        for whose in BOTH {
            let sql = "select allowed, reason, is_paid, month_used_microdollars, free_allowance_microdollars,
                              balance_microdollars, member_limit_remaining_microdollars
                       from exa_billing.check_exa_usage($1, $2, $3)";
            let organization = (whose == Whose::Organization).then_some(&history.organization);
            let told = row(c, sql, &[&history.user, &organization, &as_of]);
            let told = (
                told.get(0),
                told.get(1),
                told.get(2),
                told.get(3),
                told.get(4),
                told.get(5),
                told.get(6),
            );
            compared(&told, &decision(model, whose, as_of), who, "check_exa_usage");
        }
    }
}

type Decision = (bool, String, bool, i64, i64, i64, Option<i64>);

fn decision(model: &Model, whose: Whose, as_of: At) -> Decision {
    let month = month_of(as_of);
    let kept = model.months.get(&month).copied().unwrap_or_default();
    let allowance = if kept.requests > 0 { kept.allowance } else { model.in_force(month) };
    let balance = credits::balance(model, whose, as_of).2;
    let of_member = model.history.daily_limit - model.members_day(day_of(as_of));
    let remaining = (whose == Whose::Organization).then_some(of_member.min(balance));
    let is_paid = kept.counted >= allowance;
    let (allowed, reason) = match () {
        () if !is_paid => (true, "free_allowance"),
        () if balance <= 0 => (false, "no_credit_balance"),
        () if remaining.is_some_and(|remaining| remaining <= 0) => (false, "member_daily_limit"),
        () => (true, "credit_balance"),
    };
    (allowed, reason.to_owned(), is_paid, kept.counted, allowance, balance, remaining)
}

/// The view of the monthly counters; and, once all is posted, the members' days.
fn counters(c: &mut Client, model: &Model, who: &str) {
    let sql = "select organization_id is not null, month, total_cost_microdollars::bigint,
                      total_charged_microdollars::bigint, request_count::bigint
               from exa_billing.exa_monthly_usage_current where user_id = $1 order by 1, 2";
    let told: Vec<(bool, NaiveDate, i64, i64, i64)> = rows(c, sql, &[&model.history.user])
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4)))
        .collect();
    let mut expected: Vec<(bool, NaiveDate, i64, i64, i64)> = Vec::new();
    for for_organization in [false, true] {
        for month in model.months.keys() {
            let requests = model.entries.iter().filter(|entry| {
                entry.is_exa
                    && entry.for_organization == for_organization
                    && month_of(entry.at) == *month
            });
            let (cost, charged, count) = requests.fold((0, 0, 0), |sum, entry| {
                (sum.0 + entry.cost, sum.1 + entry.amount, sum.2 + 1)
            });
            if count > 0 {
                expected.push((for_organization, *month, cost, charged, count));
            }
        }
    }
    compared(&told, &expected, who, "exa_monthly_usage_current");
}

/// After posting: days are UTC's in the table that limits are kept by.
pub fn compare_days(c: &mut Client, model: &Model, who: &str) {
    let sql = "select usage_date, microdollars_used from exa_billing.organization_member_usage
               where organization_id = $1 and user_id = $2 and microdollars_used <> 0 order by 1";
    let told = rows(c, sql, &[&model.history.organization, &model.history.user]);
    let told: Vec<(NaiveDate, i64)> = told.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut days: Vec<NaiveDate> = model.entries.iter().map(|entry| day_of(entry.at)).collect();
    days.sort_unstable();
    days.dedup();
    let expected: Vec<(NaiveDate, i64)> = days
        .into_iter()
        .map(|day| (day, model.members_day(day)))
        .filter(|(_, amount)| *amount != 0)
        .collect();
    compared(&told, &expected, who, "organization_member_usage");
}
