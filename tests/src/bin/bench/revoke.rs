//! How long a revoked plugin is still called: two hosts call it without a pause while an operator revokes it.

use crate::{
    Size,
    measure::{Round, Rounds, rounded},
};
use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::JoinSet};
use tsunami_tests::{
    api::{Answer, Api},
    chameleon::{chameleon, guise},
    company::{Company, text},
    gateway::Gateway,
    host::Host,
    publisher::{Publisher, agree_and_install},
    recorder::Recorder,
};

const SKILL: &str = "chameleon";
/// Calls under way on each host.
const LANES: usize = 4;
/// What is promised.
const AIM: Duration = Duration::from_secs(10);
/// Calls that each lane makes and sees refused before it is believed that none is let through any more.
const REFUSALS: usize = 50;
/// So many that a measurement does not reach it.
const RATE_MAX: u32 = 10_000;
const HOSTS: [(&str, &str); 2] = [
    ("the host that was told", "it took the revocation"),
    (
        "another host",
        "`tsunami serve` on the same database, told by PostgreSQL or by its own poll",
    ),
];

#[derive(Serialize)]
pub struct Figures {
    pub aim_ms: f64,
    /// From the operator's request until its answer.
    pub answered_p50_ms: f64,
    pub rows: Vec<Row>,
}

/// From the operator's request until the end of the last call that succeeded.
#[derive(Serialize)]
pub struct Row {
    pub host: &'static str,
    pub about: &'static str,
    pub rounds: usize,
    pub calls: usize,
    pub p50_ms: f64,
    pub slowest_ms: f64,
}

pub async fn measure(size: &Size) -> anyhow::Result<Figures> {
    eprintln!("bench: revoke, starting `tsunami dev` and `tsunami serve`");
    let gateway = Gateway::start().await;
    let other = Host::start(&gateway).await;
    let service = Recorder::start().await;
    let operator = gateway.operator();
    let mut company = Company::found(&gateway, "bench").await;
    let publisher = Publisher::register(&company.owner, "bench").await;
    let mut release = publisher.publish_approved(version(0), &operator).await;
    let mut plugin = text(&agree_and_install(&company.owner, &release).await["id"]);
    let limit = json!({ "max_actions": RATE_MAX, "per_seconds": 1 });
    let config = json!({ "settings": { "base_url": service.url }, "rate_limit": limit });
    company.configure(SKILL, &config).await;
    company.deploy().await;
    let hosts = [company.owner.clone(), other.as_of(&company.owner)];

    let mut answered = Vec::new();
    let mut last: [Vec<Duration>; 2] = Default::default();
    let mut calls = [0; 2];
    for round in 0..size.rounds {
        eprintln!("bench: revoke, round {} of {}", round + 1, size.rounds);
        let revoked = revoke(&hosts, &operator, &release).await?;
        answered.push(revoked.answered);
        for (host, lanes) in revoked.hosts.iter().enumerate() {
            last[host].push(lanes.last);
            calls[host] += lanes.calls;
        }
        // The next round's is another version, and another digest.
        release = publisher
            .publish_approved(version(round + 1), &operator)
            .await;
        plugin = upgrade(&company.owner, &plugin, &release).await?;
    }
    let rows = HOSTS.into_iter().zip(last).zip(calls);
    Ok(Figures {
        aim_ms: AIM.as_secs_f64() * 1e3,
        answered_p50_ms: rounded(all(answered).percentile_ms(50)),
        rows: rows
            .map(|(((host, about), last), calls)| {
                let last = all(last);
                Row {
                    host,
                    about,
                    rounds: last.count(),
                    calls,
                    p50_ms: rounded(last.percentile_ms(50)),
                    slowest_ms: rounded(last.percentile_ms(100)),
                }
            })
            .collect(),
    })
}

fn all(times: Vec<Duration>) -> Rounds {
    let mut all = Rounds::default();
    all.push(Round::new(times, Duration::ZERO));
    all
}

fn version(round: usize) -> Vec<u8> {
    chameleon(&guise(&format!("1.{round}.0")))
}

/// Gives the id of the installation that takes the place of this one.
async fn upgrade(owner: &Api, plugin: &str, release: &Value) -> anyhow::Result<String> {
    let path = format!("/plugins/{plugin}/upgrade");
    let answer = owner.post(&path, &json!({})).await;
    let upgraded = answer.json();
    ensure!(
        upgraded["digest"] == release["digest"],
        "the next version is not installed: {}",
        answer.text
    );
    Ok(text(&upgraded["id"]))
}

struct Revoked {
    answered: Duration,
    hosts: Vec<Lanes>,
}

/// What the lanes of one host saw.
#[derive(Default)]
struct Lanes {
    /// After the operator asked.
    last: Duration,
    calls: usize,
}

/// Has all hosts call it, revokes it, and gives what was let through after that.
async fn revoke(hosts: &[Api], operator: &Api, release: &Value) -> anyhow::Result<Revoked> {
    let mut lanes = JoinSet::new();
    let at_work = Arc::new(Semaphore::new(0));
    let asked = Arc::new(AtomicBool::new(false));
    for (host, api) in hosts.iter().enumerate() {
        for _ in 0..LANES {
            let (api, at_work, asked) = (api.clone(), at_work.clone(), asked.clone());
            lanes.spawn(async move { anyhow::Ok((host, lane(&api, &at_work, &asked).await?)) });
        }
    }
    let wanted = u32::try_from(hosts.len() * LANES)?;
    tokio::select! {
        all = at_work.acquire_many(wanted) => drop(all?),
        // A lane that broke off would never be at work.
        Some(ended) = lanes.join_next() => {
            ended??;
            bail!("a lane ended before anything was revoked");
        }
    }
    let path = format!("/marketplace/releases/{}/revoke", text(&release["id"]));
    let reason = json!({ "reason": "the benchmark is over" });
    asked.store(true, Ordering::Relaxed);
    let began = Instant::now();
    operator.post(&path, &reason).await.ok();
    let answered = began.elapsed();
    let mut seen: Vec<Lanes> = hosts.iter().map(|_| Lanes::default()).collect();
    while let Some(ended) = lanes.join_next().await {
        let (host, (last, calls)) = ended??;
        let seen = &mut seen[host];
        // A call that ended before the revocation was asked for is none that was let through after it.
        seen.last = seen.last.max(last.saturating_duration_since(began));
        seen.calls += calls;
    }
    Ok(Revoked {
        answered,
        hosts: seen,
    })
}

/// Calls until it is refused, and stays so; gives when the last call succeeded, and how many did.
async fn lane(
    api: &Api,
    at_work: &Semaphore,
    asked: &AtomicBool,
) -> anyhow::Result<(Instant, usize)> {
    let (mut last, mut calls, mut refusals) = (None::<Instant>, 0, 0);
    let mut since = None::<Instant>;
    while refusals < REFUSALS {
        let answer = call(api).await?;
        if answer.status == 200 {
            if last.is_none() {
                at_work.add_permits(1);
            }
            (last, calls, refusals) = (Some(Instant::now()), calls + 1, 0);
        } else {
            ensure!(
                answer.text.contains("plugin_revoked"),
                "{}: {}",
                answer.status,
                answer.text
            );
            refusals += 1;
        }
        if since.is_none() && asked.load(Ordering::Relaxed) {
            since = Some(Instant::now());
        }
        ensure!(
            since.is_none_or(|since| since.elapsed() < 2 * AIM),
            "it is still called {:?} after it was revoked",
            2 * AIM
        );
    }
    Ok((last.context("it was never called")?, calls))
}

async fn call(api: &Api) -> anyhow::Result<Answer> {
    let request = api.request(reqwest::Method::POST, &format!("/skills/{SKILL}/tell"));
    Ok(Api::try_send(request.json(&json!({ "params": {} }))).await?)
}
