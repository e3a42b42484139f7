//! A file system that can be filled to the last byte.

use crate::common::Server;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tmpfs of the test's own. It is taken away when it is dropped, so drop the server first.
pub struct SmallDisk {
    pub dir: PathBuf,
}

impl SmallDisk {
    /// None where nothing can be mounted, which takes root's rights.
    pub fn mount(server: &Server, name: &str, megabytes: u32) -> Option<SmallDisk> {
        let dir = Path::new(server.host()).join(name);
        fs::create_dir(&dir).expect("a directory");
        let size = format!("size={megabytes}m,mode=0700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&dir);
        if !succeeds(&mut mount) {
            return None;
        }
        let disk = SmallDisk { dir };
        assert!(succeeds(Command::new("chown").arg("postgres:").arg(&disk.dir)), "chown");
        Some(disk)
    }

    /// Takes all the room there is left.
    pub fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("the ballast");
        let block = vec![1_u8; 1 << 20];
        let mut size = block.len();
        // Smaller and smaller pieces, until not even one byte finds room.
        while size > 0 {
            if ballast.write_all(&block[..size]).is_err() {
                size /= 16;
            }
        }
    }

    pub fn free(&self) {
        fs::remove_file(self.ballast()).expect("the ballast");
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that has been told to end may still be about to.
        let _ = succeeds(Command::new("umount").arg("--lazy").arg(&self.dir));
    }
}

pub fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
