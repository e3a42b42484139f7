//! pg_dump and the programs that restore, run against a server of the tests.
#![allow(dead_code)] // each test program uses a part of it

use crate::common::Server;
use std::fs;
use std::path::PathBuf;
use std::process::Output;

/// A dump in the server's directory, where the server's user may write.
pub struct Dump(PathBuf);

impl Dump {
    pub fn of(server: &Server, database: &str, options: &[&str]) -> Dump {
        let file = PathBuf::from(server.host()).join(format!("dump-{database}"));
        let path = file.display().to_string();
        let mut arguments = vec!["-f", &path];
        arguments.extend(options);
        succeeds(&tool(server, "pg_dump", database, &arguments));
        Dump(file)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        let _ =
            if self.0.is_dir() { fs::remove_dir_all(&self.0) } else { fs::remove_file(&self.0) };
    }
}

/// Runs one of PostgreSQL's programs on a database.
pub fn tool(server: &Server, program: &str, database: &str, arguments: &[&str]) -> Output {
    let port = server.port().to_string();
    let mut all = vec!["-h", server.host(), "-p", &port, "-U", "postgres", "-d", database];
    all.extend(arguments);
    server.run(server.bin(program), &all)
}

#[track_caller]
pub fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
