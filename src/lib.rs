//! exa_billing keeps the books of usage-priced products inside PostgreSQL.
//!
//! The rooms below build on each other in this order; each looks only at those before it.
//! docs/ARCHITECTURE.md says why each is as it is.

// The ground floor: pure rules, the settings, and the one helper that talks to the server.
mod error;
mod news;
mod time;
mod money;
mod owner;
mod transaction;
mod guc;
mod spi;
mod idempotency;
mod bisect;
mod progress;

// The books: first the months, since setting books up makes the first of them.
mod partitions;
mod books;
mod registration;

// What comes in, and how it gets into the shared figures.
mod accounts;
mod sources;
mod verify;
mod events;
mod posting;
mod credits;
mod usage;

// What was spent when, on what.
mod rollups;
mod evidence;

// Who may do what, and who has to hear of what.
mod access;
mod notifications;
mod suggestions;
mod alerts;
mod insights;

// What keeps all of it in shape.
mod erasure;
mod upkeep;

// What runs by itself.
mod jobs;
mod health;
mod worker;

use pgrx::prelude::*;

pgrx::pg_module_magic!();

// The SQL of the extension is written by hand, in this order: the schema and its owner, the
// result types, the functions room by room, and at last who owns all that.
extension_sql_file!("../sql/install/schema.sql", name = "schema", bootstrap);
extension_sql_file!("../sql/install/types.sql", name = "types", requires = ["schema"]);
extension_sql_file!("../sql/install/books.sql", name = "books", requires = ["types"]);
extension_sql_file!("../sql/install/sources.sql", name = "sources", requires = ["books"]);
extension_sql_file!("../sql/install/events.sql", name = "events", requires = ["sources"]);
extension_sql_file!("../sql/install/posting.sql", name = "posting", requires = ["events"]);
extension_sql_file!("../sql/install/credits.sql", name = "credits", requires = ["posting"]);
extension_sql_file!("../sql/install/usage.sql", name = "usage", requires = ["credits"]);
extension_sql_file!("../sql/install/rollups.sql", name = "rollups", requires = ["usage"]);
extension_sql_file!("../sql/install/evidence.sql", name = "evidence", requires = ["rollups"]);
extension_sql_file!("../sql/install/access.sql", name = "access", requires = ["evidence"]);
extension_sql_file!(
    "../sql/install/notifications.sql",
    name = "notifications",
    requires = ["access"]
);
extension_sql_file!(
    "../sql/install/suggestions.sql",
    name = "suggestions",
    requires = ["notifications"]
);
extension_sql_file!("../sql/install/alerts.sql", name = "alerts", requires = ["suggestions"]);
extension_sql_file!("../sql/install/insights.sql", name = "insights", requires = ["alerts"]);
extension_sql_file!("../sql/install/erasure.sql", name = "erasure", requires = ["insights"]);
extension_sql_file!("../sql/install/jobs.sql", name = "jobs", requires = ["erasure"]);
extension_sql_file!("../sql/install/health.sql", name = "health", requires = ["jobs"]);
extension_sql_file!("../sql/install/ownership.sql", name = "ownership", finalize);

/// Called once per process, when the library is loaded.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    guc::init();
    spi::init();
    books::init();
    jobs::init();
    worker::init();
}
