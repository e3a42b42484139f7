//! Servers that are killed.

use super::processes::{children_of, is_dead, signal, state_and_parent};
use super::{Server, wait_until};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

impl Server {
    /// Kills the server and all of its processes at once, as a power failure would.
    pub fn kill9(&self) {
        let (postmaster, children) = self.stopped();
        signal("KILL", &[&children[..], &[postmaster]].concat());
        self.forget(postmaster, &children);
    }

    /// Kills only the process that started all others; these end when they notice.
    pub fn kill9_postmaster(&self) {
        let (postmaster, children) = self.stopped();
        signal("KILL", &[postmaster]);
        self.forget(postmaster, &children);
    }

    /// The server's first process and all the others. Stopped, it can start no further one between this
    /// look and its end.
    fn stopped(&self) -> (u32, Vec<u32>) {
        self.own_settings();
        let pid_file =
            fs::read_to_string(self.data().join("postmaster.pid")).expect("a running server");
        let postmaster: u32 = pid_file.lines().next().unwrap().parse().expect("a process id");
        signal("STOP", &[postmaster]);
        (postmaster, children_of(postmaster))
    }

    /// Waits until a killed server is gone, so that it can be started again.
    fn forget(&self, postmaster: u32, children: &[u32]) {
        // The next start is refused while one of them still has the shared memory,
        wait_until("the killed processes are gone", || {
            is_dead(postmaster) && children.iter().all(|pid| is_dead(*pid))
        });
        // and while init has not taken notice of the postmaster's end; in a
        // container it may never do that.
        let began = Instant::now();
        while state_and_parent(postmaster).is_some() {
            if began.elapsed() > Duration::from_secs(5) {
                let _ = fs::remove_file(self.data().join("postmaster.pid"));
                let _ = fs::remove_file(self.dir.join(format!(".s.PGSQL.{}.lock", self.port)));
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
