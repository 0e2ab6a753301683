//! What `tsunami dev` itself takes of the memory, with tenants and their plugins, and how long those take to install and
//! to be there again after a start. PostgreSQL, Temporal and the instances are processes of their own, and not counted.

use crate::{
    Size,
    measure::{Round, Rounds, rounded},
};
use anyhow::Context;
use serde::Serialize;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tsunami_tests::{api::Api, company::Company, company::text, component, gateway::Gateway};

/// Tenants made at once.
const LANES: usize = 8;
/// Memory is read until so many readings in a row differ by no more than this share.
const READINGS: usize = 6;
const SPREAD_MAX: f64 = 0.01;
const READING_EVERY: Duration = Duration::from_millis(500);
const SETTLES_WITHIN: Duration = Duration::from_secs(60);
/// What each tenant has.
const PLUGINS: [&str; 3] = ["slack", "github", "notion"];
/// Tenants whose plugins are called after the restart.
const CALLED_MAX: usize = 100;

#[derive(Serialize)]
pub struct Figures {
    pub tenants: usize,
    pub tenants_have: &'static str,
    pub rows: Vec<Row>,
    pub plugins: Vec<Took>,
}

/// How long something took that is done with plugins.
#[derive(Serialize)]
pub struct Took {
    pub what: &'static str,
    pub about: &'static str,
    pub count: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub slowest_ms: f64,
}

impl Took {
    fn of(what: &'static str, about: &'static str, times: Vec<Duration>) -> Self {
        let mut all = Rounds::default();
        all.push(Round::new(times, Duration::ZERO));
        Self {
            what,
            about,
            count: all.count(),
            p50_ms: rounded(all.percentile_ms(50)),
            p99_ms: rounded(all.percentile_ms(99)),
            slowest_ms: rounded(all.percentile_ms(100)),
        }
    }
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
    let (tenants, installs) = make_tenants(&gateway, size.tenants).await?;
    let about = format!(
        "right after {} tenants were made, in {} s",
        size.tenants,
        began.elapsed().as_secs()
    );
    rows.push(row("tenants", &about, &gateway).await?);
    tokio::task::block_in_place(|| gateway.stop());
    gateway.start_host().await;
    rows.push(row("restarted", "started again with these tenants", &gateway).await?);
    let owners: Vec<_> = tenants
        .iter()
        .take(CALLED_MAX)
        .map(|key| gateway.operator().with_key(key))
        .collect();
    let first = dry_runs(&owners).await?;
    let later = dry_runs(&owners).await?;
    rows.push(
        row(
            "called",
            "after dry runs of all plugins of 100 tenants",
            &gateway,
        )
        .await?,
    );
    Ok(Figures {
        tenants: size.tenants,
        tenants_have: "an owner with a key, an agent, and three plugins: Slack, GitHub and Notion; no instance",
        rows,
        plugins: vec![
            Took::of(
                "install",
                "POST /plugins with the component, eight at once",
                installs,
            ),
            Took::of(
                "first call",
                "a dry run over the API, the tenant's first of this plugin since the restart",
                first,
            ),
            Took::of("later call", "the same once more", later),
        ],
    })
}

/// The owners' keys, and how long each installation took.
async fn make_tenants(
    gateway: &Gateway,
    count: usize,
) -> anyhow::Result<(Vec<String>, Vec<Duration>)> {
    let operator = gateway.operator();
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let operator = operator.clone();
        lanes.spawn(async move {
            let (mut keys, mut times) = (Vec::new(), Vec::new());
            for number in (lane..count).step_by(LANES) {
                let company = Company::found_by(&operator, &format!("tenant-{number}")).await;
                let agent =
                    json!({ "name": "data_analyst", "capabilities": ["reporting"], "trust": 0.8 });
                company.owner.post("/agents", &agent).await.ok();
                for plugin in PLUGINS {
                    let file = component(plugin);
                    let began = Instant::now();
                    company.owner.upload("/plugins", file).await.ok();
                    times.push(began.elapsed());
                }
                keys.push(company.owner.key.clone());
            }
            (keys, times)
        });
    }
    let (mut keys, mut times) = (Vec::new(), Vec::new());
    while let Some(lane) = lanes.join_next().await {
        let (of_lane, took) = lane?;
        keys.extend(of_lane);
        times.extend(took);
    }
    Ok((keys, times))
}

/// One dry run of each of the tenants' plugins, with the first example that the plugin gives.
async fn dry_runs(owners: &[Api]) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for owner in owners {
        let plugins = owner.get("/plugins").await.ok();
        for plugin in plugins["items"].as_array().into_iter().flatten() {
            let action = &plugin["actions"][0];
            let (skill, name) = (text(&plugin["skill"]), text(&action["name"]));
            let body = json!({ "params": action["examples"][0]["params"] });
            let path = format!("/skills/{skill}/{name}?dry_run=true");
            let began = Instant::now();
            let dry = owner.post(&path, &body).await.ok();
            times.push(began.elapsed());
            anyhow::ensure!(dry["request"].is_object(), "{skill} {name}: {dry}");
        }
    }
    Ok(times)
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
