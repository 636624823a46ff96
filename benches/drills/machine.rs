//! What /proc says: CPU time of a server's processes, the share of the machine's that went to the kernel, and how busy
//! the machine is.

use std::fs;
use std::time::Duration;

/// CPU times up to now.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    server: Duration,
    /// Of the whole machine, in ticks. A backend's own are cut to whole ticks, more than most of them use.
    user: u64,
    system: u64,
}

/// CPU times between two looks.
#[derive(Clone, Copy)]
pub(crate) struct Spent {
    /// By the processes that the server has now.
    pub(crate) server: Duration,
    /// Of the machine's, in percent.
    pub(crate) system_share: u64,
}

impl Usage {
    /// Of the server whose first process is `pid`.
    pub(crate) fn now(pid: u32) -> Self {
        let stat = fs::read_to_string("/proc/stat").expect("Linux has it");
        // proc(5): cpu user nice system idle iowait irq softirq
        let ticks: Vec<u64> = stat.split_whitespace().skip(1).take(7).filter_map(|ticks| ticks.parse().ok()).collect();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let pids = children.split_whitespace().map(str::to_owned).chain([pid.to_string()]);
        Self {
            server: pids.map(|pid| running_time(&pid)).sum(),
            user: ticks[0],
            system: ticks[2] + ticks[5] + ticks[6],
        }
    }

    /// Since an earlier look.
    pub(crate) fn since(self, earlier: Self) -> Spent {
        let (user, system) = (self.user - earlier.user, self.system - earlier.system);
        Spent {
            server: self.server.saturating_sub(earlier.server),
            system_share: 100 * system / (user + system).max(1),
        }
    }
}

/// In nanoseconds, where /proc/PID/stat has ticks.
fn running_time(pid: &str) -> Duration {
    let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let nanos = schedstat.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// How many processes have wanted a core in the last minute, on average: with whoever else is at work here.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").expect("Linux has it");
    text.split_whitespace().next().unwrap_or_default().to_owned()
}
