//! Whom a session serves, and what that user may answer for.

use super::identity::{self, CLAIMS, USER_ID};
use crate::error::Result;
use crate::spi::{self, Answer, Statement, values};
use crate::{books, guc};
use pgrx::prelude::*;
use std::ffi::CString;

static MANAGED: Statement = Statement::kept(
    "SELECT organization_id FROM exa_billing.organization_members
     WHERE user_id = $1 AND role IN ('owner', 'billing_manager') ORDER BY organization_id",
);

/// An empty setting is none. Of ids in another encoding two could look the same.
fn text(named: &str, setting: Option<CString>) -> Result<Option<String>> {
    let text = setting.map(CString::into_string).transpose();
    let text = text.map_err(|_| identity::refused(format!("{named} is not in UTF-8")))?;
    Ok(text.filter(|text| !text.is_empty()))
}

/// The end user of this session; None when it has none.
pub fn identity() -> Result<Option<String>> {
    let set = text(USER_ID, guc::user_id())?;
    let set = set.map(|id| identity::user(USER_ID, &id)).transpose()?;
    if !guc::trusts_jwt_claims() {
        return Ok(set);
    }
    let claims = text(CLAIMS, spi::setting(c"request.jwt.claims"))?;
    let claimed = claims.map(|claims| identity::claimed(&claims)).transpose()?;
    identity::agreed(set, claimed.flatten())
}

/// Who the session's end user is, for policies and for people.
#[pg_extern(sql = false)]
fn current_user_id() -> Answer<Option<String>> {
    Ok(identity()?)
}

/// The organizations whose owner or billing manager the session's end user is. With the rights of
/// the books: policies ask this, and must not be asked in turn.
#[pg_extern(sql = false)]
fn managed_organizations() -> Answer<SetOfIterator<'static, String>> {
    books::enter_for_reading("exa_billing.managed_organizations()")?;
    let managed = match identity()? {
        Some(user) => MANAGED.read(values![&user], |row| row.get::<String>(1))?,
        None => Vec::new(),
    };
    Ok(SetOfIterator::new(managed))
}
