//! The clone guard: background work goes on only where somebody has started it. A restored dump, a copy
//! made from a template or a copy of the disks is somewhere else.

use crate::books;
use crate::error::{BillingError, Kind, Result};
use crate::guc;
use crate::spi::{self, Answer, Statement, values};
use pgrx::prelude::*;
use uuid::Uuid;

const TABLE: &str = "worker_registration";
/// Two at once leave one row.
const LOCK: i32 = 6;

static REGISTERED: Statement = Statement::kept(
    "SELECT system_identifier, database_oid, instance_name, table_oid = tableoid
     FROM exa_billing.worker_registration ORDER BY started_at DESC LIMIT 1",
);
static FORGET: Statement = Statement::kept("DELETE FROM exa_billing.worker_registration");
static REGISTER: Statement = Statement::kept(
    "INSERT INTO exa_billing.worker_registration
         (registration_id, system_identifier, database_oid, table_oid, instance_name, started_at)
     VALUES ($1, $2, $3, 'exa_billing.worker_registration'::regclass, $4, $5)",
);

/// A database on a server, as far as copies can be told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub system_identifier: i64,
    pub database: pg_sys::Oid,
    pub instance: String,
}

/// Whether background work may go on here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Started,
    /// Nobody has called start_worker() here.
    NotStarted,
    /// It was started in another database, of which this one is a copy, or before the books were
    /// restored here.
    Copy,
}

fn here() -> Place {
    let (system_identifier, database) = spi::server_and_database();
    Place { system_identifier, database, instance: guc::instance() }
}

/// On the caller's snapshot.
pub fn standing() -> Result<Standing> {
    if !spi::relation_exists(TABLE) {
        return Ok(Standing::NotStarted);
    }
    let registered = REGISTERED.read_row(&[], |row| {
        let place =
            Place { system_identifier: row.get(1)?, database: row.get(2)?, instance: row.get(3)? };
        // A restore makes the table anew, also in the database that the dump is from.
        Ok((place, row.get::<bool>(4)?))
    })?;
    Ok(match registered {
        None => Standing::NotStarted,
        Some((place, true)) if place == here() => Standing::Started,
        Some(_) => Standing::Copy,
    })
}

/// Whether background work was started here; without books, nothing was. On the caller's snapshot.
pub fn is_started() -> Result<bool> {
    Ok(books::exist() && standing()? == Standing::Started)
}

/// For what must not be done in a copy.
pub fn require_started(function: &str) -> Result<()> {
    let error = |message: String| {
        Err(BillingError::new(Kind::WrongState, message).hint(
            "Call SELECT exa_billing.start_worker(); if this is the database it should work in.",
        ))
    };
    match spi::on_fresh_snapshot(standing)? {
        Standing::Started => Ok(()),
        Standing::NotStarted => error(format!("{function} does nothing before start_worker()")),
        Standing::Copy => error(format!("{function} does nothing in a copy of the database")),
    }
}

/// Lets background work begin here: the worker's, where the library is preloaded and lists this
/// database, and that of run_maintenance().
///
/// Locks: the registration's lock and its row.
#[pg_extern(sql = false)]
fn start_worker() -> Answer<()> {
    books::enter_for_writing("exa_billing.start_worker()")?;
    spi::lock_until_commit(LOCK)?;
    let here = here();
    FORGET.execute(&[])?;
    let (system, database, instance) = (here.system_identifier, here.database, &here.instance);
    REGISTER.execute(values![Uuid::now_v7(), system, database, instance, spi::clock()])?;
    Ok(())
}

/// Stops background work in this database until start_worker() is called again.
///
/// Locks: the registration's lock and its row.
#[pg_extern(sql = false)]
fn stop_worker() -> Answer<()> {
    books::enter_for_writing("exa_billing.stop_worker()")?;
    spi::lock_until_commit(LOCK)?;
    Ok(FORGET.execute(&[])?)
}
