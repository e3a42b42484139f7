//! What a migration must leave as it was: the books' totals and promises, compared before and after.

use super::moved::{self, Figure};
use super::{migrations, needs};
use crate::error::{BillingError, Kind, Result};
use crate::spi::{self, Row, RowsCounted, Statement, values};

static TOTALS: Statement = Statement::fresh(include_str!("../../sql/statements/totals.sql"));
static TOTALS_OF_ALERTS: Statement =
    Statement::fresh(include_str!("../../sql/statements/totals_of_alerts.sql"));
static JOURNALS: Statement =
    Statement::fresh(include_str!("../../sql/statements/untouched_journals.sql"));
static VIOLATIONS: Statement = Statement::fresh(include_str!("../../sql/verify/owners.sql"));

/// The state of the books before a migration.
pub struct Totals {
    has_alerts: bool,
    figures: Vec<Figure>,
    violations: Vec<String>,
    _counted: RowsCounted,
}

impl Totals {
    /// Reads every table but the journals once; nobody may write to them meanwhile and until
    /// `require_unmoved`.
    pub fn take() -> Result<Self> {
        let _counted = RowsCounted::begin();
        let has_alerts = migrations::have_reached(needs::WITH_ALERTS);
        let figures = figures(has_alerts)?;
        Ok(Self { has_alerts, figures, violations: violations()?, _counted })
    }

    /// Fails when a figure is another one by now, or a promise is broken that was kept.
    pub fn require_unmoved(self) -> Result<()> {
        let after = figures(self.has_alerts)?;
        let mut moved = moved::figures(&self.figures, &after);
        moved.extend(moved::violations(&self.violations, &violations()?));
        if moved.is_empty() {
            return Ok(());
        }
        Err(BillingError::new(Kind::WrongState, "the migration has moved figures of the books")
            .detail(moved::in_words(&moved))
            .hint("Nothing was changed. See whether an event trigger writes to the books: SELECT evtname, evtfoid::regproc FROM pg_event_trigger; then call SELECT exa_billing.setup(); again."))
    }
}

fn figure(row: &Row) -> Result<Figure> {
    Ok(Figure { name: row.get(1)?, value: row.maybe(2)? })
}

fn figures(has_alerts: bool) -> Result<Vec<Figure>> {
    let mut figures = TOTALS.write(&[], figure)?;
    if has_alerts {
        figures.extend(TOTALS_OF_ALERTS.write(&[], figure)?);
    }
    figures.extend(JOURNALS.write(&[], figure)?);
    Ok(figures)
}

/// The broken promises that need no journal to be seen.
fn violations() -> Result<Vec<String>> {
    let everybody: Option<&str> = None;
    let place = spi::place_of("unposted_spend");
    VIOLATIONS.write(values![everybody, Vec::<&str>::new(), place], |row| {
        let columns: Result<Vec<Option<String>>> =
            (1..=7).map(|column| row.maybe(column)).collect();
        Ok(columns?.into_iter().flatten().collect::<Vec<_>>().join(" "))
    })
}
