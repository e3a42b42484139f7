//! For whom a function acts.

use super::grant;
use super::identity::refused;
use super::session;
use crate::error::Result;
use crate::owner::{self, Owner, OwnerKind, quoted};
use crate::spi::{self, Statement, values};
use crate::time::Instant;

static MANAGES: Statement = Statement::kept(
    "SELECT true FROM exa_billing.organization_members
     WHERE organization_id = $1 AND user_id = $2 AND role IN ('owner', 'billing_manager')",
);

/// The user who acts.
pub struct Actor {
    pub id: String,
    is_end_user: bool,
}

/// Who acts; to be asked where there are books, inside a function that has their rights.
///
/// An end user acts as nobody else. An application, which has set no end user, vouches for whom it
/// names.
pub fn actor(actor_user_id: Option<&str>) -> Result<Actor> {
    let actor = owner::identifier("actor_user_id", actor_user_id)?;
    let end_user = end_user()?;
    if let Some(user) = end_user.as_ref().filter(|user| *user != actor) {
        return Err(refused("actor_user_id is not the end user of this session").detail(format!(
            "actor_user_id is {}, the end user is {}.",
            quoted(actor),
            quoted(user)
        )));
    }
    Ok(Actor { id: actor.to_owned(), is_end_user: end_user.is_some() })
}

impl Actor {
    /// Whether this user may act for an owner. Where an application named the user, it has asked.
    pub fn answers_for(&self, owner: &Owner) -> Result<bool> {
        if !self.is_end_user {
            return Ok(true);
        }
        match owner.kind {
            OwnerKind::User => Ok(owner.id == self.id),
            OwnerKind::Organization => {
                Ok(MANAGES.write_row(values![&owner.id, &self.id], |_| Ok(()))?.is_some())
            }
        }
    }

    pub fn require_answers_for(&self, owner: &Owner) -> Result<()> {
        if self.answers_for(owner)? {
            return Ok(());
        }
        let detail = format!("The end user is {}.", quoted(&self.id));
        Err(refused(format!("the end user does not answer for this {}", owner.kind.as_str()))
            .detail(detail)
            .hint(
                "Users answer for themselves; owners and billing managers for their organization.",
            ))
    }

    /// An end user acts now: what they date back would not be among what is shown of late.
    pub fn require_acts_now(&self, as_of: Instant) -> Result<()> {
        if !self.is_end_user || as_of >= spi::transaction_time() {
            return Ok(());
        }
        let detail = format!("as_of is {}.", as_of.iso8601());
        Err(refused("an end user acts now, and not as of an earlier time")
            .detail(detail)
            .hint("Leave as_of out."))
    }
}

/// Whom the session serves; None when it is the application's own. A role that is neither an
/// application nor has an identity is nobody: other staff do not vouch for anybody, also when they
/// are given what end users may call.
fn end_user() -> Result<Option<String>> {
    if let Some(user) = session::identity()? {
        return Ok(Some(user));
    }
    if grant::vouches(spi::outer_role())? {
        return Ok(None);
    }
    Err(refused("this session has no end user").hint(
        "The application sets exa_billing.user_id before it becomes the end users' role; a role of an application gets its rights with exa_billing.grant_application().",
    ))
}
