//! Adding figures to the tables they are kept in, all of a batch at once.

use super::figures::{Figures, Spend};
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::spi::{Addition, Statement, Sums, Value, values};
use crate::time::Instant;
use crate::transaction::TransactionId;
use crate::{accounts, guc};
use std::collections::{BTreeMap, BTreeSet};

static ACCOUNTS: Statement = Statement::over_queue(
    "UPDATE exa_billing.accounts AS a
     SET microdollars_used = a.microdollars_used + s.amount,
         posted_before = s.posted_before, posted_where = $6
     FROM unnest($1, $2, $3, $4, $5) AS s(owner_kind, owner_id, amount, has_spent, posted_before)
     WHERE a.owner_kind = s.owner_kind AND a.owner_id = s.owner_id
     RETURNING s.has_spent AND a.minimum_balance_microdollars IS NOT NULL",
);
static EVALUATIONS: Statement =
    Statement::over_queue(include_str!("../../sql/statements/queue_evaluations.sql"));
static MONTHS: Target = Target {
    sums: Sums {
        table: "exa_monthly_usage",
        columns: &[
            "counter_id",
            "user_id",
            "organization_id",
            "month",
            "total_cost_microdollars",
            "total_charged_microdollars",
            "request_count",
            "free_allowance_microdollars",
        ],
        key: &[2, 4, 3],
        added: &[5, 6, 7],
    },
    update: Statement::over_queue(
        "UPDATE exa_billing.exa_monthly_usage AS c
         SET total_cost_microdollars = c.total_cost_microdollars + e.cost,
             total_charged_microdollars = c.total_charged_microdollars + e.charged,
             request_count = c.request_count + e.requests
         FROM unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY
             AS e(user_id, month, organization_id, cost, charged, requests, place)
         WHERE c.user_id = e.user_id AND c.month = e.month
           AND c.organization_id IS NOT DISTINCT FROM e.organization_id
         RETURNING e.place",
    ),
    insert: Statement::over_queue(
        "INSERT INTO exa_billing.exa_monthly_usage AS c
             (counter_id, user_id, organization_id, month, total_cost_microdollars,
              total_charged_microdollars, request_count, free_allowance_microdollars)
         SELECT gen_random_uuid(), e.user_id, e.organization_id, e.month, e.cost, e.charged, e.requests,
                (SELECT locked.free_allowance_microdollars
                 FROM exa_billing.exa_monthly_allowance AS locked
                 WHERE locked.user_id = e.user_id AND locked.month = e.month)
         FROM unnest($1, $2, $3, $4, $5, $6)
             AS e(user_id, month, organization_id, cost, charged, requests)
         ON CONFLICT ON CONSTRAINT exa_monthly_usage_context_key DO UPDATE
         SET total_cost_microdollars = c.total_cost_microdollars + excluded.total_cost_microdollars,
             total_charged_microdollars = c.total_charged_microdollars + excluded.total_charged_microdollars,
             request_count = c.request_count + excluded.request_count",
    ),
};
static MEMBER_DAYS: Target = Target {
    sums: Sums {
        table: "organization_member_usage",
        columns: &["organization_id", "user_id", "usage_date", "microdollars_used"],
        key: &[1, 2, 3],
        added: &[4],
    },
    update: Statement::over_queue(
        "UPDATE exa_billing.organization_member_usage AS c
         SET microdollars_used = c.microdollars_used + e.amount
         FROM unnest($1, $2, $3, $4) WITH ORDINALITY
             AS e(organization_id, user_id, usage_date, amount, place)
         WHERE c.organization_id = e.organization_id AND c.user_id = e.user_id
           AND c.usage_date = e.usage_date
         RETURNING e.place",
    ),
    insert: Statement::over_queue(
        "INSERT INTO exa_billing.organization_member_usage AS c
             (organization_id, user_id, usage_date, microdollars_used)
         SELECT * FROM unnest($1, $2, $3, $4)
         ON CONFLICT (organization_id, user_id, usage_date) DO UPDATE
         SET microdollars_used = c.microdollars_used + excluded.microdollars_used",
    ),
};
static TOTALS: Target = Target {
    sums: Sums {
        table: "spend_hourly_totals",
        columns: &[
            "owner_kind",
            "owner_id",
            "hour_start",
            "spend_category",
            "total_microdollars",
            "spend_record_count",
        ],
        key: &[1, 2, 3, 4],
        added: &[5, 6],
    },
    update: Statement::over_queue(
        "UPDATE exa_billing.spend_hourly_totals AS c
         SET total_microdollars = c.total_microdollars + e.amount,
             spend_record_count = c.spend_record_count + e.records
         FROM unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY
             AS e(owner_kind, owner_id, hour_start, spend_category, amount, records, place)
         WHERE c.owner_kind = e.owner_kind AND c.owner_id = e.owner_id
           AND c.hour_start = e.hour_start AND c.spend_category = e.spend_category
         RETURNING e.place",
    ),
    insert: Statement::over_queue(
        "INSERT INTO exa_billing.spend_hourly_totals AS c
             (owner_kind, owner_id, hour_start, spend_category, total_microdollars, spend_record_count)
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6)
         ON CONFLICT (owner_kind, owner_id, hour_start, spend_category) DO UPDATE
         SET total_microdollars = c.total_microdollars + excluded.total_microdollars,
             spend_record_count = c.spend_record_count + excluded.spend_record_count",
    ),
};
static DAYS: Target = Target {
    sums: Sums {
        table: "spend_daily_totals",
        columns: &[
            "owner_kind",
            "owner_id",
            "day_start",
            "spend_category",
            "total_microdollars",
            "spend_record_count",
        ],
        key: &[1, 2, 3, 4],
        added: &[5, 6],
    },
    update: Statement::over_queue(
        "UPDATE exa_billing.spend_daily_totals AS c
         SET total_microdollars = c.total_microdollars + e.amount,
             spend_record_count = c.spend_record_count + e.records
         FROM unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY
             AS e(owner_kind, owner_id, day_start, spend_category, amount, records, place)
         WHERE c.owner_kind = e.owner_kind AND c.owner_id = e.owner_id
           AND c.day_start = e.day_start AND c.spend_category = e.spend_category
         RETURNING e.place",
    ),
    insert: Statement::over_queue(
        "INSERT INTO exa_billing.spend_daily_totals AS c
             (owner_kind, owner_id, day_start, spend_category, total_microdollars, spend_record_count)
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6)
         ON CONFLICT (owner_kind, owner_id, day_start, spend_category) DO UPDATE
         SET total_microdollars = c.total_microdollars + excluded.total_microdollars,
             spend_record_count = c.spend_record_count + excluded.spend_record_count",
    ),
};
static DRIVERS: Target = Target {
    sums: Sums {
        table: "spend_hourly_drivers",
        columns: &[
            "owner_kind",
            "owner_id",
            "hour_start",
            "dimension_id",
            "actor_user_id",
            "total_microdollars",
            "spend_record_count",
        ],
        key: &[1, 2, 3, 4, 5],
        added: &[6, 7],
    },
    update: Statement::over_queue(
        "UPDATE exa_billing.spend_hourly_drivers AS c
         SET total_microdollars = c.total_microdollars + e.amount,
             spend_record_count = c.spend_record_count + e.records
         FROM unnest($1, $2, $3, $4, $5, $6, $7) WITH ORDINALITY
             AS e(owner_kind, owner_id, hour_start, dimension_id, actor_user_id, amount, records, place)
         WHERE c.owner_kind = e.owner_kind AND c.owner_id = e.owner_id
           AND c.hour_start = e.hour_start AND c.dimension_id = e.dimension_id
           AND c.actor_user_id = e.actor_user_id
         RETURNING e.place",
    ),
    insert: Statement::over_queue(
        "INSERT INTO exa_billing.spend_hourly_drivers AS c
             (owner_kind, owner_id, hour_start, dimension_id, actor_user_id, total_microdollars,
              spend_record_count)
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (owner_kind, owner_id, hour_start, dimension_id, actor_user_id) DO UPDATE
         SET total_microdollars = c.total_microdollars + excluded.total_microdollars,
             spend_record_count = c.spend_record_count + excluded.spend_record_count",
    ),
};

/// A table of figures. Most of what is added has a row already, under the account's lock; the others are
/// inserted.
struct Target {
    sums: Sums,
    /// The same, where a table is not as it was made. Returns the places of those it has found.
    update: Statement,
    insert: Statement,
}

impl Target {
    fn add<K, V>(
        &'static self,
        figures: &BTreeMap<K, V>,
        addition: impl Fn((&K, &V)) -> Addition,
    ) -> Result<()> {
        if figures.is_empty() {
            return Ok(());
        }
        let all: Vec<Addition> = figures.iter().map(addition).collect();
        let missing = match self.sums.add(&all) {
            Some(missing) => missing,
            None => self.update(&all)?,
        };
        if missing.is_empty() {
            return Ok(());
        }
        let missing: Vec<&Addition> = missing.into_iter().map(|place| &all[place]).collect();
        self.insert.execute(&columns_of(&missing))
    }

    /// The places of those that have no row, counted from zero.
    fn update(&'static self, all: &[Addition]) -> Result<Vec<usize>> {
        let all: Vec<&Addition> = all.iter().collect();
        let found = self.update.write(&columns_of(&all), |row| row.get::<i64>(1))?;
        let found: BTreeSet<i64> = found.into_iter().collect();
        let places = (1_i64..).zip(0..all.len());
        Ok(places.filter(|(number, _)| !found.contains(number)).map(|(_, place)| place).collect())
    }
}

/// As many arrays as a row has values.
fn columns_of(rows: &[&Addition]) -> Vec<Value> {
    let count = rows.first().map_or(0, |row| row.len());
    (0..count).map(|column| Value::array_of(rows.iter().map(|row| &row[column]))).collect()
}

/// Adds to the posted balances, and notes from where on rows are not posted; whether one of those who
/// have spent has set a minimum balance.
pub fn add_to_accounts(figures: &Figures) -> Result<bool> {
    let (kinds, ids) = columns(figures.posted_before.keys());
    let spent = figures.posted_before.keys().map(|owner| figures.accounts.get(owner));
    let (amounts, have_spent): (Vec<i64>, Vec<bool>) = spent
        .map(|spent| (spent.map_or(0, |spent| spent.amount_microdollars), spent.is_some()))
        .unzip();
    let posted_before: Vec<TransactionId> = figures.posted_before.values().copied().collect();
    let place = accounts::place_of_queue();
    let arguments = values![kinds, ids, amounts, have_spent, posted_before, place];
    let have_minimum = ACCOUNTS.write(arguments, |row| row.get::<bool>(1))?;
    if have_minimum.len() != figures.posted_before.len() {
        return Err(BillingError::internal("an account vanished while it was locked"));
    }
    Ok(have_minimum.contains(&true))
}

/// Has the owners' spend evaluated, some time from now.
pub fn queue_evaluations(figures: &Figures) -> Result<()> {
    let (kinds, ids) = columns(figures.accounts.keys());
    let own: Vec<bool> = figures.accounts.values().map(|spent| spent.may_be_own).collect();
    EVALUATIONS.execute(values![kinds, ids, own, guc::evaluation_delay_microseconds()])
}

pub fn add_to_months(figures: &Figures) -> Result<()> {
    MONTHS.add(&figures.months, |((user, organization, month), added)| {
        values![
            user,
            *month,
            organization.as_deref(),
            added.cost_microdollars,
            added.charged_microdollars,
            added.requests
        ]
        .to_vec()
    })
}

pub fn add_to_member_days(figures: &Figures) -> Result<()> {
    MEMBER_DAYS.add(&figures.member_days, |((organization, user, day), amount)| {
        values![organization, user, *day, *amount].to_vec()
    })
}

pub fn add_to_totals(figures: &Figures) -> Result<()> {
    TOTALS.add(&figures.totals, addition_to_total)?;
    DAYS.add(&figures.days, addition_to_total)
}

fn addition_to_total(
    ((owner, start, category), added): (&(Owner, Instant, &'static str), &Spend),
) -> Addition {
    let Spend { amount_microdollars, spend_record_count } = *added;
    values![
        owner.kind.as_str(),
        &owner.id,
        *start,
        *category,
        amount_microdollars,
        spend_record_count
    ]
    .to_vec()
}

pub fn add_to_drivers(figures: &Figures) -> Result<()> {
    DRIVERS.add(&figures.drivers, |((owner, hour, dimension, actor), added)| {
        let Spend { amount_microdollars, spend_record_count } = *added;
        values![
            owner.kind.as_str(),
            &owner.id,
            *hour,
            *dimension,
            actor,
            amount_microdollars,
            spend_record_count
        ]
        .to_vec()
    })
}

/// Owners as two array arguments.
pub fn columns<'a>(owners: impl Iterator<Item = &'a Owner>) -> (Vec<&'a str>, Vec<&'a str>) {
    owners.map(|owner| (owner.kind.as_str(), owner.id.as_str())).unzip()
}
