//! What the tests of readers of events, alerts and suggestions share.
#![allow(dead_code)] // each test program uses a part of it

use crate::common::run_sql;
use postgres::{Client, GenericClient};

/// An event so long before this minute.
pub fn event(c: &mut impl GenericClient, owner: &str, event_type: &str, ago: &str) {
    run_sql(
        c,
        &format!(
            "insert into exa_billing.cost_insight_events
                 (event_id, owner_kind, owner_id, event_type, snapshot, occurred_at, recorded_at)
             values (gen_random_uuid(), {owner}, '{event_type}', '{{}}',
                     date_trunc('minute', now()) - interval '{ago}', now())"
        ),
    );
}

/// Four alerts, and a suggestion of each status.
pub fn alerts_and_suggestions(c: &mut Client) {
    run_sql(
        c,
        "insert into spend_alert_episodes
             (owner_kind, owner_id, alert_kind, event_id, threshold_microdollars, hour_start, started_at,
              snapshot)
         select 'user', 'u', kind, gen_random_uuid(), 25000000,
                case kind when 'anomaly' then date_trunc('hour', now(), 'UTC') end,
                now() - place * interval '1 minute',
                jsonb_build_object('window', substr(kind, 11), 'total_microdollars', 30000000,
                    'threshold_microdollars', 25000000)
         from unnest(array['anomaly', 'threshold_24h', 'threshold_7d', 'threshold_30d'])
             with ordinality as k(kind, place);
         insert into cost_suggestions
             (suggestion_id, owner_kind, owner_id, suggestion_kind, target, status, observed_microdollars,
              price_microdollars, window_start, window_end, driver, content, created_at, grounded_at, ended_at)
         select gen_random_uuid(), 'user', 'u', 'kilo_pass', 'pass', status, 106900000, 199000000,
                now() - interval '168 hours', now(), null,
                '{\"title\": \"The pass\", \"link\": \"/pass\", \"extra\": 1}', now(), now(),
                case when status <> 'open' then now() end
         from unnest(array['open', 'closed', 'dismissed']) as status",
    );
}

/// A charge of user `u`, of an odd amount a scheduled one.
pub fn charge(c: &mut impl GenericClient, amount: i64, model: &str, at: &str) {
    run_sql(
        c,
        &format!(
            "select exa_billing.record_spend('user', 'u', {amount},
                    (array['variable', 'scheduled'])[1 + {amount} % 2], 'ai_gateway', 'p',
                    model_or_plan_key => '{model}', created_at => {at})"
        ),
    );
}
