//! Where histories are played: a server, a database in it, sessions that have little in common.

use crate::apply::{Answer, Row};
use crate::common::{Database, Server};
use crate::model::calendar::literal;
use crate::model::evidence::known_from;
use postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How often each function of the extension was called by steps and looks.
pub static CALLS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// How often they read each view and table.
pub static READ: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// How often everything else was done.
pub static COUNTS: Mutex<BTreeMap<&str, usize>> = Mutex::new(BTreeMap::new());

pub fn count(what: &'static str, often: usize) {
    let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    *counts.entry(what).or_default() += often;
}

const PLAIN: &str = "-c lock_timeout=20s -c exa_billing.late_usage_limit=3000d";
/// Nothing that a session sets may matter.
const ODD: &str = "-c lock_timeout=20s -c exa_billing.late_usage_limit=3000d -c timezone=Pacific/Chatham \
    -c datestyle=German -c intervalstyle=sql_standard -c search_path=pg_temp,nowhere,public";
const STRICT: [&str; 2] = [
    "-c lock_timeout=20s -c exa_billing.late_usage_limit=3000d -c timezone=America/St_Johns -c default_transaction_isolation=serializable",
    "-c lock_timeout=20s -c exa_billing.late_usage_limit=3000d -c datestyle=SQL,DMY -c default_transaction_isolation=repeatable\\ read",
];

pub struct Place {
    pub sessions: Vec<Client>,
    season: Option<u64>,
    // Dropped in this order.
    database: Database,
    server: Server,
}

impl Place {
    pub fn new(number: usize) -> Self {
        let conf =
            [("exa_billing.evaluation_delay", "0"), ("autovacuum", "off"), ("max_wal_size", "4GB")];
        let server = Server::start(&format!("hist{number}"), &conf);
        let database = new_database(&server);
        let mut place = Place { sessions: Vec::new(), season: None, database, server };
        place.connect();
        place
    }

    fn connect(&mut self) {
        let options = [PLAIN, ODD, STRICT[0], STRICT[1]];
        self.sessions = options.map(|options| self.database.client_with(options)).into();
    }

    /// A new database for each season, whose histories share it and their leftovers.
    pub fn prepare(&mut self, season: u64) {
        if self.season.replace(season).is_some_and(|last| last != season) {
            self.database = new_database(&self.server);
            self.connect();
        }
    }

    /// What is wrong with the books of the database, whoever's they are.
    pub fn violations(&mut self) -> Vec<String> {
        let rows = answer(&mut self.sessions[0], VERIFY_ALL);
        let rows = rows.unwrap_or_else(|error| panic!("{VERIFY_ALL}: {error}"));
        rows.into_iter().filter_map(|row| row.line).collect()
    }

    /// Some things are done month by month; months that are empty would only take time.
    pub fn drop_empty_months(&mut self) {
        self.sessions[0].batch_execute(FEWER_MONTHS).expect("empty months are dropped");
    }

    /// Stops the server, as its owner would or as a crash does, and starts it.
    pub fn restart(&mut self, mode: &str) {
        count("restarts", 1);
        self.sessions.clear();
        self.server.stop(mode);
        self.server.start_again();
        self.connect();
    }
}

const FEWER_MONTHS: &str = "
    do $$ declare month regclass; is_used bool;
    begin
        for month in select inhrelid from pg_inherits
            where inhparent in ('exa_billing.exa_usage_log'::regclass, 'exa_billing.spend_log'::regclass)
              and right(inhrelid::regclass::text, 7) <> to_char(now() at time zone 'UTC', 'YYYY_MM')
        loop
            execute format('select exists (select from %s)', month) into is_used;
            if not is_used then execute format('drop table %s', month); end if;
        end loop;
    end $$";
const VERIFY_ALL: &str = "select null, null, v::text from exa_billing.verify_books() as v";

fn new_database(server: &Server) -> Database {
    let database = server.books();
    let mut client = database.client();
    // Hours are known from a moment on in whose neighbourhood histories play.
    let known = literal(known_from());
    let sql = format!("update exa_billing.spend_sources set covered_from = {known}");
    client.batch_execute(&sql).expect("the books are prepared");
    answer(&mut client, "select exa_billing.start_worker()").expect("messages may be handed out");
    client.batch_execute(FEWER_MONTHS).expect("empty months are dropped");
    let made = answer(&mut client, "select error from exa_billing.maintain_partitions(1)");
    assert_eq!(made.expect("the next month"), vec![Row::default(); 6]);
    database
}

/// What a statement answers: three columns of each row, or an SQLSTATE.
pub fn answer(client: &mut Client, sql: &str) -> Answer {
    let messages = client.simple_query(sql).map_err(|error| {
        // The error arrives before its transaction has ended; the next answer comes after.
        let _ = client.batch_execute("");
        match error.as_db_error() {
            Some(error) => format!("{} {}", error.code().code(), error.message()),
            None => format!("? {error}"),
        }
    })?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let text = |row: &SimpleQueryRow, column| row.try_get(column).ok().flatten().map(str::to_owned);
    Ok(rows
        .map(|row| Row {
            id: text(row, 0),
            at: text(row, 1).and_then(|at| at.parse().ok()),
            line: text(row, 2),
        })
        .collect())
}

/// Counts what a step or a look makes use of.
pub fn count_calls(sql: &str) {
    let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    for part in sql.split("exa_billing.").skip(1) {
        let end = part.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let (name, rest) = part.split_at(end.unwrap_or(part.len()));
        let counts = if rest.starts_with('(') { &mut calls } else { &mut read };
        *counts.entry(name.to_owned()).or_default() += 1;
    }
}
