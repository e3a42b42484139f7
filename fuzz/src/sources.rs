//! The room `sources`, as far as the mapping of attached tables goes.

#[path = "../../src/sources/ledger/column_map.rs"]
pub mod column_map;
#[path = "../../src/sources/ledger/mapping.rs"]
pub mod mapping;
#[path = "../../src/sources/ledger/text.rs"]
pub mod text;
