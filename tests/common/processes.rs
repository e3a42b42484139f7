//! Processes: run as the user PostgreSQL insists on, watched and ended.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::variable;

pub fn am_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").expect("/proc").uid() == 0
}

/// PostgreSQL refuses to run as root; then it is run as user postgres.
pub fn as_postgres(program: &Path) -> Command {
    let mut command = if am_root() {
        let mut runuser = Command::new("runuser");
        runuser.args(["-u", "postgres", "--"]).arg(program);
        runuser
    } else {
        Command::new(program)
    };
    // The programs complain when they cannot read the directory they start in.
    command.current_dir(variable("EXA_BILLING_WORK"));
    command
}

pub fn give_to_postgres(path: &Path) {
    if am_root() {
        must_succeed(Command::new("chown").arg("postgres:").arg(path));
    }
}

pub fn must_succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", text(&output));
}

pub fn must_succeed_as_postgres(program: &Path, arguments: &[&str]) {
    must_succeed(as_postgres(program).args(arguments).stdin(Stdio::null()));
}

pub fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub fn signal(name: &str, pids: &[u32]) {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill \"$@\"", "kill"]).arg(format!("-{name}"));
    kill.args(pids.iter().map(u32::to_string));
    // One of them may have ended by itself, so a failure says nothing.
    kill.stderr(Stdio::null()).status().expect("kill");
}

/// State and parent of a process, from its line in /proc.
pub fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it stands in parentheses and may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

pub fn children_of(parent: u32) -> Vec<u32> {
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| state_and_parent(*pid).is_some_and(|(_, its)| its == parent))
        .collect()
}

/// A process that nobody has waited for yet is dead all the same.
pub fn is_dead(pid: u32) -> bool {
    state_and_parent(pid).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
}
