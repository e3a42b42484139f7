//! Telling a history to the books, in a session of any settings, and what each call answers.

use super::edges::{At, elsewhere, month_after, month_of, shown, start_of};
use super::history::{Charge, Grant, History, Way};
use super::model::Model;
use super::zones;
use crate::common::{Database, Server, one, run_sql};
use postgres::types::ToSql;
use postgres::{Client, Row};

/// Where the histories of one session of the proof are kept, one beside the other.
pub struct Books {
    pub db: Database,
    pub plain: Client,
}

impl Books {
    pub fn new() -> Self {
        let db = Server::shared().books();
        let mut plain = zones::session(&db, zones::SETTINGS[0]);
        zones::add_decoys(&mut plain);
        run_sql(
            &mut plain,
            r#"create table public.ledger (user_id text, team text, amount bigint, at timestamptz);
               create index on public.ledger (user_id, at);
               create index on public.ledger (team, at);
               select exa_billing.attach_spend_source('llm', 'public.ledger', 'variable', 'ai_gateway',
                   '{"user_id": "user_id", "organization_id": "team", "amount": "amount", "created_at": "at",
                     "product_key": {"value": "llm"}}', true);
               update exa_billing.spend_sources set covered_from = '2000-01-01 00:00+00'"#,
        );
        Self { db, plain }
    }

    pub fn session(&self, settings: &str) -> Client {
        zones::session(&self.db, settings)
    }
}

#[track_caller]
pub fn row(c: &mut Client, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Row {
    c.query_one(sql, params).unwrap_or_else(|error| panic!("{sql}\n{error:?}"))
}

#[track_caller]
pub fn rows(c: &mut Client, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
    c.query(sql, params).unwrap_or_else(|error| panic!("{sql}\n{error:?}"))
}

/// Policies, charges and grants, each answered as the model says.
pub fn tell<'a>(c: &mut Client, history: &'a History) -> Model<'a> {
    let mut model = Model::new(history);
    let rule = if history.is_split { "split" } else { "whole" };
    for (month, amount) in &history.allowances {
        let sql = "select exa_billing.set_free_allowance($1, $2, $3, $4)";
        row(c, sql, &[amount, month, &history.user, &rule]);
    }
    let member = "select exa_billing.set_organization_member($1, $2, 'member', $3)";
    row(c, member, &[&history.organization, &history.user, &history.daily_limit]);
    for (number, charge) in history.charges.iter().enumerate() {
        if number == history.posted_after {
            post(c);
        }
        let answer = record(c, history, charge);
        let (free, charged) = model.take(charge);
        let Some(answer) = answer else { continue };
        let allowance = charge.is_exa().then(|| model.months[&month_of(charge.at)].allowance);
        let told: (At, i64, i64, i64, Option<i64>, bool) = (
            answer.get(0),
            answer.get(1),
            answer.get(2),
            answer.get(3),
            answer.get(4),
            answer.get(5),
        );
        let expected = (charge.at, charge.amount, free, charged, allowance, false);
        assert_eq!(told, expected, "{charge:?} of {history:#?}");
    }
    for grant in &history.grants {
        give(c, history, grant);
    }
    if let Some((from, to)) = history.degraded {
        let sql =
            "select exa_billing.record_degraded_interval($2, $3, 'a test', 'organization', $1)";
        row(c, sql, &[&history.organization, &from, &to]);
    }
    model
}

pub fn post(c: &mut Client) {
    while one::<i64>(c, "select exa_billing.post_spend(1000000)", &[]) > 0 {}
}

const RECORDED: &str =
    "select created_at, cost_microdollars, free_microdollars, charged_microdollars,
    free_allowance_microdollars, is_replay from exa_billing.";

/// Records a charge; None where the books say nothing, as of rows of an attached table.
fn record(c: &mut Client, history: &History, charge: &Charge) -> Option<Row> {
    let (user, organization) = (&history.user, &history.organization);
    let context = charge.for_organization.then_some(organization);
    // Told as text, the instant has the offset of any place.
    let time = if charge.text.is_some() { "$4::text::timestamptz" } else { "$4::timestamptz" };
    let at: &(dyn ToSql + Sync) = match &charge.text {
        Some(text) => text,
        None => &charge.at,
    };
    let amount = charge.amount;
    match charge.way {
        Way::Exa => {
            let call = format!("record_exa_usage($1, '/search', $2, $3, created_at => {time})");
            Some(row(c, &format!("{RECORDED}{call}"), &[user, &amount, &context, at]))
        }
        Way::ExaResponse => {
            let call = format!(
                "record_exa_response($1, '/answer', $2::text::jsonb, $3, created_at => {time})"
            );
            let response = format!(r#"{{"costDollars": {{"total": 0.{amount:06}}}}}"#);
            Some(row(c, &format!("{RECORDED}{call}"), &[user, &response, &context, at]))
        }
        Way::ExaBatch => {
            let created_at = charge.text.clone().unwrap_or_else(|| elsewhere(charge.at, 0));
            let usage = serde_json::json!([{
                "user_id": user, "path": "/contents", "cost_microdollars": amount,
                "organization_id": context, "created_at": created_at,
            }]);
            let sql = format!("{RECORDED}record_exa_usage_batch($1::text::jsonb)");
            Some(row(c, &sql, &[&usage.to_string()]))
        }
        Way::Spend { scheduled } => {
            let category = if scheduled { "scheduled" } else { "variable" };
            let (kind, id) = owner(history, charge.for_organization);
            let call = format!(
                "record_spend($1, $2, $3, '{category}', 'other', 'plan', actor_user_id => $5, created_at => {time})"
            );
            Some(row(c, &format!("{RECORDED}{call}"), &[&kind, &id, &amount, at, user]))
        }
        Way::Ledger => {
            let sql = format!("insert into public.ledger values ($1, $3, $2, {time})");
            c.execute(&sql, &[user, &amount, &context, at]).expect("a row of the ledger");
            None
        }
    }
}

fn owner(history: &History, for_organization: bool) -> (&'static str, &str) {
    if for_organization { ("organization", &history.organization) } else { ("user", &history.user) }
}

fn give(c: &mut Client, history: &History, grant: &Grant) {
    let (kind, id) = owner(history, grant.for_organization);
    let sql = "select exa_billing.grant_credit($1, $2, $3, $4, null, $5, false, null, $6)";
    row(c, sql, &[&kind, &id, &grant.amount, &grant.expiry, &grant.name, &grant.created]);
}

/// Every partition of the journals bounds one month of the calendar, and is named after it.
pub fn assert_months(c: &mut Client) -> usize {
    let sql = "select relname::text, (b[1])::text::timestamptz, (b[2])::text::timestamptz
               from pg_class, regexp_match(pg_get_expr(relpartbound, oid), '\\(''(.*)''\\) TO \\(''(.*)''\\)') as b
               where relnamespace = 'exa_billing'::regnamespace and relispartition and relkind = 'r'";
    let found = rows(c, sql, &[]);
    for row in &found {
        let (name, from, to): (String, At, At) = (row.get(0), row.get(1), row.get(2));
        assert_month(&name, from, to);
    }
    found.len()
}

/// A partition's name and bounds are those of one month in UTC.
pub fn assert_month(name: &str, from: At, to: At) {
    let month = month_of(from);
    assert_eq!(shown(from), shown(start_of(month)), "{name}");
    assert_eq!(shown(to), shown(start_of(month_after(month))), "{name}");
    assert!(name.ends_with(&month.format("_log_%Y_%m").to_string()), "{name} from {}", shown(from));
}
