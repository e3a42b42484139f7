//! The one helper through which everything reads and writes.
//!
//! A [`Statement`] is SQL text with a plan that is kept for the life of the backend. It is run
//! in one of two ways, and the difference is what keeps figures exact:
//!
//! * `read` runs on the snapshot of the statement that called us (`read_only = true`, always).
//!   All statements of one reading function then see the same state, also after a write earlier
//!   in the transaction. No transaction id is taken, so it works on a hot standby.
//! * `write` takes a fresh snapshot (at READ COMMITTED) and sees what this transaction wrote so
//!   far. Decisions inside a writing function are made this way, after their locks are held.
//!
//! Everything unsafe that talks to the executor lives in this room.

mod append;
mod argument;
mod background;
mod command;
mod database;
mod error_report;
mod kept;
mod lock;
mod lookup;
mod names;
mod range;
mod relation;
mod result;
mod rights;
mod row;
mod session;
mod subtransaction;
mod sums;
mod text;
mod trigger;
mod value;
mod walk;

pub use append::Appended;
pub use background::{
    as_books_owner, listen_to_signals, log_news, oldest_transaction_start, pin_settings,
    reload_if_asked, rows_kept_since, show_activity, warn,
};
pub use command::concurrent_detach;
pub use database::{Door, door_of, extension_exists, is_wanted_alone};
pub use error_report::Answer;
pub use lock::{Impatience, RowsCounted, TableLock, lock_for_writing};
pub use lookup::{Key, Lookup};
pub use names::{init, place_of, relation_exists};
pub use range::{Cells, Range};
pub use result::{Composite, RowSet, uuid};
pub use rights::{
    as_books_role, as_calling_superuser, as_table_owner, caller_is_superuser, outer_role,
};
pub use row::Row;
pub use session::{
    LOCK_NAMESPACE, SessionLock, clock, in_own_memory, in_recovery, is_subscriber, keeps_snapshot,
    on_fresh_snapshot, on_latest_snapshot, own_transaction_id, require_read_committed,
    require_writable, see_what_others_committed, server_and_database, setting, statement_time,
    transaction_id, transaction_time, with_iso_dates,
};
pub use subtransaction::{Failure, in_subtransaction};
pub use sums::{Addition, Sums};
pub use text::{Cursor, read_text};
pub use trigger::{Event, Trigger};
pub use value::{Json, Value};
pub use walk::Guide;

use crate::error::{BillingError, Result};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;

/// Turns a list of Rust values into statement arguments or result columns.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::spi::Value::from($value)),*] };
}
pub(crate) use values;

/// How a statement is planned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planning {
    /// One plan for all arguments, made once: what the charging path needs.
    Kept,
    /// As `Kept`, for statements over `unposted_spend`. The queue is empty most of the time; a
    /// plan made then would be a sequential scan, and ruinous once 500,000 rows wait.
    KeptIndexed,
    /// Planned at each call, so that partitions are pruned before they are locked.
    Fresh,
    /// As `Fresh`, for statements that read journals and queue.
    FreshIndexed,
}

/// SQL text with its way of planning; always a `static`, whose address names the kept plan.
pub struct Statement {
    sql: &'static str,
    planning: Planning,
}

thread_local! {
    static KEPT_PLANS: RefCell<HashMap<*const Statement, pg_sys::SPIPlanPtr>> = RefCell::default();
}

impl Statement {
    pub const fn kept(sql: &'static str) -> Self {
        Self { sql, planning: Planning::Kept }
    }

    pub const fn over_queue(sql: &'static str) -> Self {
        Self { sql, planning: Planning::KeptIndexed }
    }

    pub const fn fresh(sql: &'static str) -> Self {
        Self { sql, planning: Planning::Fresh }
    }

    pub const fn fresh_over_queue(sql: &'static str) -> Self {
        Self { sql, planning: Planning::FreshIndexed }
    }

    /// All rows, on the caller's snapshot.
    pub fn read<T>(
        &'static self,
        arguments: &[Value],
        each: impl FnMut(&Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.run(arguments, true, each)
    }

    /// The only row, or none, on the caller's snapshot.
    pub fn read_row<T>(
        &'static self,
        arguments: &[Value],
        each: impl FnMut(&Row) -> Result<T>,
    ) -> Result<Option<T>> {
        only(self.read(arguments, each)?)
    }

    /// All rows, on a fresh snapshot; may write.
    pub fn write<T>(
        &'static self,
        arguments: &[Value],
        each: impl FnMut(&Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.run(arguments, false, each)
    }

    /// The only row, or none, on a fresh snapshot; may write.
    pub fn write_row<T>(
        &'static self,
        arguments: &[Value],
        each: impl FnMut(&Row) -> Result<T>,
    ) -> Result<Option<T>> {
        only(self.write(arguments, each)?)
    }

    /// Writes and tells nothing back.
    pub fn execute(&'static self, arguments: &[Value]) -> Result<()> {
        self.write(arguments, |_| Ok(())).map(drop)
    }

    fn run<T>(
        &'static self,
        arguments: &[Value],
        read_only: bool,
        each: impl FnMut(&Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        let (mut datums, nulls) = value::datums_and_nulls(arguments);
        let over_queue = matches!(self.planning, Planning::KeptIndexed | Planning::FreshIndexed);
        let _scans = over_queue.then(IndexScansOnly::begin);
        connected(|callers_memory| {
            let plan = self.plan(arguments)?;
            // SAFETY: the plan was prepared for exactly these argument types, in this backend.
            let code = unsafe {
                pg_sys::SPI_execute_plan(plan, datums.as_mut_ptr(), nulls.as_ptr(), read_only, 0)
            };
            row::collect(code, callers_memory, each)
        })
    }

    fn plan(&'static self, arguments: &[Value]) -> Result<pg_sys::SPIPlanPtr> {
        if let Some(plan) =
            KEPT_PLANS.with_borrow(|plans| plans.get(&std::ptr::from_ref(self)).copied())
        {
            return Ok(plan);
        }
        let options = match self.planning {
            Planning::Kept | Planning::KeptIndexed => pg_sys::CURSOR_OPT_GENERIC_PLAN,
            Planning::Fresh | Planning::FreshIndexed => pg_sys::CURSOR_OPT_CUSTOM_PLAN,
        };
        let sql = c_text(self.sql)?;
        let mut types: Vec<pg_sys::Oid> = arguments.iter().map(|value| value.oid).collect();
        // SAFETY: called between SPI_connect and SPI_finish; the kept plan is ours until exit.
        let plan = unsafe {
            let plan = pg_sys::SPI_prepare_cursor(
                sql.as_ptr(),
                count_of(&types),
                types.as_mut_ptr(),
                options.cast_signed(),
            );
            if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
                return Err(failed_code("prepare", pg_sys::SPI_result));
            }
            plan
        };
        KEPT_PLANS.with_borrow_mut(|plans| plans.insert(std::ptr::from_ref(self), plan));
        Ok(plan)
    }
}

/// Takes one of the product's advisory locks until the transaction ends.
pub fn lock_until_commit(number: i32) -> Result<()> {
    static LOCK: Statement = Statement::kept("SELECT pg_catalog.pg_advisory_xact_lock($1, $2)");
    LOCK.execute(values![LOCK_NAMESPACE, number])
}

/// The same without waiting: whether it was had.
pub fn try_lock_until_commit(number: i32) -> Result<bool> {
    static TRY: Statement = Statement::kept("SELECT pg_catalog.pg_try_advisory_xact_lock($1, $2)");
    Ok(TRY.write_row(values![LOCK_NAMESPACE, number], |row| row.get(1))? == Some(true))
}

/// Runs one or several statements without arguments and without results: DDL, put together out of
/// fixed texts, names from the calendar and names that are quoted.
pub fn run_script(sql: &str) -> Result<()> {
    let sql = c_text(sql)?;
    connected(|_| {
        // SAFETY: called between SPI_connect and SPI_finish.
        let code = unsafe { pg_sys::SPI_execute(sql.as_ptr(), false, 0) };
        if code < 0 { Err(failed_code("run", code)) } else { Ok(()) }
    })
}

/// Connects for the time of `work`. When a statement raises, the unwinding passes through here
/// and the end of the (sub)transaction cleans the connection up.
///
/// `work` gets the caller's memory context: what is made out of rows must outlive the connection.
fn connected<T>(work: impl FnOnce(pg_sys::MemoryContext) -> Result<T>) -> Result<T> {
    // SAFETY: a matching SPI_finish follows on every path that does not raise.
    unsafe {
        let callers_memory = pg_sys::CurrentMemoryContext;
        pg_sys::SPI_connect();
        let outcome = work(callers_memory);
        pg_sys::SPI_finish();
        outcome
    }
}

/// Turns off, for the planner and while it lives, every way of reading that goes through a whole
/// table: sequential and bitmap scans, and joins that want both sides complete.
///
/// The switches are set directly, as a setting of the planner and not of the session: nobody
/// else sees them, and a raised error restores them on its way out.
struct IndexScansOnly {
    before: PlannerSwitches,
}

#[derive(Clone, Copy)]
struct PlannerSwitches {
    seqscan: bool,
    bitmapscan: bool,
    mergejoin: bool,
    hashjoin: bool,
}

impl PlannerSwitches {
    /// Puts these in place; returns those that were there.
    fn put(self) -> Self {
        // SAFETY: a backend has one thread.
        unsafe {
            let before = Self {
                seqscan: pg_sys::enable_seqscan,
                bitmapscan: pg_sys::enable_bitmapscan,
                mergejoin: pg_sys::enable_mergejoin,
                hashjoin: pg_sys::enable_hashjoin,
            };
            pg_sys::enable_seqscan = self.seqscan;
            pg_sys::enable_bitmapscan = self.bitmapscan;
            pg_sys::enable_mergejoin = self.mergejoin;
            pg_sys::enable_hashjoin = self.hashjoin;
            before
        }
    }
}

impl IndexScansOnly {
    fn begin() -> Self {
        let off = PlannerSwitches {
            seqscan: false,
            bitmapscan: false,
            mergejoin: false,
            hashjoin: false,
        };
        Self { before: off.put() }
    }
}

impl Drop for IndexScansOnly {
    fn drop(&mut self) {
        self.before.put();
    }
}

fn only<T>(rows: Vec<T>) -> Result<Option<T>> {
    if rows.len() > 1 {
        return Err(BillingError::internal(format!("expected one row, got {}", rows.len())));
    }
    Ok(rows.into_iter().next())
}

fn c_text(sql: &str) -> Result<CString> {
    CString::new(sql).map_err(|_| BillingError::internal("SQL text with a zero byte"))
}

fn count_of<T>(items: &[T]) -> i32 {
    i32::try_from(items.len()).expect("statements have few arguments")
}

fn failed_code(what: &str, code: i32) -> BillingError {
    BillingError::internal(format!("SPI could not {what} a statement (code {code})"))
}
