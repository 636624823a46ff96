//! `process_*`: the kernel's numbers of this process, under the names that Prometheus's own clients have for them.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::exposition::Exposition;
use crate::metrics::Metric;

/// All that can be read; `started` is when the process started, since 1970.
pub(super) fn put(page: &mut Exposition, started: Duration) {
    page.put(Metric::ProcessStartTime, &[], started.as_secs_f64());
    let busy = clock_gettime(ClockId::ProcessCPUTime);
    if let Ok(busy) = Duration::try_from(busy) {
        page.put(Metric::ProcessCpu, &[], busy.as_secs_f64());
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (metric, key) in [(Metric::ProcessResidentMemory, "VmRSS:"), (Metric::ProcessVirtualMemory, "VmSize:")] {
        if let Some(bytes) = bytes(&status, key) {
            page.put(metric, &[], bytes);
        }
    }
    // The directory itself is open meanwhile.
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        page.put(Metric::ProcessOpenFiles, &[], files.count().saturating_sub(1));
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        page.put(Metric::ProcessFilesMax, &[], most);
    }
}

/// A line such as `VmRSS: 12345 kB` (`proc_pid_status(5)`).
fn bytes(status: &str, key: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_bytes() {
        let status = "VmPeak:\t    9 kB\nVmSize:\t  2048 kB\nVmRSS:\t     1 kB\n";
        assert_eq!([bytes(status, "VmSize:"), bytes(status, "VmRSS:")], [Some(2 << 20), Some(1024)]);
        assert_eq!([bytes(status, "VmSwap:"), bytes("VmRSS:\t1 MB", "VmRSS:")], [None, None]);
    }
}
