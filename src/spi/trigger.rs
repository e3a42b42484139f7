//! The running call of a trigger function, and statements over what fired it.

use super::value::{self, Value};
use super::{c_text, connected, count_of, failed_code, row};
use crate::error::{BillingError, Kind, Result};
use crate::spi::Row;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;

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
    /// The trigger this function was called by.
    pub fn that_calls(call: pg_sys::FunctionCallInfo) -> Result<Self> {
        // SAFETY: `call` is the running call; its context is a TriggerData when its tag says so.
        let trigger = unsafe {
            let context = (*call).context;
            let is_trigger =
                !context.is_null() && (*context).type_ == pg_sys::NodeTag::T_TriggerData;
            is_trigger.then(|| Self { data: context.cast() })
        };
        trigger.ok_or_else(|| {
            BillingError::new(Kind::WrongState, "this function is called by triggers only")
        })
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

    pub fn table_name(&self) -> String {
        // SAFETY: as above; a relation has a name.
        let name =
            unsafe { CStr::from_ptr((*(*(*self.data).tg_relation).rd_rel).relname.data.as_ptr()) };
        name.to_string_lossy().into_owned()
    }

    pub fn name(&self) -> String {
        // SAFETY: as above; a trigger has a name.
        let name = unsafe { CStr::from_ptr((*(*self.data).tg_trigger).tgname) };
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
            let argument = CStr::from_ptr(*(*trigger).tgargs);
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
