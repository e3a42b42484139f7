//! Servers that are not simply new: copies of another's disks, and of other releases of PostgreSQL.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::processes::{must_succeed_as_postgres, text};
use super::{Server, variable};

impl Server {
    /// A streaming hot standby of this server, with the same settings.
    pub fn basebackup_standby(&self, name: &str) -> Server {
        self.base_backup(name, &["--write-recovery-conf"], &[])
    }

    /// A running copy of this server's disks, with other settings from its first start on.
    pub fn base_backup(&self, name: &str, options: &[&str], conf: &[(&str, &str)]) -> Server {
        let settings = self.own_settings().lock().unwrap().clone();
        let copy = Server::in_new_directory(name, self.bin.clone(), settings);
        let (data, port) = (copy.data().display().to_string(), self.port.to_string());
        let mut arguments =
            vec!["-D", &data, "--wal-method=stream", "--checkpoint=fast", "--no-sync"];
        arguments.extend(["-h", self.host(), "-p", &port, "-U", "postgres"]);
        arguments.extend(options);
        let output = self.run(self.bin("pg_basebackup"), &arguments);
        assert!(output.status.success(), "pg_basebackup: {}", text(&output));
        copy.put(conf);
        copy.start_again();
        copy
    }

    /// A new server of the release with these programs, not started yet. `options` are initdb's.
    pub fn of_release(bin: &Path, name: &str, options: &[&str], conf: &[(&str, &str)]) -> Server {
        let server = Server::in_new_directory(name, bin.to_owned(), base_settings());
        let data = server.data();
        let initdb =
            ["-A", "trust", "-U", "postgres", "--locale=C.UTF-8", "-E", "UTF8", "--no-sync"];
        let mut arguments = vec!["-D", data.to_str().expect("a path in UTF-8")];
        arguments.extend(initdb.iter().chain(options));
        must_succeed_as_postgres(&server.bin("initdb"), &arguments);
        let file = data.join("postgresql.conf");
        let text = fs::read_to_string(&file).expect("postgresql.conf");
        fs::write(&file, text + "include_if_exists = 'server.conf'\n").expect("postgresql.conf");
        server.put(conf);
        server
    }
}

/// The programs of the release that is tested.
pub fn tested_bin() -> PathBuf {
    PathBuf::from(variable("EXA_BILLING_PG_BIN"))
}

/// The same as the shared server's, which `server_start` in scripts/lib.sh writes.
pub fn base_settings() -> BTreeMap<String, String> {
    [
        ("listen_addresses", ""),
        ("port", "5432"),
        ("unix_socket_permissions", "0700"),
        ("fsync", "off"),
        ("max_connections", "200"),
        ("max_prepared_transactions", "50"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("log_line_prefix", "%m [%p] %q%u@%d "),
        ("shared_preload_libraries", "exa_billing"),
        ("exa_billing.databases", ""),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}
