//! Sessions of other places and habits, and one of none.

use crate::common::{Database, run_sql};
use postgres::Client;

/// The first is the plain one. What `search_path` puts before pg_catalog is not what the product
/// calls, and `lc_*` are those there are on every machine.
pub const SETTINGS: [&str; 5] = [
    "-c timezone=UTC",
    "-c timezone=America/New_York -c datestyle=SQL,MDY -c intervalstyle=sql_standard",
    "-c timezone=Australia/Lord_Howe -c datestyle=German -c intervalstyle=iso_8601 \
     -c search_path=decoy,pg_catalog",
    "-c timezone=Asia/Kolkata -c datestyle=Postgres,DMY -c intervalstyle=postgres_verbose \
     -c lc_time=POSIX -c lc_numeric=C -c lc_monetary=POSIX -c lc_messages=C",
    "-c timezone=Europe/London -c datestyle=SQL,DMY -c search_path=pg_temp -c extra_float_digits=-15",
];

/// Functions that shadow PostgreSQL's own for whoever lets the session's `search_path` decide.
const DECOYS: &str = "
    create schema decoy;
    create function decoy.now() returns timestamptz language sql
        as $$ select timestamptz '1999-01-01 00:00+00' $$;
    create function decoy.clock_timestamp() returns timestamptz language sql
        as $$ select timestamptz '1999-01-01 00:00+00' $$;
    create function decoy.date_trunc(text, timestamptz, text) returns timestamptz language sql
        as $$ select timestamptz '1999-01-01 00:00+00' $$;
    create function decoy.timezone(text, timestamptz) returns timestamp language sql
        as $$ select timestamp '1999-01-01 00:00' $$;
    create function decoy.to_char(timestamptz, text) returns text language sql
        as $$ select 'nonsense' $$;
    create table decoy.accounts (owner_kind text);
    create table decoy.unposted_spend (owner_kind text)";

pub fn add_decoys(client: &mut Client) {
    run_sql(client, DECOYS);
}

/// A session that may record what happened in any year since 2000.
pub fn session(db: &Database, settings: &str) -> Client {
    db.client_with(&format!("-c exa_billing.late_usage_limit=12000d {settings}"))
}
