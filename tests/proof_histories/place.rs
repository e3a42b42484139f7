//! Where histories are played: a server, a database in it, sessions that have little in common.

use crate::apply::{Answer, Row};
use crate::common::{Database, Server};
use crate::model::calendar::{DAY, literal};
use crate::model::evidence::known_from;
use postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// How often each function of the extension was called.
pub static CALLS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// So many histories share a database, and so their leftovers.
const HISTORIES_PER_DATABASE: u64 = 120;
/// After so many, all books of the database are proved.
const HISTORIES_PER_PROOF: u64 = 40;

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
    histories: u64,
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
        let mut place = Place { sessions: Vec::new(), histories: 0, database, server };
        place.connect();
        place
    }

    fn connect(&mut self) {
        let options = [PLAIN, ODD, STRICT[0], STRICT[1]];
        self.sessions = options.map(|options| self.database.client_with(options)).into();
    }

    /// A new database now and then.
    pub fn prepare(&mut self) {
        self.histories += 1;
        if self.histories % 1_000 == HISTORIES_PER_PROOF {
            self.work_on_all();
        } else if self.histories.is_multiple_of(HISTORIES_PER_PROOF) {
            self.prove_all();
        }
        if self.histories.is_multiple_of(HISTORIES_PER_DATABASE) {
            self.database = new_database(&self.server);
            self.connect();
        }
    }

    /// All books of the database hold, whoever's they are.
    pub fn prove_all(&mut self) {
        let violations = self.lines(VERIFY_ALL);
        assert!(
            violations.is_empty(),
            "after {} histories; the number in an owner's id is the seed of its own\n{violations:#?}",
            self.histories
        );
    }

    fn lines(&mut self, sql: &str) -> Vec<String> {
        let rows =
            answer(&mut self.sessions[0], sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        rows.into_iter().filter_map(|row| row.line).collect()
    }

    /// What the long procedures have found to change.
    fn changed_by(&mut self, call: &str) -> Vec<String> {
        self.lines(&format!("call exa_billing.{call}"));
        self.lines(CHANGED)
    }

    /// What works on everybody: recomputing twice changes nothing the second time, a backfill finds
    /// nothing to do, and background work changes nobody's balance.
    pub fn work_on_all(&mut self) {
        self.changed_by("recompute_all_balances(false, true)");
        assert_eq!(self.changed_by("recompute_all_balances(true, true)"), ["0"]);
        assert_eq!(self.changed_by("recompute_all_balances(true, false)"), ["0"]);
        let (from, to) = (literal(known_from()), literal(known_from() + 2 * DAY));
        for dry_run in [true, false] {
            let call = format!("backfill_rollups({from}, {to}, {dry_run})");
            assert_eq!(self.changed_by(&call), ["0"]);
        }
        let before = self.lines(BALANCES);
        self.lines("call exa_billing.run_maintenance()");
        assert_eq!(self.lines(BALANCES), before);
        assert_eq!(self.lines(UNHEALTHY), Vec::<String>::new());
        self.prove_all();
    }

    /// Stops the server, as its owner would or as a crash does, and starts it.
    pub fn restart(&mut self, mode: &str) {
        self.sessions.clear();
        self.server.stop(mode);
        self.server.start_again();
        self.connect();
    }
}

const CHANGED: &str = "select null, null, (changed + failed)::text from exa_billing.progress
    order by started_at desc limit 1";
const BALANCES: &str =
    "select null, null, concat_ws(' ', a.owner_kind, a.owner_id, b.balance_microdollars)
    from exa_billing.accounts as a
    cross join lateral exa_billing.account_balance(a.owner_kind, a.owner_id) as b
    where b.balance_microdollars <> 0 order by 3";
/// Messages that nobody took are what histories are about.
const UNHEALTHY: &str = "select null, null, h::text from exa_billing.health_checks() as h
    where status = 'critical' and check_name <> 'deliveries dead'";
const FEWER_MONTHS: &str = "
    do $$ declare month regclass;
    begin
        for month in select inhrelid from pg_inherits
            where inhparent in ('exa_billing.exa_usage_log'::regclass, 'exa_billing.spend_log'::regclass)
              and right(inhrelid::regclass::text, 7) > to_char(now() at time zone 'UTC', 'YYYY_MM')
        loop execute 'drop table ' || month; end loop;
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
    // Some things are done month by month; those of next year would only take time.
    client.batch_execute(FEWER_MONTHS).expect("empty months are dropped");
    let made = answer(&mut client, "select error from exa_billing.maintain_partitions(1)");
    assert_eq!(made.expect("the next month"), vec![Row::default(); 6]);
    database
}

/// What a statement answers: three columns of each row, or an SQLSTATE.
pub fn answer(client: &mut Client, sql: &str) -> Answer {
    count_calls(sql);
    let messages = client.simple_query(sql).map_err(|error| match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => format!("? {error}"),
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

fn count_calls(sql: &str) {
    let mut calls = CALLS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for part in sql.split("exa_billing.").skip(1) {
        let end = part.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        if let Some(end) = end.filter(|end| part[*end..].starts_with('(')) {
            *calls.entry(part[..end].to_owned()).or_default() += 1;
        }
    }
}
