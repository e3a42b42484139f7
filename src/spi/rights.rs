//! With whose rights work is done.

use crate::error::{BillingError, Result};
use pgrx::pg_sys;

/// Runs `work` with the rights of a table's owner and no others: what somebody may have hidden in
/// an index expression or a constraint then runs as who put it there. Rows are never filtered by a
/// policy: the statement fails instead. No setting stays that such code changes.
pub fn as_table_owner<T>(owner: pg_sys::Oid, work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: the setting's level is opened and closed in pairs; an error that passes through
    // closes it when the transaction aborts.
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            c"row_security".as_ptr(),
            c"off".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        let outcome = with_rights_of(owner, pg_sys::SECURITY_RESTRICTED_OPERATION, work);
        // What hidden code has set ends here too: a search_path of its choice would be our caller's.
        pg_sys::AtEOXact_GUC(false, level);
        outcome
    }
}

/// The role that calls, whatever SECURITY DEFINER functions it went through: the one it logged in
/// as, or has chosen with SET ROLE.
pub fn outer_role() -> pg_sys::Oid {
    // SAFETY: reads this backend's own state.
    unsafe { pg_sys::GetOuterUserId() }
}

/// Runs `work` with the rights of the role that calls where that is a superuser, and otherwise with
/// those there are: what a superuser gives so, every superuser can take away again.
pub fn as_calling_superuser<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    if caller_is_superuser() { with_rights_of(outer_role(), 0, work) } else { work() }
}

/// Whether the role outside of the function is a superuser.
pub fn caller_is_superuser() -> bool {
    // SAFETY: a look-up in the catalog cache.
    unsafe { pg_sys::superuser_arg(outer_role()) }
}

/// Runs `work` as exa_billing_owner, in a function that otherwise has its caller's rights.
pub fn as_books_role<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: a look-up in the catalog cache.
    let owner = unsafe { pg_sys::get_role_oid(c"exa_billing_owner".as_ptr(), true) };
    if owner == pg_sys::InvalidOid {
        return Err(BillingError::internal("role exa_billing_owner does not exist"));
    }
    with_rights_of(owner, 0, work)
}

pub(super) fn with_rights_of<T>(
    role: pg_sys::Oid,
    flags: u32,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    // SAFETY: put back however `work` returns; an error that passes through restores the identity
    // when the (sub)transaction aborts.
    unsafe {
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        let flags = (flags | pg_sys::SECURITY_LOCAL_USERID_CHANGE).cast_signed();
        pg_sys::SetUserIdAndSecContext(role, context | flags);
        let outcome = work();
        pg_sys::SetUserIdAndSecContext(user, context);
        outcome
    }
}
