//! The proof of the books that goes on all the time: some owners in each step, and when all of them had
//! their turn, from the beginning.

use crate::error::Result;
use crate::spi::{Statement, values};
use crate::{accounts, spi, verify};
use std::cell::Cell;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A step that takes less may look at more owners, and one that takes more than a few times that looks
/// at fewer: nobody's posting waits for it much longer. Its plans cost the same for few and for many.
const STEP: Duration = Duration::from_millis(200);
const FIRST_OWNERS: i64 = 50;
const MAX_OWNERS: i64 = 1000;

thread_local! {
    /// How many owners the next step of this process looks at.
    static OWNERS: Cell<i64> = const { Cell::new(FIRST_OWNERS) };
}

/// How many owners the step after one of so many looks at: most owners spend nothing for months, and
/// some have millions of charges.
fn owners_after(owners: i64, took: Duration) -> i64 {
    let wanted = if took < STEP {
        owners * 2
    } else if took > STEP * 3 {
        owners / 2
    } else {
        owners
    };
    wanted.clamp(1, MAX_OWNERS)
}

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
pub fn step() -> Result<(i64, bool)> {
    let (began, max_owners) = (Instant::now(), OWNERS.get());
    // Where this step fails, the next one tries fewer.
    OWNERS.set((max_owners / 2).max(1));
    let clock = spi::clock();
    BEGIN.execute(values![Uuid::now_v7(), clock])?;
    let current = CURRENT.write_row(&[], |row| {
        Ok((row.get::<Uuid>(1)?, row.get::<String>(2)?, row.get::<String>(3)?))
    })?;
    let Some((proof, kind, id)) = current else {
        OWNERS.set(max_owners);
        return Ok((0, true));
    };
    let owners =
        NEXT_OWNERS.write(values![&kind, &id, max_owners], |row| accounts::owner_of(row, 1))?;
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
    // The last owners are few, and say nothing of how many more could have been.
    OWNERS.set(if is_last { max_owners } else { owners_after(max_owners, began.elapsed()) });
    Ok((count, is_last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_take_as_many_owners_as_their_time_allows() {
        let after =
            |owners, milliseconds| owners_after(owners, Duration::from_millis(milliseconds));
        assert_eq!([after(50, 199), after(50, 200), after(50, 600)], [100, 50, 50]);
        assert_eq!([after(50, 601), after(1, 60_000), after(800, 0)], [25, 1, 1000]);
    }
}
