//! The proof of the books that goes on all the time: some owners in each step, and when all of them had
//! their turn, from the beginning.

use crate::error::Result;
use crate::owner::{Owner, OwnerKind};
use crate::spi::{Statement, values};
use crate::{spi, verify};
use uuid::Uuid;

static CURRENT: Statement = Statement::kept(
    "SELECT proof_id, after_owner_kind, after_owner_id FROM exa_billing.books_proof
     WHERE finished_at IS NULL FOR UPDATE SKIP LOCKED",
);
static BEGIN: Statement = Statement::kept(
    "INSERT INTO exa_billing.books_proof
         (proof_id, after_owner_kind, after_owner_id, owner_count, violation_count, first_violation,
          started_at, updated_at, finished_at)
     SELECT $1, '', '', 0, 0, NULL, $2, $2, NULL
     WHERE NOT EXISTS (SELECT FROM exa_billing.books_proof WHERE finished_at IS NULL)",
);
static NEXT_OWNERS: Statement = Statement::kept(
    "SELECT owner_kind, owner_id FROM exa_billing.accounts
     WHERE (owner_kind, owner_id) > ($1, $2) ORDER BY owner_kind, owner_id LIMIT $3",
);
static NOTE: Statement = Statement::kept(
    "UPDATE exa_billing.books_proof
     SET after_owner_kind = $2, after_owner_id = $3, owner_count = owner_count + $4,
         violation_count = violation_count + $5,
         first_violation = coalesce(first_violation, $6), updated_at = $7,
         finished_at = CASE WHEN $8 THEN $7 END
     WHERE proof_id = $1",
);
static FORGET_OLDER: Statement = Statement::kept(
    "DELETE FROM exa_billing.books_proof WHERE finished_at IS NOT NULL AND proof_id <> $1",
);

/// Checks the next owners, and with the first ones everything that is nobody's in particular. Returns
/// how many owners were checked, and whether those were the last.
///
/// Locks: the row of the proof under way; another process that holds it goes on with it instead.
pub fn step(max_owners: i64) -> Result<(i64, bool)> {
    let clock = spi::clock();
    BEGIN.execute(values![Uuid::now_v7(), clock])?;
    let current = CURRENT.write_row(&[], |row| {
        Ok((row.get::<Uuid>(1)?, row.get::<String>(2)?, row.get::<String>(3)?))
    })?;
    let Some((proof, kind, id)) = current else { return Ok((0, true)) };
    let owners = NEXT_OWNERS.write(values![&kind, &id, max_owners], |row| {
        let kind = OwnerKind::parse(Some(&row.get::<String>(1)?))?;
        Ok(Owner { kind, id: row.get(2)? })
    })?;
    let is_first = kind.is_empty();
    let found = spi::on_fresh_snapshot(|| verify::violations_of(&owners, is_first))?;
    let count = i64::try_from(owners.len()).unwrap_or(i64::MAX);
    let is_last = count < max_owners;
    let (kind, id) = owners
        .last()
        .map_or((kind.as_str(), id.as_str()), |owner| (owner.kind.as_str(), owner.id.as_str()));
    let violations = i64::try_from(found.len()).unwrap_or(i64::MAX);
    let first = found.first().map(String::as_str);
    NOTE.execute(values![proof, kind, id, count, violations, first, clock, is_last])?;
    if is_last {
        FORGET_OLDER.execute(values![proof])?;
    }
    Ok((count, is_last))
}
