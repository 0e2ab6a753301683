//! What `tsunami dev` itself takes of the memory. PostgreSQL, Temporal and the instances are processes of their own,
//! and not counted.

use crate::{Size, measure::rounded};
use anyhow::Context;
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tsunami_tests::{company::Company, gateway::Gateway};

/// Tenants made at once.
const LANES: usize = 8;
/// Memory is read until so many readings in a row differ by no more than this share.
const READINGS: usize = 6;
const SPREAD_MAX: f64 = 0.01;
const READING_EVERY: Duration = Duration::from_millis(500);
const SETTLES_WITHIN: Duration = Duration::from_secs(60);
/// Where the tenants' Slack would be: nothing is sent.
const NOWHERE: &str = "http://127.0.0.1:9/api";
const TOKEN: &str = "xoxb-161803398874-989484820458-benchBENCHbenchBENCHbenc";

#[derive(Serialize)]
pub struct Figures {
    pub tenants: usize,
    pub tenants_have: &'static str,
    pub rows: Vec<Row>,
}

#[derive(Serialize)]
pub struct Row {
    pub when: &'static str,
    pub about: String,
    pub rss_mib: f64,
    /// Pages that are shared with other processes count in part.
    pub pss_mib: f64,
}

pub async fn measure(size: &Size) -> anyhow::Result<Figures> {
    eprintln!("bench: memory, starting `tsunami dev`");
    let mut gateway = Gateway::start().await;
    let mut rows = vec![row("idle", "just started, no tenant", &gateway).await?];
    eprintln!("bench: memory, making {} tenants", size.tenants);
    let began = Instant::now();
    make_tenants(&gateway, size.tenants).await?;
    let about = format!(
        "right after {} tenants were made, in {} s",
        size.tenants,
        began.elapsed().as_secs()
    );
    rows.push(row("tenants", &about, &gateway).await?);
    tokio::task::block_in_place(|| gateway.stop());
    gateway.start_host().await;
    rows.push(row("restarted", "started again with these tenants", &gateway).await?);
    Ok(Figures {
        tenants: size.tenants,
        tenants_have: "an owner with a key, an agent, Slack installed and set up, a bot token; no instance",
        rows,
    })
}

async fn make_tenants(gateway: &Gateway, count: usize) -> anyhow::Result<()> {
    let operator = gateway.operator();
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let operator = operator.clone();
        lanes.spawn(async move {
            for number in (lane..count).step_by(LANES) {
                let company = Company::found_by(&operator, &format!("tenant-{number}")).await;
                company.equip(NOWHERE, TOKEN).await;
            }
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane?;
    }
    Ok(())
}

async fn row(when: &'static str, about: &str, gateway: &Gateway) -> anyhow::Result<Row> {
    let [rss, pss] = settled(gateway.pid()).await?;
    let mib = |kib: u64| rounded(kib as f64 / 1024.0);
    Ok(Row {
        when,
        about: about.to_owned(),
        rss_mib: mib(rss),
        pss_mib: mib(pss),
    })
}

/// RSS and PSS in KiB, once they stand still.
async fn settled(pid: i32) -> anyhow::Result<[u64; 2]> {
    let deadline = tokio::time::Instant::now() + SETTLES_WITHIN;
    let mut readings = Vec::new();
    loop {
        readings.push(read(pid)?);
        let last = &readings[readings.len().saturating_sub(READINGS)..];
        let (least, most) = (
            last.iter().map(|r| r[0]).min(),
            last.iter().map(|r| r[0]).max(),
        );
        let (least, most) = (least.unwrap_or(0) as f64, most.unwrap_or(0) as f64);
        let stands = last.len() == READINGS && most - least <= most * SPREAD_MAX;
        if stands || tokio::time::Instant::now() > deadline {
            return Ok(readings[readings.len() - 1]);
        }
        tokio::time::sleep(READING_EVERY).await;
    }
}

fn read(pid: i32) -> anyhow::Result<[u64; 2]> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {path}; the part `memory` needs Linux"))?;
    let kib = |name: &str| -> anyhow::Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        Ok(number
            .with_context(|| format!("{path} has no {name}"))?
            .parse()?)
    };
    Ok([kib("Rss:")?, kib("Pss:")?])
}
