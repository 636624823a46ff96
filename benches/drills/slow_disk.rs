//! A disk as slow as a cloud volume, under a server whose files are in memory: `slow_disk.c`, built and preloaded.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::root;

/// What is added to the disk's own time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Delays {
    /// To each fsync.
    pub(crate) sync: Duration,
    /// To each write that makes a table or an index longer.
    pub(crate) extend: Duration,
    /// To the next such write.
    pub(crate) extend_once: Duration,
}

impl Delays {
    /// A healthy cloud volume.
    pub(crate) const VOLUME: Self =
        Self { sync: Duration::from_millis(2), extend: Duration::ZERO, extend_once: Duration::ZERO };

    /// One over its IOPS, which answers nothing for three seconds.
    pub(crate) const STALLED: Self =
        Self { extend: Duration::from_millis(1), extend_once: Duration::from_secs(3), ..Self::VOLUME };
}

/// The library and the file that says what it does.
pub(crate) struct SlowDisk {
    library: PathBuf,
    words_path: PathBuf,
    words: File,
}

impl SlowDisk {
    /// Builds the library in `programs`; none without a compiler.
    pub(crate) fn build(programs: &Path) -> Option<Self> {
        let (library, words_path) = (programs.join("slow_disk.so"), programs.join("slow_disk.words"));
        let source = root().join("benches/drills/slow_disk.c");
        let built =
            Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
        if !built.is_ok_and(|status| status.success()) {
            return None;
        }
        let words = OpenOptions::new().create_new(true).write(true).open(&words_path).expect("our own directory");
        words.set_len(4096).expect("an empty file grows");
        words.set_permissions(PermissionsExt::from_mode(0o666)).expect("our own file");
        let disk = Self { library, words_path, words };
        disk.set(Delays::VOLUME);
        Some(disk)
    }

    /// Under this server.
    pub(crate) fn preload(&self, server: &mut Command) {
        server.env("LD_PRELOAD", &self.library).env("SLOW_DISK", &self.words_path);
    }

    /// From now on.
    pub(crate) fn set(&self, delays: Delays) {
        let words = [delays.sync, delays.extend, delays.extend_once]
            .map(|delay| u32::try_from(delay.as_micros()).expect("seconds at most").to_ne_bytes());
        self.words.write_all_at(words.as_flattened(), 0).expect("our own file");
    }
}
