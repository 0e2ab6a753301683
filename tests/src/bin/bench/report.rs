//! The figures, for people and as JSON.

use crate::{
    bridge,
    measure::{Round, Rounds, rounded},
    memory, revoke, site, tasks,
};
use serde::Serialize;
use std::{
    fmt,
    io::Write,
    time::{Duration, Instant},
};

const DISK_SYNCS: usize = 200;

#[derive(Serialize)]
pub struct Report {
    pub version: &'static str,
    /// With optimisation or without; figures without mean nothing.
    pub build: &'static str,
    pub quick: bool,
    pub machine: Machine,
    pub bridge: Option<bridge::Figures>,
    pub tasks: Option<tasks::Figures>,
    pub memory: Option<memory::Figures>,
    pub revoke: Option<revoke::Figures>,
}

#[derive(Serialize)]
pub struct Machine {
    pub system: String,
    pub processor: String,
    pub processors: usize,
    pub memory_gib: Option<u64>,
    /// Of a small write that waits for the disk, before anything was measured: each call waits for some of them.
    pub disk_sync_p50_ms: f64,
}

impl Report {
    pub fn new(quick: bool) -> anyhow::Result<Self> {
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
            quick,
            machine: Machine::of_this()?,
            bridge: None,
            tasks: None,
            memory: None,
            revoke: None,
        })
    }
}

impl Machine {
    fn of_this() -> anyhow::Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        Ok(Self {
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: field(&read("/proc/cpuinfo"), "model name")
                .unwrap_or_else(|| "unknown".to_owned()),
            processors: std::thread::available_parallelism().map_or(1, Into::into),
            memory_gib: memory.map(|kib| (kib + (1 << 19)) >> 20),
            disk_sync_p50_ms: disk_sync_ms()?,
        })
    }
}

fn disk_sync_ms() -> anyhow::Result<f64> {
    let folder = site::folder()?;
    let mut file = std::fs::File::create(folder.path().join("sync"))?;
    let mut times = Vec::with_capacity(DISK_SYNCS);
    for _ in 0..DISK_SYNCS {
        let began = Instant::now();
        file.write_all(&[0; 512])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    let mut all = Rounds::default();
    all.push(Round::new(times, Duration::ZERO));
    Ok(rounded(all.percentile_ms(50)))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        let memory = machine
            .memory_gib
            .map_or_else(String::new, |gib| format!(", {gib} GiB"));
        writeln!(
            f,
            "\nServiceTsunami {} ({} build{})",
            self.version,
            self.build,
            if self.quick {
                ", quick: coarse figures"
            } else {
                ""
            }
        )?;
        writeln!(
            f,
            "{}, {} x {}{memory}; the disk takes {:.2} ms for a small write",
            machine.system, machine.processors, machine.processor, machine.disk_sync_p50_ms
        )?;
        if let Some(figures) = &self.bridge {
            write_bridge(f, figures)?;
        }
        if let Some(figures) = &self.tasks {
            write_tasks(f, figures)?;
        }
        if let Some(figures) = &self.memory {
            write_memory(f, figures)?;
        }
        if let Some(figures) = &self.revoke {
            write_revoke(f, figures)?;
        }
        Ok(())
    }
}

fn write_bridge(f: &mut fmt::Formatter<'_>, figures: &bridge::Figures) -> fmt::Result {
    writeln!(
        f,
        "\nOne outside call, a POST to a recorder on this machine by the tenant's OpenClaw instance"
    )?;
    let mut table = Table::new(&[
        "",
        "in flight",
        "calls",
        "p50 ms",
        "p99 ms",
        "calls/s",
        "p50 added ms",
        "speed ratio",
    ]);
    for row in &figures.rows {
        table.push(vec![
            row.way.to_owned(),
            row.in_flight.to_string(),
            row.calls.to_string(),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
            format!("{:.0}", row.calls_per_second),
            format!("{:.2}", row.p50_added_ms),
            format!("{:.2}", row.speed_ratio),
        ]);
    }
    write!(f, "{table}")?;
    legend(f, figures.rows.iter().map(|row| (row.way, row.about)))?;
    writeln!(
        f,
        "Added and ratio are beside `bridge`, round by round. Aim: the router adds at most {} ms to the p50, alone.",
        figures.p50_added_ms_aim
    )
}

fn write_tasks(f: &mut fmt::Formatter<'_>, figures: &tasks::Figures) -> fmt::Result {
    writeln!(
        f,
        "\nA task of one skill call, and a bare workflow with as many activities ({}) on the same Temporal server",
        figures.activities
    )?;
    let mut table = Table::new(&[
        "",
        "in flight",
        "count",
        "p50 ms",
        "p99 ms",
        "per s",
        "speed ratio",
    ]);
    for row in &figures.rows {
        table.push(vec![
            row.what.to_owned(),
            row.in_flight.to_string(),
            row.count.to_string(),
            format!("{:.1}", row.p50_ms),
            format!("{:.1}", row.p99_ms),
            format!("{:.1}", row.per_second),
            format!("{:.2}", row.speed_ratio),
        ]);
    }
    let first = &figures.first_trace_row;
    table.push(vec![
        "first trace row".to_owned(),
        "1".to_owned(),
        first.tasks.to_string(),
        format!("{:.1}", first.p50_ms),
        format!("{:.1}", first.p99_ms),
    ]);
    write!(f, "{table}")?;
    legend(f, figures.rows.iter().map(|row| (row.what, row.about)))?;
    legend(
        f,
        [(
            "first trace row",
            "from POST /agent-tasks until the first line of the task's trace is committed",
        )],
    )?;
    writeln!(
        f,
        "The ratio is beside the bare workflow, round by round. Aim: at least {}.",
        figures.speed_ratio_aim
    )
}

fn write_memory(f: &mut fmt::Formatter<'_>, figures: &memory::Figures) -> fmt::Result {
    writeln!(
        f,
        "\nMemory of the process `tsunami dev` itself, without PostgreSQL, Temporal and instances"
    )?;
    let mut table = Table::new(&["", "RSS MiB", "PSS MiB"]);
    for row in &figures.rows {
        table.push(vec![
            row.when.to_owned(),
            format!("{:.1}", row.rss_mib),
            format!("{:.1}", row.pss_mib),
        ]);
    }
    write!(f, "{table}")?;
    legend(
        f,
        figures
            .rows
            .iter()
            .map(|row| (row.when, row.about.as_str())),
    )?;
    writeln!(
        f,
        "Each of the {} tenants has {}.",
        figures.tenants, figures.tenants_have
    )?;
    let mut table = Table::new(&["", "count", "p50 ms", "p99 ms", "slowest ms"]);
    for row in &figures.plugins {
        table.push(vec![
            row.what.to_owned(),
            row.count.to_string(),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
            format!("{:.1}", row.slowest_ms),
        ]);
    }
    write!(f, "\n{table}")?;
    legend(f, figures.plugins.iter().map(|row| (row.what, row.about)))
}

fn write_revoke(f: &mut fmt::Formatter<'_>, figures: &revoke::Figures) -> fmt::Result {
    writeln!(
        f,
        "\nFrom an operator's revocation until the end of the last call that succeeded, with calls under way on both hosts"
    )?;
    let mut table = Table::new(&["", "rounds", "calls", "p50 ms", "slowest ms"]);
    for row in &figures.rows {
        table.push(vec![
            row.host.to_owned(),
            row.rounds.to_string(),
            row.calls.to_string(),
            format!("{:.1}", row.p50_ms),
            format!("{:.1}", row.slowest_ms),
        ]);
    }
    write!(f, "{table}")?;
    legend(f, figures.rows.iter().map(|row| (row.host, row.about)))?;
    writeln!(
        f,
        "The revocation itself was answered after {:.1} ms (p50). Aim: no call after {:.0} ms.",
        figures.answered_p50_ms, figures.aim_ms
    )
}

/// What the rows are, each once.
fn legend<'a>(
    f: &mut fmt::Formatter<'_>,
    rows: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> fmt::Result {
    let mut told = Vec::new();
    for (name, about) in rows {
        if !told.contains(&name) {
            writeln!(f, "  {name}: {about}")?;
            told.push(name);
        }
    }
    Ok(())
}

/// Aligned: names to the left, numbers to the right.
struct Table(Vec<Vec<String>>);

impl Table {
    fn new(head: &[&str]) -> Self {
        Self(vec![head.iter().map(|cell| (*cell).to_owned()).collect()])
    }

    fn push(&mut self, row: Vec<String>) {
        self.0.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        for row in &self.0 {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                line += &match column {
                    0 => format!("{cell:<0$}", width(0)),
                    _ => format!("  {cell:>0$}", width(column)),
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
