//! One outside call: bare, through the router, and over the API.
//!
//! All three have the same instance perform the same exchange, over the same connection, with a recorder on this
//! machine. The bare one is what a program would do that had the credential and kept no account of what it does.

use crate::{
    Size,
    measure::{IN_FLIGHT, Round, Rounds, in_lanes, rounded, turns},
    site::{ACTION, CHANNEL, MESSAGE, SKILL, Site, TOKEN},
};
use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tsunami::{
    instances,
    skills::{CallRequest, Origin, Outcome, Who, WhoKind, router},
};
use tsunami_openclaw::{
    Client,
    bridge::{ExecuteRequest, HttpRequest, PrivateNetwork},
};
use tsunami_tests::api::Api;
use uuid::Uuid;

/// Calls of each way before anything is measured: connections are opened, and the instance's code gets compiled.
const WARM_UP: usize = 640;
const STATUS_WAIT: Duration = Duration::from_secs(10);

#[derive(Serialize)]
pub struct Figures {
    pub p50_added_ms_aim: f64,
    pub rows: Vec<Row>,
}

#[derive(Serialize)]
pub struct Row {
    pub way: &'static str,
    pub about: &'static str,
    pub in_flight: usize,
    pub calls: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub calls_per_second: f64,
    /// Of the first row's: the medians over the rounds.
    pub p50_added_ms: f64,
    pub speed_ratio: f64,
    pub p50_ms_of_rounds: Rounds,
}

pub async fn measure(site: &Site, size: &Size) -> anyhow::Result<Figures> {
    let ways = [
        Way::Direct(Direct::of(site).await?.into()),
        Way::Router(site.clone().into()),
        Way::Api(site.company.owner.clone().into()),
    ];
    let mut rows = Vec::new();
    for way in &ways {
        way.calls(site, IN_FLIGHT[1], WARM_UP).await?;
    }
    let alone = alternating(site, &ways, size).await?;
    rows.extend(as_rows(&ways, alone, 1));
    let together = in_turns(site, &ways, size).await?;
    rows.extend(as_rows(&ways, together, IN_FLIGHT[1]));
    Ok(Figures {
        p50_added_ms_aim: 1.0,
        rows,
    })
}

/// One call after the other, each of another way. So none finds the instance and the disk as its own like left them: a
/// bridge that does nothing but one thing is faster at it than it is between other work.
async fn alternating(site: &Site, ways: &[Way], size: &Size) -> anyhow::Result<Vec<Rounds>> {
    let mut rounds: Vec<Rounds> = ways.iter().map(|_| Rounds::default()).collect();
    for round in 0..size.rounds {
        progress(1, round, size);
        let mut times: Vec<Vec<Duration>> = ways.iter().map(|_| Vec::new()).collect();
        for call in 0..size.calls[0] {
            for turn in turns(call, ways.len()) {
                let call = ways[turn].calls(site, 1, 1).await?;
                times[turn].push(call.together());
            }
        }
        for (rounds, times) in rounds.iter_mut().zip(times) {
            let together = times.iter().sum();
            rounds.push(Round::new(times, together));
        }
    }
    Ok(rounds)
}

/// Many calls of one way at once, then of another.
async fn in_turns(site: &Site, ways: &[Way], size: &Size) -> anyhow::Result<Vec<Rounds>> {
    let mut rounds: Vec<Rounds> = ways.iter().map(|_| Rounds::default()).collect();
    for round in 0..size.rounds {
        progress(IN_FLIGHT[1], round, size);
        for turn in turns(round, ways.len()) {
            rounds[turn].push(ways[turn].calls(site, IN_FLIGHT[1], size.calls[1]).await?);
        }
    }
    Ok(rounds)
}

fn progress(in_flight: usize, round: usize, size: &Size) {
    let (round, rounds) = (round + 1, size.rounds);
    eprintln!("bench: bridge, {in_flight} in flight, round {round} of {rounds}");
}

fn as_rows(ways: &[Way], rounds: Vec<Rounds>, in_flight: usize) -> Vec<Row> {
    let beside: Vec<_> = rounds
        .iter()
        .map(|own| (own.p50_added_ms(&rounds[0]), own.speed_ratio(&rounds[0])))
        .collect();
    let all = ways.iter().zip(rounds).zip(beside);
    all.map(|((way, rounds), (added, ratio))| Row {
        way: way.name(),
        about: way.about(),
        in_flight,
        calls: rounds.count(),
        p50_ms: rounded(rounds.percentile_ms(50)),
        p99_ms: rounded(rounds.percentile_ms(99)),
        calls_per_second: rounded(rounds.per_second()),
        p50_added_ms: rounded(added),
        speed_ratio: rounded(ratio),
        p50_ms_of_rounds: rounds,
    })
    .collect()
}

/// A way to have the exchange made.
#[derive(Clone)]
enum Way {
    Direct(Arc<Direct>),
    Router(Arc<Site>),
    Api(Arc<Api>),
}

impl Way {
    fn name(&self) -> &'static str {
        match self {
            Self::Direct(_) => "bridge",
            Self::Router(_) => "router",
            Self::Api(_) => "API",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Self::Direct(_) => {
                "`servicetsunami.execute` over the tenant's gateway connection, and nothing else"
            }
            Self::Router(_) => {
                "the same exchange through `skills::router`: configuration, parameter schema, scopes, rate limit, credential, adapter, journal of requests, trace"
            }
            Self::Api(_) => {
                "the same through POST /api/v1/skills/slack/send_message, client included"
            }
        }
    }

    /// Makes calls, and looks whether each arrived once.
    async fn calls(&self, site: &Site, in_flight: usize, calls: usize) -> anyhow::Result<Round> {
        let before = site.recorder.answered();
        let way = self.clone();
        let round = in_lanes(in_flight, calls, move || {
            let way = way.clone();
            async move { way.call().await }
        });
        let round = round.await?;
        let (made, arrived) = (
            calls / in_flight * in_flight,
            site.recorder.answered() - before,
        );
        ensure!(
            made == arrived,
            "{}: {made} calls were made, and {arrived} arrived",
            self.name()
        );
        Ok(round)
    }

    async fn call(&self) -> anyhow::Result<()> {
        match self {
            Self::Direct(direct) => direct.call().await,
            Self::Router(site) => through_router(site).await,
            Self::Api(owner) => over_api(owner).await,
        }
    }
}

fn params() -> Value {
    json!({ "channel": CHANNEL, "text": MESSAGE })
}

/// As the API's handler does it, without the API.
async fn through_router(site: &Site) -> anyhow::Result<()> {
    let request = CallRequest {
        idempotency_key: format!("bench:{}", fresh_id()),
        skill: SKILL.to_owned(),
        action: ACTION.to_owned(),
        params: params(),
        actor: "bench".to_owned(),
        who: Who {
            kind: WhoKind::System,
            id: "bench".to_owned(),
            roles: Vec::new(),
            trust: 1.0,
            delegation_depth: 0,
            on_behalf_of: "bench".to_owned(),
            on_behalf_of_key: None,
        },
        origin: Origin::Direct,
    };
    let refused = |problem| anyhow::anyhow!("the router refuses: {problem}");
    let made = router::make(&site.app, site.tenant, &request).await;
    match made.map_err(refused)?.outcome {
        Outcome::Succeeded { .. } => Ok(()),
        other => bail!("the call did not succeed: {other:?}"),
    }
}

async fn over_api(owner: &Api) -> anyhow::Result<()> {
    let path = format!("/skills/{SKILL}/{ACTION}");
    let request = owner.request(reqwest::Method::POST, &path);
    let answer = Api::try_send(request.json(&json!({ "params": params() }))).await?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text);
    Ok(())
}

/// The bare call: the very request that the router would render.
struct Direct {
    client: Client,
    journal_id: String,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: String,
    timeout: Duration,
    reply_bytes_max: u32,
}

impl Direct {
    async fn of(site: &Site) -> anyhow::Result<Self> {
        let path = format!("/skills/{SKILL}/{ACTION}?dry_run=true");
        let body = json!({ "params": params() });
        let shown = site.company.owner.post(&path, &body).await.ok();
        let request = &shown["request"];
        let filled = |text: &Value| {
            let text = text.as_str().unwrap_or_default();
            text.replace("{{bot_token}}", TOKEN)
        };
        let headers = request["headers"]
            .as_array()
            .with_context(|| format!("the dry run shows no request: {shown}"))?;
        let mut tx = site.app.db().tenant(site.tenant).await?;
        let row = instances::live(&mut tx).await?;
        drop(tx);
        let instance = instances::reach(&site.app, site.tenant, row.as_ref()).await;
        let client = instance.map_err(|p| anyhow::anyhow!("{p}"))?.client;
        let limits = &site.app.config().skills;
        Ok(Self {
            journal_id: client.bridge_status(STATUS_WAIT).await?.journal_id,
            client,
            method: filled(&request["method"]),
            url: filled(&request["url"]),
            headers: headers
                .iter()
                .map(|h| (filled(&h[0]), filled(&h[1])))
                .collect(),
            body: filled(&request["body"]),
            timeout: Duration::from_secs(limits.request_timeout_seconds.into()),
            reply_bytes_max: limits.reply_bytes_max,
        })
    }

    async fn call(&self) -> anyhow::Result<()> {
        let headers = self.headers.iter();
        let request = ExecuteRequest {
            call_id: format!("{}:0:0", fresh_id()),
            digest: "0".repeat(64),
            sent_ago: Duration::ZERO,
            resend: false,
            journal_id: Some(self.journal_id.clone()),
            retry_unknown: false,
            timeout: self.timeout,
            max_response_bytes: self.reply_bytes_max,
            private_network: PrivateNetwork::Allow,
            secrets: vec![TOKEN.into()],
            journal_reply: true,
            request: HttpRequest {
                method: self.method.clone(),
                url: self.url.as_str().into(),
                headers: headers
                    .map(|(name, value)| (name.clone(), value.as_str().into()))
                    .collect(),
                body: Some(self.body.clone().into_bytes().into()),
            },
        };
        let reply = self.client.execute(&request).await?.reply;
        ensure!(
            reply.status == 200,
            "the recorder answered {}",
            reply.status
        );
        Ok(())
    }
}

/// As long as a call's own id, and never the same.
fn fresh_id() -> Uuid {
    static COUNT: AtomicUsize = AtomicUsize::new(1);
    Uuid::from_u128(COUNT.fetch_add(1, Ordering::Relaxed) as u128)
}
