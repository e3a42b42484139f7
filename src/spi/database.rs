//! Databases as wholes: whether one can be entered, and whether somebody wants one for itself.

use super::Failure;
use super::background::transaction;
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};
use std::ffi::CStr;

/// Whether a process can connect to a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Open(pg_sys::Oid),
    /// Nobody may connect to it, or it was left behind by a DROP DATABASE that did not end.
    Closed,
    Missing,
}

/// Looks into the catalog that all databases share; from a background process, between transactions. A
/// process that is in no database can only read that from its beginning to its end: indexes and caches
/// want a database.
pub fn door_of(name: &str) -> std::result::Result<Door, Failure> {
    const INVALID: i32 = -2;
    transaction(|| {
        let mut door = Door::Missing;
        // SAFETY: opened and closed in pairs; each tuple is read before the next one is fetched, and an
        // error closes all of it.
        unsafe {
            let share = pg_sys::AccessShareLock.cast_signed();
            let catalog = pg_sys::table_open(pg_sys::DatabaseRelationId, share);
            let (index, snapshot, keys) =
                (pg_sys::InvalidOid, std::ptr::null_mut(), std::ptr::null_mut());
            let scan = pg_sys::systable_beginscan(catalog, index, false, snapshot, 0, keys);
            loop {
                let tuple = pg_sys::systable_getnext(scan);
                if tuple.is_null() {
                    break;
                }
                let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
                if CStr::from_ptr((*row).datname.data.as_ptr()).to_bytes() == name.as_bytes() {
                    let is_open = (*row).datallowconn && (*row).datconnlimit != INVALID;
                    door = if is_open { Door::Open((*row).oid) } else { Door::Closed };
                }
            }
            pg_sys::systable_endscan(scan);
            pg_sys::table_close(catalog, share);
        }
        Ok(door)
    })
}

/// Whether somebody has this database locked as a whole, or waits for that: DROP DATABASE, ALTER
/// DATABASE … RENAME and SET TABLESPACE, and CREATE DATABASE with it as template. They give the sessions
/// that are in it five seconds to leave, background processes too.
///
/// It tries the lock that every session takes while it connects; one look into the lock table. Where that
/// is full nobody can tell, and it is no reason for a background process to end.
pub fn is_wanted_alone(database: pg_sys::Oid) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: 0, // what all databases share
        locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
        locktag_field3: database.to_u32(),
        locktag_field4: 0,
        locktag_type: u8::try_from(pg_sys::LockTagType::LOCKTAG_OBJECT).unwrap_or_default(),
        locktag_lockmethodid: u8::try_from(pg_sys::DEFAULT_LOCKMETHOD).unwrap_or_default(),
    };
    let lock = pg_sys::RowExclusiveLock.cast_signed();
    // SAFETY: a session's lock, taken without waiting and given back at once; when there is no room for
    // it, nothing was taken when the error is raised.
    let try_lock = || unsafe {
        let had = pg_sys::LockAcquire(&raw const tag, lock, true, true);
        if had == pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL {
            return true;
        }
        pg_sys::LockRelease(&raw const tag, lock, true);
        false
    };
    PgTryBuilder::new(try_lock)
        .catch_when(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, |_| false)
        .execute()
}

/// Whether the extension is in this database: a look into the catalog.
pub fn extension_exists() -> bool {
    // SAFETY: called inside a transaction.
    unsafe { pg_sys::get_extension_oid(c"exa_billing".as_ptr(), true) != pg_sys::InvalidOid }
}
