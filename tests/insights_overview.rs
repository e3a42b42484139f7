//! The overview: what it shows, that its figures are those of the other functions, and that they are
//! of one snapshot.

mod common;
mod evidence_common;
mod insights_common;
mod sessions;
mod usage_common;

use common::{one, run_sql};
use evidence_common::{books, cover_from, degrade, post_all};
use insights_common::{alerts_and_suggestions, charge};
use postgres::Client;
use sessions::beside;
use std::collections::BTreeSet;
use usage_common::{assert_books_hold, column};

const USD: i64 = 1_000_000;

#[test]
fn the_overview_shows_alerts_suggestions_settings_and_how_they_stand() {
    let (_db, mut c) = books();
    alerts_and_suggestions(&mut c);
    run_sql(
        &mut c,
        "insert into spend_alert_settings
             (owner_kind, owner_id, spend_alerts_enabled, anomaly_alerts_enabled, cost_suggestions_enabled,
              threshold_24h_microdollars, threshold_7d_microdollars, threshold_30d_microdollars, changed_at)
         values ('user', 'u', true, false, true, 25000000, 26000000, null, now());
         insert into spend_alert_states (owner_kind, owner_id, last_evaluated_at)
         values ('user', 'u', '2026-05-04 03:02:01Z');
         update spend_alert_episodes set reviewed_at = now(), reviewed_by_user_id = 'r'
         where alert_kind = 'threshold_24h';
         delete from spend_alert_episodes where alert_kind in ('anomaly', 'threshold_7d');
         select grant_credit('user', 'u', 5);
         update accounts set minimum_balance_microdollars = 6",
    );
    let part = |c: &mut Client, path: &str| -> String {
        let sql = "select cost_insights_overview('user', 'u') #>> string_to_array($1, ' ')";
        one::<Option<String>>(c, sql, &[&path]).unwrap_or_else(|| "-".to_owned())
    };
    for (path, expected) in [
        ("owner owner_id", "u"),
        ("settings spend_alerts_enabled", "true"),
        ("settings threshold_7d_microdollars", "26000000"),
        ("settings threshold_30d_microdollars", "-"),
        ("settings minimum_balance_microdollars", "6"),
        ("status anomaly", "off"),
        ("status threshold_24h", "reviewed"),
        ("status threshold_7d", "quiet"),
        ("status threshold_30d", "review"),
        ("status balance", "low"),
        ("status last_evaluated_at", "2026-05-04T03:02:01Z"),
        ("metrics balance_microdollars", "5"),
        ("alerts 0 alert_kind", "threshold_24h"),
        ("alerts 0 title", "Spend of the last 24 hours reached its threshold"),
        ("alerts 0 description", "30.00 USD in the last 24 hours. The threshold is 25.00 USD."),
        ("alerts 0 figures total_microdollars", "30000000"),
        ("alerts 0 reviewed_by_user_id", "r"),
        ("alerts 1 alert_kind", "threshold_30d"),
        ("alerts 1 reviewed_at", "-"),
        ("alerts 2", "-"),
        ("suggestions 0 suggestion_kind", "kilo_pass"),
        ("suggestions 0 target", "pass"),
        ("suggestions 0 title", "The pass"),
        ("suggestions 0 description", "-"),
        ("suggestions 0 extra", "-"),
        ("suggestions 0 link", "/pass"),
        ("suggestions 0 observed_microdollars", "106900000"),
        ("suggestions 0 pace_30d_microdollars", "458142857"),
        ("suggestions 0 driver", "-"),
        ("suggestions 1", "-"),
    ] {
        assert_eq!(part(&mut c, path), expected, "{path}");
    }
    run_sql(&mut c, "update spend_alert_settings set cost_suggestions_enabled = false");
    assert_eq!(part(&mut c, "suggestions 0"), "-");
    // An owner of whom nobody knows has the defaults.
    let defaults: String = one(
        &mut c,
        "select concat_ws(' ', d #>> '{settings,spend_alerts_enabled}', d #>> '{settings,anomaly_alerts_enabled}',
                d #>> '{settings,cost_suggestions_enabled}', d #>> '{status,anomaly}', d #>> '{status,balance}',
                d #>> '{metrics,balance_microdollars}', d ->> 'alerts')
         from cost_insights_overview('organization', 'nobody') as d",
        &[],
    );
    assert_eq!(defaults, "false true true off off 0 []");
}

/// What differs between an overview and the functions that show the same one by one.
const DIFFERENCES: &str = "
    with o as (select exa_billing.cost_insights_overview('user', 'u', $1) as d),
    ranges as (
        select 'range ' || r as what, o.d #> array['ranges', r] as shown,
               exa_billing.spend_evidence('user', 'u', r, $1) as told
        from o, unnest(array['1h', '24h', '7d', '30d', '90d']) as r
    ), rolling as (
        select 'rolling ' || name as what, (o.d #> array['metrics', name]) - 'from_time' - 'to_time' as shown,
               to_jsonb(w) as told
        from o, (values ('24h', 24), ('7d', 168), ('30d', 720)) as v(name, hours),
             exa_billing.rolling_spend('user', 'u', hours * interval '1 hour', $1) as w
    ), hour as (
        select 'hour', (o.d #> '{metrics,current_hour}') - 'from_time' - 'to_time' - 'is_complete',
               exa_billing.spend_evidence('user', 'u', '1h', $1) -> 'totals'
        from o
    ), balance as (
        select 'balance', o.d #> '{metrics,balance_microdollars}',
               to_jsonb((exa_billing.account_balance('user', 'u', $1)).balance_microdollars)
        from o
    )
    select what || ': ' || coalesce(shown::text, 'null') || ' <> ' || coalesce(told::text, 'null')
    from (select * from ranges union all select * from rolling union all select * from hour
          union all select * from balance) as c(what, shown, told)
    where shown is distinct from told";

fn assert_same_figures(c: &mut Client, as_of: &str) {
    let sql = DIFFERENCES.replace("$1", as_of);
    assert_eq!(column::<String>(c, &sql), [""; 0], "{as_of}");
}

#[test]
fn the_overview_has_the_figures_of_the_other_functions() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "select grant_credit('user', 'u', 900), grant_credit('user', 'u', 1000000000,
             at('1 day'), created_at => at('-95 days'))",
    );
    let hours = [0, 1, 23, 24, 25, 167, 168, 169, 719, 720, 721, 2159, 2160];
    for (place, hour) in (0_i64..).zip(hours) {
        for (minute, more) in [(0, 1), (29, 10), (31, 100), (59, 1000)] {
            let at = format!("at('12:30') - interval '{hour} hours {minute} minutes'");
            charge(&mut c, 10_000 * place + more, &format!("m{}", place % 4), &at);
        }
        if place == 6 {
            post_all(&mut c);
        }
    }
    let instants =
        ["at('12:30')", "at('12:00')", "at('12:30:00.000001')", "at('5 days 23:59')", "now()"];
    for as_of in instants {
        assert_same_figures(&mut c, as_of);
    }
    // Where hours are not to be trusted, and where nothing is known.
    degrade(&mut c, "'user', 'u'", "-8 days", "-6 days");
    degrade(&mut c, "null, null", "12:00", "15:00");
    for cover in ["-100 days", "-20 days", "-1 hour", "13:00", "20 days"] {
        cover_from(&mut c, cover);
        for as_of in instants {
            assert_same_figures(&mut c, as_of);
        }
    }
    assert_books_hold(&mut c);
}

#[test]
fn the_overview_shows_one_snapshot_whatever_is_charged_meanwhile() {
    let (db, mut c) = books();
    run_sql(&mut c, "select grant_credit('user', 'u', 1000000000)");
    let charge_one = |client: &mut Client| {
        charge(client, 2 * USD, "m", "clock_timestamp()");
        charge(client, USD + 1, "n", "clock_timestamp()");
    };
    let post = |client: &mut Client| {
        let _: i64 = one(client, "select exa_billing.post_spend(7)", &[]);
    };
    let sums = "
        select array[
            1000000000 - (d #>> '{metrics,balance_microdollars}')::bigint,
            (d #>> '{metrics,24h,total_microdollars}')::bigint,
            (d #>> '{metrics,30d,total_microdollars}')::bigint,
            (d #>> '{ranges,24h,totals,total_microdollars}')::bigint,
            (d #>> '{ranges,90d,totals,total_microdollars}')::bigint,
            (select sum((b ->> 'total_microdollars')::bigint)::bigint
             from jsonb_array_elements(d #> '{ranges,7d,series}') as b),
            (select sum((t ->> 'total_microdollars')::bigint)::bigint
             from jsonb_path_query(d, '$.ranges.\"90d\".top_drivers.*[*]') as t)]
        from exa_billing.cost_insights_overview('user', 'u', clock_timestamp() + interval '1 minute') as d";
    let mut seen = BTreeSet::new();
    beside(&db, &[&charge_one, &post], || {
        while seen.len() < 40 {
            let sums: Vec<Option<i64>> = one(&mut c, sums, &[]);
            let known: BTreeSet<i64> = sums.iter().map(|sum| sum.unwrap_or_default()).collect();
            assert_eq!(known.len(), 1, "{sums:?}");
            seen.extend(known);
        }
    });
    post_all(&mut c);
    assert_books_hold(&mut c);
}
