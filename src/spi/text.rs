//! Statements over tables that are not ours: their text is put together at run time, out of
//! fixed words, quoted names from the catalog and quoted literals.

use super::value::{self, Value};
use super::{c_text, connected, count_of, failed_code, row};
use crate::error::{BillingError, Result};
use crate::spi::Row;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};

/// All rows of a statement that is planned for this one call, on the caller's snapshot.
pub fn read_text<T>(
    sql: &str,
    arguments: &[Value],
    each: impl FnMut(&Row) -> Result<T>,
) -> Result<Vec<T>> {
    let sql = c_text(sql)?;
    let (mut datums, nulls) = value::datums_and_nulls(arguments);
    let mut types: Vec<pg_sys::Oid> = arguments.iter().map(|value| value.oid).collect();
    connected(|callers_memory| {
        // SAFETY: called between SPI_connect and SPI_finish, with a type and a value for each
        // argument.
        let code = unsafe {
            pg_sys::SPI_execute_with_args(
                sql.as_ptr(),
                count_of(&types),
                types.as_mut_ptr(),
                datums.as_mut_ptr(),
                nulls.as_ptr(),
                true,
                0,
            )
        };
        row::collect(code, callers_memory, each)
    })
}

/// A statement whose rows are fetched a batch at a time, all on the snapshot it was opened on.
pub struct Cursor {
    name: CString,
}

impl Cursor {
    pub fn open(sql: &str, arguments: &[Value]) -> Result<Self> {
        let sql = c_text(sql)?;
        let (mut datums, nulls) = value::datums_and_nulls(arguments);
        let mut types: Vec<pg_sys::Oid> = arguments.iter().map(|value| value.oid).collect();
        connected(|_| {
            // SAFETY: connected, with a type and a value for each argument. The portal outlives the
            // connection; its name is copied before anything else can happen to it.
            let name = unsafe {
                let portal = pg_sys::SPI_cursor_open_with_args(
                    std::ptr::null(),
                    sql.as_ptr(),
                    count_of(&types),
                    types.as_mut_ptr(),
                    datums.as_mut_ptr(),
                    nulls.as_ptr(),
                    true,
                    pg_sys::CURSOR_OPT_NO_SCROLL.cast_signed(),
                );
                CStr::from_ptr((*portal).name).to_owned()
            };
            Ok(Self { name })
        })
    }

    /// The next rows, at most `count`; none at the end.
    pub fn fetch<T>(&self, count: i64, each: impl FnMut(&Row) -> Result<T>) -> Result<Vec<T>> {
        connected(|callers_memory| {
            // SAFETY: connected; the portal is looked up by the name it was opened under.
            unsafe {
                pg_sys::SPI_cursor_fetch(self.portal()?, true, count);
                row::collect(pg_sys::SPI_OK_FETCH.cast_signed(), callers_memory, each)
            }
        })
    }

    /// After an error nobody need call it: the end of the transaction closes it too.
    pub fn close(self) -> Result<()> {
        connected(|_| {
            // SAFETY: as in `fetch`.
            unsafe { pg_sys::SPI_cursor_close(self.portal()?) };
            Ok(())
        })
    }

    fn portal(&self) -> Result<pg_sys::Portal> {
        // SAFETY: looks a name up.
        let portal = unsafe { pg_sys::SPI_cursor_find(self.name.as_ptr()) };
        if portal.is_null() { Err(BillingError::internal("a cursor vanished")) } else { Ok(portal) }
    }
}

/// Runs a piece of work that makes many values in memory of its own, given back at its end. Nothing
/// made by the server may leave it; Rust's own values may.
pub fn in_own_memory<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: created, switched to and deleted in pairs; after an error the end of the transaction
    // deletes it.
    unsafe {
        let callers = pg_sys::CurrentMemoryContext;
        let own = pg_sys::AllocSetContextCreateInternal(
            callers,
            c"exa_billing piece of work".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        pg_sys::MemoryContextSwitchTo(own);
        let outcome = work();
        pg_sys::MemoryContextSwitchTo(callers);
        pg_sys::MemoryContextDelete(own);
        outcome
    }
}

/// What a statement-level trigger was fired by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Insert,
    Update,
    Delete,
    Truncate,
}

/// The running call of a trigger function.
pub struct Trigger {
    data: *mut pg_sys::TriggerData,
}

thread_local! {
    /// Plans over transition tables. Their rows are laid out as those of the table, so each table
    /// has plans of its own; PostgreSQL makes them anew when the table changes.
    static TRIGGER_PLANS: RefCell<HashMap<(pg_sys::Oid, String), pg_sys::SPIPlanPtr>> =
        RefCell::default();
}

impl Trigger {
    /// The trigger this function was called by; None when it was called otherwise.
    pub fn called(call: pg_sys::FunctionCallInfo) -> Option<Self> {
        // SAFETY: `call` is the running call; its context is a TriggerData when its tag says so.
        unsafe {
            let context = (*call).context;
            let is_trigger =
                !context.is_null() && (*context).type_ == pg_sys::NodeTag::T_TriggerData;
            is_trigger.then(|| Self { data: context.cast() })
        }
    }

    pub fn event(&self) -> Event {
        // SAFETY: the trigger data lives as long as the call.
        match unsafe { (*self.data).tg_event } & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => Event::Insert,
            pg_sys::TRIGGER_EVENT_DELETE => Event::Delete,
            pg_sys::TRIGGER_EVENT_UPDATE => Event::Update,
            _ => Event::Truncate,
        }
    }

    pub fn relation(&self) -> pg_sys::Oid {
        // SAFETY: as above; a trigger has its relation open.
        unsafe { (*(*self.data).tg_relation).rd_id }
    }

    pub fn name(&self) -> String {
        // SAFETY: as above; a trigger has a name.
        let name = unsafe { std::ffi::CStr::from_ptr((*(*self.data).tg_trigger).tgname) };
        name.to_string_lossy().into_owned()
    }

    /// FOR EACH ROW; otherwise FOR EACH STATEMENT.
    pub fn is_of_rows(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.data).tg_event & pg_sys::TRIGGER_EVENT_ROW != 0 }
    }

    /// The first argument of CREATE TRIGGER … EXECUTE FUNCTION f(…).
    pub fn argument(&self) -> Option<String> {
        // SAFETY: as above; tgargs has tgnargs C strings.
        unsafe {
            let trigger = (*self.data).tg_trigger;
            if (*trigger).tgnargs < 1 {
                return None;
            }
            let argument = std::ffi::CStr::from_ptr(*(*trigger).tgargs);
            Some(argument.to_string_lossy().into_owned())
        }
    }

    /// All rows of a statement over the transition tables; its plan is kept.
    pub fn read<T>(
        &self,
        sql: String,
        arguments: &[Value],
        each: impl FnMut(&Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        let (mut datums, nulls) = value::datums_and_nulls(arguments);
        connected(|callers_memory| {
            // SAFETY: connected; the trigger's tables are known to this connection from here on.
            let code = unsafe { pg_sys::SPI_register_trigger_data(self.data) };
            if code < 0 {
                return Err(failed_code("see the rows of", code));
            }
            let plan = self.plan(sql, arguments)?;
            // SAFETY: prepared for exactly these argument types, in this backend.
            let code = unsafe {
                pg_sys::SPI_execute_plan(plan, datums.as_mut_ptr(), nulls.as_ptr(), true, 0)
            };
            row::collect(code, callers_memory, each)
        })
    }

    fn plan(&self, sql: String, arguments: &[Value]) -> Result<pg_sys::SPIPlanPtr> {
        let key = (self.relation(), sql);
        if let Some(plan) = TRIGGER_PLANS.with_borrow(|plans| plans.get(&key).copied()) {
            return Ok(plan);
        }
        let text = c_text(&key.1)?;
        let mut types: Vec<pg_sys::Oid> = arguments.iter().map(|value| value.oid).collect();
        // SAFETY: connected; the kept plan is ours until exit.
        let plan = unsafe {
            let plan = pg_sys::SPI_prepare(text.as_ptr(), count_of(&types), types.as_mut_ptr());
            if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
                return Err(failed_code("prepare", pg_sys::SPI_result));
            }
            plan
        };
        TRIGGER_PLANS.with_borrow_mut(|plans| plans.insert(key, plan));
        Ok(plan)
    }
}
