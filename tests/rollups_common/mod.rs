//! What the tests of the rollups' maintenance share: books with a history of some days, ways to
//! damage them, and what is posted.
#![allow(dead_code)] // each test program uses a part of it

use crate::common::{Database, Server, one, run_sql};
use crate::usage_common::{column, no_free_allowance};
use postgres::Client;

/// The histories of the tests lie some time back.
pub const SESSION: &str =
    "-c search_path=exa_billing,public -c exa_billing.late_usage_limit=3000d -c lock_timeout=30s";

/// All hours of the history that `filled` writes, and some around it.
pub const ALL: &str = "'2025-01-30 00:00+00', '2025-02-09 00:00+00'"; // 240 hours

pub fn session(db: &Database) -> Client {
    db.client_with(SESSION)
}

/// A new database with books in which every request is paid and every hour counts as covered.
pub fn books() -> (Database, Client) {
    books_on(&Server::shared())
}

pub fn books_on(server: &Server) -> (Database, Client) {
    let db = server.books();
    let mut client = session(&db);
    run_sql(&mut client, "update spend_sources set covered_from = '2020-01-01Z'");
    no_free_allowance(&mut client);
    (db, client)
}

/// Books of three users and two organizations, with 120 charges of every kind from 30 January to
/// 8 February 2025. All is posted but the last 20 charges and one owner's blocked row.
pub fn filled() -> (Database, Client) {
    let (db, mut client) = books();
    fill(&mut client);
    (db, client)
}

pub fn fill(client: &mut Client) {
    charge(client, 0, 100);
    run_sql(client, "select post_spend()");
    charge(client, 100, 120);
    run_sql(
        client,
        "update unposted_spend set blocked_reason = 'set aside by a test'
         where (owner_kind, owner_id, entry_id) in (
             select owner_kind, owner_id, entry_id from unposted_spend where owner_id = 'o0' limit 1)",
    );
}

/// The charges with these numbers.
fn charge(client: &mut Client, from: i32, to: i32) {
    run_sql(
        client,
        &format!(
            "select record_exa_usage('u' || n % 3, (array['/search', '/answer', '/new'])[1 + n % 3], 100 + n,
                        case when n % 4 > 1 then 'o' || n % 4 - 2 end,
                        created_at => '2025-01-30 20:15+00'::timestamptz + n % 40 * interval '5 hours')
             from generate_series({from}, {to} - 1) as n where n % 2 = 0;
             select record_spend((array['user', 'organization'])[1 + n % 2],
                        case n % 2 when 0 then 'u' || n % 3 else 'o' || n / 2 % 2 end, 1000 + n,
                        (array['variable', 'scheduled'])[1 + n / 4 % 2],
                        (array['ai_gateway', 'kiloclaw', 'coding_plan', 'other'])[1 + n / 2 % 4],
                        'product-' || n % 5, 'f', 'model-' || n % 7,
                        actor_user_id => case when n % 3 = 0 then 'u' || n % 3 end,
                        created_at => '2025-01-30 20:45+00'::timestamptz + n % 40 * interval '5 hours')
             from generate_series({from}, {to} - 1) as n where n % 2 = 1 or n % 5 = 0",
        ),
    );
}

/// What is posted: each total, driver and member day as one line, without ids.
pub fn posted(client: &mut Client) -> Vec<String> {
    column(
        client,
        "select 'total ' || t::text from exa_billing.spend_hourly_totals as t
         union all
         select 'day ' || t::text from exa_billing.spend_daily_totals as t
         union all
         select concat_ws(' ', 'driver', p.owner_kind, p.owner_id, p.hour_start, d.spend_category, d.source,
                          d.product_key, d.feature_key, d.model_or_plan_key, d.provider_key,
                          p.actor_user_id, p.total_microdollars, p.spend_record_count)
         from exa_billing.spend_hourly_drivers as p left join exa_billing.spend_dimensions as d using (dimension_id)
         union all
         select 'member ' || m::text from exa_billing.organization_member_usage as m
         order by 1",
    )
}

/// What organization o1 has posted in the history.
pub const TOTALS: i64 = 10;
pub const TOTALS_OF_DAYS: i64 = 10;
pub const DRIVERS: i64 = 25;
pub const DAYS: i64 = 5;

/// What somebody may do to the rollups of organization o1, and how many figures are wrong then.
pub const DAMAGE: [(&str, i64); 18] = [
    (
        "update spend_hourly_totals set total_microdollars = total_microdollars + 1
         where owner_id = 'o1' and hour_start = '2025-01-31 11:00Z'",
        1,
    ),
    ("update spend_hourly_totals set spend_record_count = 77 where owner_id = 'o1'", TOTALS),
    ("delete from spend_hourly_totals where owner_id = 'o1'", TOTALS),
    (
        "update spend_hourly_totals set spend_category = 'nonsense'
         where owner_id = 'o1' and hour_start = '2025-01-31 11:00Z'",
        2,
    ),
    (
        "insert into spend_hourly_totals
         values ('organization', 'o1', '2025-02-03 03:00Z', 'scheduled', 5, 1)",
        1,
    ),
    ("update spend_daily_totals set spend_record_count = 77 where owner_id = 'o1'", TOTALS_OF_DAYS),
    ("delete from spend_daily_totals where owner_id = 'o1'", TOTALS_OF_DAYS),
    (
        "insert into spend_daily_totals
         values ('organization', 'o1', '2021-02-03 00:00Z', 'scheduled', 5, 1)",
        1,
    ),
    ("delete from spend_hourly_drivers where owner_id = 'o1'", DRIVERS),
    (
        "update spend_hourly_drivers set total_microdollars = -total_microdollars where owner_id = 'o1'",
        DRIVERS,
    ),
    (
        "update spend_hourly_drivers set spend_record_count = spend_record_count + 1 where owner_id = 'o1'",
        DRIVERS,
    ),
    // One that is invented and one that is missing for each of them.
    ("update spend_hourly_drivers set dimension_id = gen_random_uuid() where owner_id = 'o1'", 50),
    ("update spend_hourly_drivers set actor_user_id = 'somebody' where owner_id = 'o1'", 50),
    ("delete from organization_member_usage where organization_id = 'o1'", DAYS),
    (
        "update organization_member_usage set microdollars_used = 1 where organization_id = 'o1'",
        DAYS,
    ),
    ("insert into organization_member_usage values ('o1', 'nobody', '2025-02-02', 5)", 1),
    // A month that no journal reaches.
    (
        "insert into spend_hourly_totals
         values ('organization', 'o1', '2021-02-03 03:00Z', 'variable', 5, 1);
         insert into organization_member_usage values ('o1', 'nobody', '2021-03-02', 5)",
        2,
    ),
    // Rows of nothing, as charges that were taken back leave them, are no error.
    (
        "insert into spend_hourly_totals
         values ('organization', 'o1', '2025-02-03 03:00Z', 'scheduled', 0, 0);
         insert into organization_member_usage values ('o1', 'nobody', '2025-02-02', 0)",
        0,
    ),
];

/// Takes away dimensions that no waiting row names, with the drivers that have them.
pub const WITHOUT_DIMENSIONS: &str = "
    delete from spend_dimensions as d where not exists (
        select from unposted_spend as q where q.dimension_id = d.dimension_id)
        and product_key like 'product-%';
    delete from spend_hourly_drivers as p where not exists (
        select from spend_dimensions as d where d.dimension_id = p.dimension_id)";

/// From long before the history to its end.
pub const EVER: &str = "'1000-01-01 00:00+00', '2025-02-09 00:00+00'";

/// Three hours in which many charge the same owners at once.
pub const BUSY: &str = "'2025-02-03 10:00+00', '2025-02-03 13:00+00'";

/// Books with the two owners of `charge_at_once`.
pub fn busy_books() -> (Database, Client) {
    let (db, mut client) = books();
    run_sql(
        &mut client,
        "select grant_credit('user', 'u', 1), grant_credit('organization', 'o', 1);
         select record_spend('user', 'u', 1, 'variable', 'other', 'p', created_at => '2025-02-03 09:59:59Z'),
                record_spend('organization', 'o', 1, 'variable', 'other', 'p', created_at => '2025-02-03 13:00Z')",
    );
    (db, client)
}

/// One session of several: sixty charges to the hours of `BUSY`, with new dimensions among them.
/// Returns what the user and the organization were charged.
pub fn charge_at_once(number: usize, client: &mut Client) -> (i64, i64) {
    let mut charged = (0, 0);
    for i in 0..30 {
        let (amount, minute) = (100 + (number * 30 + i) as i64, (number * 31 + i * 7) % 180);
        let at = format!("'2025-02-03 10:00Z'::timestamptz + {minute} * interval '1 minute'");
        run_sql(
            client,
            &format!(
                "select record_spend('user', 'u', {amount}, 'scheduled', 'kiloclaw', 'product-{}', created_at => {at});
                 select record_exa_usage('m{}', '/answer', {}, 'o', created_at => {at})",
                i / 3,
                number % 3,
                2 * amount
            ),
        );
        charged = (charged.0 + amount, charged.1 + 2 * amount);
    }
    charged
}

/// Damages the rollups of both owners as somebody who takes the locks that posting takes.
pub const DAMAGE_BUSY: &str = "
    begin;
    select from exa_billing.accounts order by owner_kind, owner_id for update;
    update exa_billing.spend_hourly_totals set total_microdollars = total_microdollars + 5
    where hour_start = '2025-02-03 10:00Z';
    delete from exa_billing.spend_hourly_totals where hour_start = '2025-02-03 11:00Z';
    update exa_billing.spend_daily_totals set total_microdollars = 3 where owner_kind = 'user';
    delete from exa_billing.spend_daily_totals where owner_kind = 'organization';
    delete from exa_billing.spend_hourly_drivers
    where hour_start = '2025-02-03 11:00Z' or (owner_kind = 'user' and hour_start = '2025-02-03 12:00Z');
    update exa_billing.organization_member_usage set microdollars_used = 3 where user_id = 'm1';
    commit";

/// What the views say the two owners were charged in the hours of `BUSY`.
pub fn charged_in_busy_hours(client: &mut Client, view: &str) -> (i64, i64) {
    let of = |client: &mut Client, kind: &str| {
        let sql = format!(
            "select coalesce(sum(total_microdollars), 0)::bigint from exa_billing.{view}
             where owner_kind = $1 and hour_start >= '2025-02-03 10:00Z' and hour_start < '2025-02-03 13:00Z'"
        );
        one(client, &sql, &[&kind])
    };
    (of(client, "user"), of(client, "organization"))
}
