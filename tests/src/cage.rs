//! Cages: control groups that give a process less than it wants, in either version of the kernel's interface.
//!
//! Where none can be made (no root, or a container that does not hand them on), the answer is `None`, and the story
//! says what it does instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const ROOT: &str = "/sys/fs/cgroup";
/// Of the second version, where both are mounted.
const UNIFIED: &str = "/sys/fs/cgroup/unified";
/// The kernel counts a processor's time in stretches of so many microseconds.
const PERIOD_US: u64 = 100_000;

static CAGES: AtomicU32 = AtomicU32::new(0);

/// A control group; it goes with this value, and whoever is in it is let out.
#[derive(Debug)]
pub struct Cage {
    dir: PathBuf,
    /// Where those who are in it go.
    outside: PathBuf,
}

impl Cage {
    fn make(parent: &Path) -> Option<Self> {
        let id = CAGES.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("totality-{}-{id}", std::process::id()));
        fs::create_dir(&dir).ok()?;
        Some(Self {
            dir,
            outside: parent.to_owned(),
        })
    }

    /// With a controller of the first version, or of the second where it is handed on.
    fn with(controller: &str) -> Option<(Self, bool)> {
        let old = Path::new(ROOT).join(controller);
        if old.is_dir() {
            return Some((Self::make(&old)?, true));
        }
        // Fails without harm where it is on already, or may not be.
        let _ = fs::write(
            Path::new(ROOT).join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
        Some((Self::make(Path::new(ROOT))?, false))
    }

    fn set(self, name: &str, value: &str) -> Option<Self> {
        fs::write(self.dir.join(name), value).ok()?;
        Some(self)
    }

    /// Room for so many bytes of memory.
    pub fn memory(bytes: u64) -> Option<Self> {
        let (cage, is_old) = Self::with("memory")?;
        let name = if is_old {
            "memory.limit_in_bytes"
        } else {
            "memory.max"
        };
        cage.set(name, &bytes.to_string())
    }

    /// So many hundredths of one processor.
    pub fn cpu(percent: u64) -> Option<Self> {
        let (cage, is_old) = Self::with("cpu")?;
        let quota = PERIOD_US * percent / 100;
        if is_old {
            let cage = cage.set("cpu.cfs_period_us", &PERIOD_US.to_string())?;
            cage.set("cpu.cfs_quota_us", &quota.to_string())
        } else {
            cage.set("cpu.max", &format!("{quota} {PERIOD_US}"))
        }
    }

    /// Puts a process in.
    pub fn hold(self, pid: u32) -> Option<Self> {
        self.set("cgroup.procs", &pid.to_string())
    }

    /// The file that takes the ids of those who are to be in it: for a program that goes in by itself.
    pub fn gate(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// Freezes one thread of a process, and no other: the outer cage holds the process, the inner one the thread.
    pub fn freeze_thread(pid: u32, tid: u32) -> Option<[Self; 2]> {
        let root = [UNIFIED, ROOT].into_iter().map(Path::new).find(|root| {
            root.join("cgroup.procs").exists() && root.join("cgroup.subtree_control").exists()
        })?;
        let outer = Self::make(root)?.hold(pid)?;
        let inner = Self::make(&outer.dir)?
            .set("cgroup.type", "threaded")?
            .set("cgroup.threads", &tid.to_string())?
            .set("cgroup.freeze", "1")?;
        Some([inner, outer])
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        let _ = fs::write(self.dir.join("cgroup.freeze"), "0");
        for (members, gate) in [
            ("cgroup.threads", "cgroup.threads"),
            ("cgroup.procs", "cgroup.procs"),
        ] {
            let inside = fs::read_to_string(self.dir.join(members)).unwrap_or_default();
            for id in inside.lines() {
                let _ = fs::write(self.outside.join(gate), id);
            }
        }
        let _ = fs::remove_dir(&self.dir);
    }
}
