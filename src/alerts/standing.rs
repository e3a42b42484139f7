//! What is known of owners before their spend is looked at: settings, state, episodes.

use super::decision::{Episode, Episodes, Standing};
use super::settings_rules::Settings;
use crate::accounts;
use crate::error::{BillingError, Result};
use crate::events::AlertKind;
use crate::owner::Owner;
use crate::spi::{Row, Statement, values};
use crate::time::Instant;

static SETTINGS: Statement = Statement::over_queue(
    "SELECT (o.place - 1)::int, s.spend_alerts_enabled, s.anomaly_alerts_enabled,
            s.cost_suggestions_enabled, s.threshold_24h_microdollars, s.threshold_7d_microdollars,
            s.threshold_30d_microdollars, a.minimum_balance_microdollars
     FROM unnest($1, $2) WITH ORDINALITY AS o(owner_kind, owner_id, place)
     LEFT JOIN exa_billing.spend_alert_settings AS s USING (owner_kind, owner_id)
     LEFT JOIN exa_billing.accounts AS a USING (owner_kind, owner_id)",
);
static STATES: Statement = Statement::over_queue(
    "SELECT (o.place - 1)::int, s.last_evaluated_at, s.last_anomaly_hour
     FROM unnest($1, $2) WITH ORDINALITY AS o(owner_kind, owner_id, place)
     JOIN exa_billing.spend_alert_states AS s USING (owner_kind, owner_id)",
);
static EPISODES: Statement = Statement::over_queue(
    "SELECT (o.place - 1)::int, e.alert_kind, e.event_id, e.threshold_microdollars, e.hour_start
     FROM unnest($1, $2) WITH ORDINALITY AS o(owner_kind, owner_id, place)
     JOIN exa_billing.spend_alert_episodes AS e USING (owner_kind, owner_id)",
);

/// An owner as an evaluation or a change of settings finds it.
#[derive(Debug, Clone)]
pub struct Known {
    pub owner: Owner,
    pub standing: Standing,
    pub last_evaluated_at: Option<Instant>,
}

/// Of each owner, in their order; on the caller's snapshot.
pub fn read(owners: &[Owner]) -> Result<Vec<Known>> {
    let (kinds, ids) = accounts::columns(owners);
    let mut known: Vec<Known> = owners.iter().map(unknown).collect();
    SETTINGS.read(values![kinds.clone(), ids.clone()], |row| {
        at(&mut known, row)?.standing.settings = settings(row)?;
        Ok(())
    })?;
    STATES.read(values![kinds.clone(), ids.clone()], |row| {
        let one = at(&mut known, row)?;
        one.last_evaluated_at = row.maybe(2)?;
        one.standing.last_anomaly_hour = row.maybe(3)?;
        Ok(())
    })?;
    EPISODES.read(values![kinds, ids], |row| {
        let kind = AlertKind::from_books(&row.get::<String>(2)?)
            .ok_or_else(|| BillingError::internal("an episode of an unknown kind"))?;
        let episode =
            Episode { event_id: row.get(3)?, threshold: row.get(4)?, hour: row.maybe(5)? };
        at(&mut known, row)?.standing.episodes.insert(kind, episode);
        Ok(())
    })?;
    Ok(known)
}

/// As of when each of them was last evaluated; on the caller's snapshot. It reads nothing that could
/// make one owner fail for all.
pub fn last_evaluations(owners: &[Owner]) -> Result<Vec<Option<Instant>>> {
    let (kinds, ids) = accounts::columns(owners);
    let mut last = vec![None; owners.len()];
    STATES.read(values![kinds, ids], |row| {
        *at(&mut last, row)? = row.maybe(2)?;
        Ok(())
    })?;
    Ok(last)
}

/// What one owner wants to be told of: all that an end user may ask.
pub fn settings_of(owner: &Owner) -> Result<Settings> {
    let arguments = values![vec![owner.kind.as_str()], vec![owner.id.as_str()]];
    Ok(SETTINGS.read_row(arguments, settings)?.unwrap_or_default())
}

fn unknown(owner: &Owner) -> Known {
    let standing = Standing {
        settings: Settings::default(),
        episodes: Episodes::new(),
        last_anomaly_hour: None,
    };
    Known { owner: owner.clone(), standing, last_evaluated_at: None }
}

/// The element that a row's first column is about.
pub fn at<'a, T>(elements: &'a mut [T], row: &Row) -> Result<&'a mut T> {
    let place = usize::try_from(row.get::<i32>(1)?).ok();
    place
        .and_then(|place| elements.get_mut(place))
        .ok_or_else(|| BillingError::internal("a row of an owner nobody asked for"))
}

fn settings(row: &Row) -> Result<Settings> {
    let default = Settings::default();
    Ok(Settings {
        spend_alerts: row.maybe(2)?.unwrap_or(default.spend_alerts),
        anomaly_alerts: row.maybe(3)?.unwrap_or(default.anomaly_alerts),
        suggestions: row.maybe(4)?.unwrap_or(default.suggestions),
        thresholds: [row.maybe(5)?, row.maybe(6)?, row.maybe(7)?],
        minimum_balance: row.maybe(8)?,
    })
}
