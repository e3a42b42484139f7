//! The keys as they are kept: looked up, and claimed for a new entry.

use super::key::{KeySpace, Known};
use crate::error::Result;
use crate::spi::{Key, Lookup, Row, Statement, values};

static FIND: Lookup = Lookup {
    table: "idempotency_keys",
    primary_key: "idempotency_keys_pkey",
    columns: &[
        "key_space",
        "idempotency_key",
        "entry_id",
        "entry_created_at",
        "created_at_given",
        "payload_hash",
    ],
    key: &[Key::Is(1), Key::Is(2)],
    select: Statement::kept(
        "SELECT key_space, idempotency_key, entry_id, entry_created_at, created_at_given, payload_hash
         FROM exa_billing.idempotency_keys WHERE key_space = $1 AND idempotency_key = $2",
    ),
};
static CLAIM: Statement = Statement::kept(
    "INSERT INTO exa_billing.idempotency_keys
         (key_space, idempotency_key, entry_id, entry_created_at, created_at_given, payload_hash)
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING true",
);

impl Known {
    pub fn read(row: &Row, first_column: usize) -> Result<Self> {
        Ok(Self {
            entry_id: row.get(first_column)?,
            created_at: row.get(first_column + 1)?,
            created_at_given: row.get(first_column + 2)?,
            payload_hash: row.get(first_column + 3)?,
        })
    }
}

/// What the key has recorded, if anything that this transaction can see.
pub fn find(space: &KeySpace, key: &str) -> Result<Option<Known>> {
    FIND.find(values![space.as_str(), key], |row| Known::read(row, 3))
}

/// Claims the key for a new entry. False when another transaction had it first and committed;
/// this waits for it. Above READ COMMITTED that is a serialization failure, and the retried
/// transaction finds the key.
pub fn claim(space: &KeySpace, key: &str, entry: &Known) -> Result<bool> {
    let hash = entry.payload_hash.first_chunk::<16>();
    let claimed = CLAIM.write_row(
        values![
            space.as_str(),
            key,
            entry.entry_id,
            entry.created_at,
            entry.created_at_given,
            hash
        ],
        |row| row.get::<bool>(1),
    )?;
    Ok(claimed.is_some())
}
