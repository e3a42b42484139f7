//! Older versions of the extension and of the books, for the tests of upgrades: what was released, and
//! version 0.0.9, which never was and is made here out of this checkout.
#![allow(dead_code)] // each test program uses a part of it

mod made_up;

use crate::common::{Database, Server, one, run_sql};
use postgres::Client;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;

/// An older version, and what its books look like.
pub struct Release {
    pub version: String,
    /// The highest storage version of its books.
    pub storage: usize,
    /// The whole script that CREATE EXTENSION ran.
    install: String,
    /// From it to this version, where it is not in sql/.
    update: Option<String>,
    seeds: String,
    guards: String,
    views: String,
}

/// Every version whose books somebody may have: those that were released, and the one made up, with
/// books of each storage version before this one.
pub fn releases() -> Vec<Release> {
    let mut releases = vec![made_up::release(1), made_up::release(2)];
    releases.extend(released());
    releases
}

/// The version that never was, with books of an old storage version.
pub fn made_up(storage: usize) -> Release {
    made_up::release(storage)
}

fn released() -> Vec<Release> {
    let kept = root().join("tests/upgrade/released");
    let Ok(entries) = fs::read_dir(&kept) else { return Vec::new() };
    let release = |directory: PathBuf| {
        let text = |name: &str| read(&directory.join(name));
        Release {
            version: directory.file_name().expect("a name").to_string_lossy().into_owned(),
            storage: text("storage_version").trim().parse().expect("a number"),
            install: text("install.sql"),
            update: None,
            seeds: text("seeds.sql"),
            guards: text("guards.sql"),
            views: text("views.sql"),
        }
    };
    let entries = entries.map(|entry| entry.expect("an entry").path());
    let mut releases: Vec<Release> = entries.filter(|path| path.is_dir()).map(release).collect();
    // From this version there is nothing to upgrade.
    releases.retain(|release| release.version != env!("CARGO_PKG_VERSION"));
    releases.sort_by(|one, other| one.version.cmp(&other.version));
    releases
}

impl Release {
    /// A database with that version of the extension, and without books.
    pub fn extension(&self, server: &Server) -> Database {
        let db = server.empty_database();
        let mut client = db.client();
        let directory: String =
            one(&mut client, "SELECT setting FROM pg_config WHERE name = 'SHAREDIR'", &[]);
        let directory = Path::new(&directory).join("extension");
        let (from, to) = (&self.version, env!("CARGO_PKG_VERSION"));
        put(&directory.join(format!("exa_billing--{from}.sql")), &self.install);
        if let Some(update) = &self.update {
            put(&directory.join(format!("exa_billing--{from}--{to}.sql")), update);
        }
        run_sql(&mut client, &format!("CREATE EXTENSION exa_billing VERSION '{from}'"));
        db
    }

    /// The same with its books, which are empty.
    pub fn books(&self, server: &Server) -> Database {
        let db = self.extension(server);
        let mut client = db.client();
        run_sql(&mut client, "SET ROLE exa_billing_owner");
        for (version, script) in (1..).zip(migrations()).take(self.storage) {
            run_sql(&mut client, &script);
            let note = format!(
                "INSERT INTO exa_billing.storage_migrations VALUES ({version}, 'old', '{}', now())",
                self.version
            );
            run_sql(&mut client, &note);
        }
        for script in [&self.seeds, &self.guards, &self.views] {
            run_sql(&mut client, script);
        }
        run_sql(
            &mut client,
            "INSERT INTO exa_billing.applied_scripts VALUES ('guards', 'old', now()), ('views', 'old', now());
             RESET ROLE",
        );
        let failed: i64 = one(
            &mut client,
            "SELECT count(*) FROM exa_billing.maintain_partitions() WHERE error IS NOT NULL",
            &[],
        );
        assert_eq!(failed, 0);
        db
    }
}

/// The migrations in their order; once released, none is ever edited.
fn migrations() -> Vec<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(root().join("sql/migrations"))
        .expect("the migrations")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

pub fn installed_version(client: &mut Client) -> String {
    one(client, "SELECT extversion FROM pg_extension WHERE extname = 'exa_billing'", &[])
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Puts a script where the server finds it; other tests may be doing, or reading, the same.
fn put(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return;
    }
    let new = path.with_extension(format!("{}-{:?}", process::id(), std::thread::current().id()));
    fs::write(&new, text).expect("the extension's directory");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).expect("its rights");
    fs::rename(&new, path).expect("the script in its place");
}
