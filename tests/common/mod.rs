//! What the tests that speak to a server share: servers, databases in them and
//! a few short forms of queries.
//!
//! `scripts/test.sh` installs the extension into a private PostgreSQL, starts
//! the shared server and tells where all of it is in environment variables.
#![allow(dead_code)] // each test program uses a part of it

mod clusters;
mod kill;
mod processes;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clusters::base_settings;
pub use clusters::tested_bin;
use processes::{as_postgres, give_to_postgres, must_succeed};

use postgres::types::{FromSqlOwned, ToSql};
use postgres::{Client, Config, GenericClient, NoTls};

/// How long anything that should happen soon may take on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running (or stopped) PostgreSQL server.
pub struct Server {
    /// Holds the data directory, the socket and the log.
    dir: PathBuf,
    port: u16,
    log_file: PathBuf,
    /// PostgreSQL's programs.
    bin: PathBuf,
    /// The lines of `server.conf`; `None` for the shared server.
    settings: Option<Mutex<BTreeMap<String, String>>>,
}

impl Server {
    /// The server that all tests share. It preloads the extension and runs no
    /// worker of it; use databases of your own in it.
    pub fn shared() -> Server {
        Server {
            dir: PathBuf::from(variable("EXA_BILLING_TEST_HOST")),
            port: variable("EXA_BILLING_TEST_PORT").parse().expect("a port number"),
            log_file: PathBuf::from(variable("EXA_BILLING_TEST_LOG")),
            bin: tested_bin(),
            settings: None,
        }
    }

    /// A server of the test's own, started with the given settings on top of
    /// those of the shared one. It is stopped and removed when it is dropped.
    pub fn start(name: &str, conf: &[(&str, &str)]) -> Server {
        let server = Server::in_new_directory(name, tested_bin(), base_settings());
        let template = variable("EXA_BILLING_TEST_TEMPLATE");
        must_succeed(Command::new("cp").arg("-a").arg(template).arg(server.data()));
        server.put(conf);
        server.start_again();
        server
    }

    /// Only the directory that a server is going to live in.
    fn in_new_directory(
        name: &str,
        bin: PathBuf,
        mut settings: BTreeMap<String, String>,
    ) -> Server {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let parent = PathBuf::from(variable("EXA_BILLING_TEST_DIR"));
        let dir = parent.join(format!("{name}-{}-{number}", process::id()));
        // A socket's path has at most 107 bytes.
        assert!(dir.as_os_str().len() < 85, "a shorter name is needed: {}", dir.display());
        fs::create_dir(&dir).expect("a directory for the server");
        give_to_postgres(&dir);
        settings.insert("unix_socket_directories".into(), dir.display().to_string());
        Server {
            port: 5432,
            log_file: dir.join("server.log"),
            bin,
            settings: Some(Mutex::new(settings)),
            dir,
        }
    }

    /// Makes a standby a server that can be written to, and waits for it.
    pub fn promote(&self) {
        self.pg_ctl(&["promote", "-w"]);
    }

    /// Stops the server: `smart`, `fast` or `immediate`.
    pub fn stop(&self, mode: &str) {
        self.own_settings();
        self.pg_ctl(&["stop", "-w", "-t", "60", "-m", mode]);
    }

    /// Starts the server after `stop` or `kill9`.
    pub fn start_again(&self) {
        let log_file = self.log_file.display().to_string();
        self.pg_ctl(&["start", "-w", "-t", "120", "-l", &log_file]);
    }

    /// Changes settings in the configuration file; `reload` or a restart makes
    /// them count.
    pub fn set_conf(&self, conf: &[(&str, &str)]) {
        self.put(conf);
    }

    /// Has the server read its configuration again, and waits until it has.
    pub fn reload(&self) {
        let mut client = self.client("postgres");
        let loaded = "select extract(epoch from pg_conf_load_time())::float8";
        let before: f64 = one(&mut client, loaded, &[]);
        self.pg_ctl(&["reload"]);
        // A session learns of it a moment after the postmaster; a new one has it at once.
        wait_until("the configuration is read", || {
            one::<f64>(&mut self.client("postgres"), loaded, &[]) > before
        });
    }

    /// All that the server has logged.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log_file).expect("the server's log");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// One of PostgreSQL's programs, of the server's version.
    pub fn bin(&self, program: &str) -> PathBuf {
        self.bin.join(program)
    }

    /// Runs a program as the operating system's user that the server runs as.
    pub fn run(&self, program: impl AsRef<Path>, args: &[&str]) -> Output {
        as_postgres(program.as_ref())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", program.as_ref().display()))
    }

    /// The directory of the server's socket.
    pub fn host(&self) -> &str {
        self.dir.to_str().expect("a path in UTF-8")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// 15 for PostgreSQL 15.
    pub fn major(&self) -> i32 {
        let number: i32 = one(
            &mut self.client("postgres"),
            "select current_setting('server_version_num')::int",
            &[],
        );
        number / 10_000
    }

    /// A connection of the superuser to any database of the server.
    pub fn client(&self, database: &str) -> Client {
        connect(&mut self.config(database))
    }

    /// What connects to a database of the server, for other settings than `client` has.
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host_path(&self.dir).port(self.port).user("postgres").dbname(database);
        config
    }

    /// A new database with the extension in it.
    pub fn database(&self) -> Database {
        let database = self.empty_database();
        database.client().batch_execute("create extension exa_billing").expect("create extension");
        database
    }

    /// A new database with fresh books: a copy of one that is set up once per server, which takes a
    /// fraction of the time.
    pub fn books(&self) -> Database {
        let mut client = self.client("postgres");
        run_sql(&mut client, "select pg_advisory_lock(1)");
        let there = "select exists (select from pg_database where datname = $1 and datistemplate)";
        if !one::<bool>(&mut client, there, &[&BOOKS]) {
            run_sql(&mut client, &format!("drop database if exists {BOOKS}"));
            run_sql(&mut client, &format!("create database {BOOKS}"));
            run_sql(
                &mut self.client(BOOKS),
                "create extension exa_billing; select exa_billing.setup()",
            );
            run_sql(&mut client, &format!("alter database {BOOKS} is_template true"));
        }
        run_sql(&mut client, "select pg_advisory_unlock(1)");
        self.database_from(BOOKS)
    }

    /// A new database without the extension.
    pub fn empty_database(&self) -> Database {
        self.database_from("template1")
    }

    fn database_from(&self, template: &str) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}_{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        self.client("postgres")
            .batch_execute(&format!("create database {name} template {template}"))
            .expect("create database");
        Database { config: self.config(&name), maintenance: self.config("postgres"), name }
    }

    fn own_settings(&self) -> &Mutex<BTreeMap<String, String>> {
        self.settings
            .as_ref()
            .expect("other tests use the shared server: start one of your own for this")
    }

    fn put(&self, conf: &[(&str, &str)]) {
        let mut settings = self.own_settings().lock().unwrap();
        for (name, value) in conf {
            settings.insert((*name).to_owned(), (*value).to_owned());
        }
        let lines: String = settings
            .iter()
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
            .collect();
        let file = self.data().join("server.conf");
        fs::write(&file, lines).expect("server.conf");
        give_to_postgres(&file);
    }

    fn pg_ctl(&self, args: &[&str]) {
        let data = self.data();
        let status = as_postgres(&self.bin("pg_ctl"))
            .args(args)
            .arg("-s")
            .arg("-D")
            .arg(data)
            .stdin(Stdio::null())
            // not `output`: the server would inherit the pipe and keep it open
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("pg_ctl");
        assert!(
            status.success(),
            "pg_ctl {args:?} failed; the end of the log:\n{}",
            self.end_of_log()
        );
    }

    fn end_of_log(&self) -> String {
        let log = fs::read(&self.log_file).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.settings.is_none() {
            return;
        }
        if thread::panicking() {
            eprintln!("the end of the log of {}:\n{}", self.dir.display(), self.end_of_log());
        }
        if self.data().join("postmaster.pid").exists() {
            let _ = as_postgres(&self.bin("pg_ctl"))
                .args(["stop", "-s", "-m", "immediate", "-D"])
                .arg(self.data())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A database that exists for one test.
pub struct Database {
    name: String,
    config: Config,
    maintenance: Config,
}

impl Database {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A connection of the superuser.
    pub fn client(&self) -> Client {
        connect(&mut self.config.clone())
    }

    pub fn client_as(&self, role: &str) -> Client {
        connect(self.config.clone().user(role))
    }

    /// A connection of the superuser with settings such as `-c timezone=Pacific/Auckland`.
    pub fn client_with(&self, options: &str) -> Client {
        connect(self.config.clone().options(options))
    }

    /// What connects to it, for what the others here do not offer.
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// Gives up what would keep the database from being dropped, then drops it.
    fn drop_it(&self) -> Result<(), postgres::Error> {
        let mut client = self.maintenance.connect(NoTls)?;
        let prepared =
            client.query("select gid from pg_prepared_xacts where database = $1", &[&self.name])?;
        if !prepared.is_empty() {
            let mut inside = self.config.connect(NoTls)?;
            for row in prepared {
                let gid: &str = row.get(0);
                inside
                    .batch_execute(&format!("rollback prepared '{}'", gid.replace('\'', "''")))?;
            }
        }
        client.batch_execute(&format!("drop database if exists {} with (force)", self.name))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The server may be stopped by now, or a test may have dropped it itself.
        let _ = self.drop_it();
    }
}

/// What a failed statement said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbErrorSummary {
    /// The SQLSTATE.
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl From<&postgres::error::DbError> for DbErrorSummary {
    fn from(error: &postgres::error::DbError) -> Self {
        DbErrorSummary {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        }
    }
}

/// The first column of the only row that a query returns.
#[track_caller]
pub fn one<T: FromSqlOwned>(
    client: &mut impl GenericClient,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> T {
    match client.query_one(sql, params).and_then(|row| row.try_get(0)) {
        Ok(value) => value,
        Err(error) => panic!("{sql}\n{}", explain(&error)),
    }
}

/// The SQLSTATE of what was to fail. Fails the test when it succeeded.
#[track_caller]
pub fn sqlstate<T>(result: Result<T, postgres::Error>) -> String {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => match error.code() {
            Some(code) => code.code().to_owned(),
            None => panic!("an error of the server was expected: {error}"),
        },
    }
}

/// The error of a statement that is to fail. Fails the test when it succeeds.
#[track_caller]
pub fn error_of(client: &mut impl GenericClient, sql: &str) -> DbErrorSummary {
    let outcome = client.batch_execute(sql);
    // The error arrives before its transaction has ended; the next answer comes after.
    let _ = client.batch_execute("");
    match outcome {
        Ok(()) => panic!("an error was expected: {sql}"),
        Err(error) => match error.as_db_error() {
            Some(error) => error.into(),
            None => panic!("an error of the server was expected: {sql}\n{error}"),
        },
    }
}

/// Runs statements and fails the test with the server's words when one fails.
#[track_caller]
pub fn run_sql(client: &mut impl GenericClient, sql: &str) {
    // Roles and rights on parameters are the whole server's: where two tests change them at once,
    // PostgreSQL has one of them try again.
    let is_crowded = |error: &postgres::Error| {
        error.as_db_error().is_some_and(|error| error.message() == "tuple concurrently updated")
    };
    let began = Instant::now();
    while let Err(error) = client.batch_execute(sql) {
        if !is_crowded(&error) || began.elapsed() > PATIENCE {
            panic!("{sql}\n{}", explain(&error));
        }
    }
}

/// Waits until something has happened, and fails the test when it does not.
#[track_caller]
pub fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The error with all that the server says; `postgres::Error` alone says "db error".
fn explain(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{:?}", DbErrorSummary::from(error)),
        None => error.to_string(),
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: these tests need a server. Run `make test`, or \
             `scripts/test.sh 15 -- --test NAME` for some of them"
        )
    })
}

/// The database that `Server::books` copies.
const BOOKS: &str = "fresh_books";

#[track_caller]
fn connect(config: &mut Config) -> Client {
    match config.application_name("exa_billing test").connect(NoTls) {
        Ok(client) => client,
        Err(error) => panic!("cannot connect: {}", explain(&error)),
    }
}
