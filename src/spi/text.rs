//! Statements over tables that are not ours: their text is put together at run time, out of
//! fixed words, quoted names from the catalog and quoted literals.

use super::value::{self, Value};
use super::{c_text, connected, count_of, row};
use crate::error::{BillingError, Result};
use crate::spi::Row;
use pgrx::pg_sys;
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
