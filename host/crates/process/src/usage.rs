//! What a process and its helpers use.

use std::time::Duration;

/// Of a process and all of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, in bytes. Pages that the processes share count once for each.
    pub memory_bytes: u64,
    /// Processor time used so far, of user and system together.
    pub cpu: Duration,
    /// How long the first process has been running.
    pub up: Duration,
    pub processes: u32,
}

/// Fields of `/proc/PID/stat`, `proc(5)`, counted from the 3rd.
#[cfg(target_os = "linux")]
mod field {
    pub const GROUP: usize = 5 - 3;
    pub const USER_TICKS: usize = 14 - 3;
    pub const SYSTEM_TICKS: usize = 15 - 3;
    pub const START_TICKS: usize = 22 - 3;
    pub const RESIDENT_PAGES: usize = 24 - 3;
}

#[cfg(target_os = "linux")]
pub fn of_group(leader: i32) -> Option<Usage> {
    use crate::identity::stat_fields;
    use nix::unistd::{SysconfVar, sysconf};
    let system = |name| {
        sysconf(name)
            .ok()
            .flatten()
            .and_then(|value| u64::try_from(value).ok())
    };
    let (ticks_per_second, page_bytes) =
        (system(SysconfVar::CLK_TCK)?, system(SysconfVar::PAGE_SIZE)?);
    let seconds = |ticks: u64| Duration::from_millis(ticks * 1000 / ticks_per_second);
    let number = |fields: &[String], at: usize| {
        fields
            .get(at)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    };

    let started = seconds(number(&stat_fields(leader)?, field::START_TICKS));
    let group = leader.to_string();
    let mut usage = Usage {
        memory_bytes: 0,
        cpu: Duration::ZERO,
        up: since_boot()?.saturating_sub(started),
        processes: 0,
    };
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(fields) = pid
            .and_then(stat_fields)
            .filter(|fields| fields.get(field::GROUP) == Some(&group))
        else {
            continue;
        };
        usage.memory_bytes += number(&fields, field::RESIDENT_PAGES) * page_bytes;
        usage.cpu +=
            seconds(number(&fields, field::USER_TICKS) + number(&fields, field::SYSTEM_TICKS));
        usage.processes += 1;
    }
    Some(usage)
}

#[cfg(target_os = "linux")]
fn since_boot() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    text.split_whitespace()
        .next()?
        .parse()
        .ok()
        .map(Duration::from_secs_f64)
}

#[cfg(not(target_os = "linux"))]
pub fn of_group(_leader: i32) -> Option<Usage> {
    None
}
