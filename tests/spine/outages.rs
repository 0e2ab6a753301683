//! PostgreSQL, Temporal or OpenClaw is gone for a minute: what needs it says so, tasks wait, and all goes on by itself.

use crate::{CANARY, Stories, Theatre, own};
use nix::sys::signal::Signal;
use serde_json::json;
use std::{process::Command, sync::Arc, time::Duration};
use tokio::{net::TcpListener, time::Instant};
use tsunami_tests::{
    company::{Company, text},
    eventually,
    gateway::Gateway,
    processes,
    recorder::Recorder,
};

/// How long each is gone.
const OUTAGE: Duration = Duration::from_secs(60);

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    own(
        stories,
        theatre,
        "what_is_gone_for_a_minute_is_waited_for",
        all_three,
    );
    own(
        stories,
        theatre,
        "what_was_answered_outlasts_a_crash_of_the_database",
        crash,
    );
}

/// What keeps PostgreSQL from coming back: somebody else works in its data.
struct Occupied(std::process::Child);

impl Occupied {
    fn data_of(gateway: &Gateway) -> Self {
        let pid = gateway.pid_of("postgres/pid").expect("it runs");
        // Where its user could not reach the gateway's folder, it has one elsewhere.
        let data = std::fs::read_link(format!("/proc/{pid}/cwd")).expect("it runs");
        let stays = Command::new("sleep").arg("600").current_dir(data).spawn();
        Self(stays.expect("it stays"))
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// What keeps Temporal from coming back: its port is somebody else's, who hangs up on whoever calls.
struct OccupiedPort(tokio::task::JoinHandle<()>);

impl OccupiedPort {
    async fn of_temporal(gateway: &Gateway) -> Self {
        let port = std::fs::read_to_string(gateway.data_dir().join("temporal/port"));
        let address = format!("127.0.0.1:{}", port.expect("its port").trim());
        let listener = eventually("the port is free", || async {
            TcpListener::bind(&address).await.ok()
        })
        .await;
        Self(tokio::spawn(async move {
            loop {
                drop(listener.accept().await);
            }
        }))
    }

    async fn leave(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

async fn taken(gateway: &Gateway, pid_file: &str, signal: Signal) -> Instant {
    let pid = gateway.pid_of(pid_file).expect("it runs");
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
    eventually("it is gone", || async {
        (!processes::lives(pid)).then_some(())
    })
    .await;
    Instant::now()
}

async fn all_three() {
    let gateway = Gateway::start().await;
    let slack = Recorder::start().await;
    let company = Company::ready(&gateway, "patient", &slack, CANARY).await;
    company
        .configure("slack", &json!({ "approval_actions": ["send_message"] }))
        .await;

    // Each outage meets one task that waits for a person, and one that is asked for meanwhile.
    let before = company.ask_to_send("before PostgreSQL went").await;
    company.task_is(&before, &["waiting_input"]).await;
    let occupied = Occupied::data_of(&gateway);
    let since = taken(&gateway, "postgres/pid", Signal::SIGINT).await;
    let answer = company.owner.get("/agent-tasks").await;
    answer.problem(503);
    assert!(answer.headers.contains_key("retry-after"));
    let ready = company.owner.get("//readyz").await;
    assert_eq!(
        (ready.status.as_u16(), &ready.json()["database"]),
        (503, &json!("unavailable"))
    );
    company.owner.get("//healthz").await.ok();
    tokio::time::sleep_until(since + OUTAGE).await;
    drop(occupied);
    eventually("the API answers", || async {
        company
            .owner
            .get("/agent-tasks")
            .await
            .status
            .is_success()
            .then_some(())
    })
    .await;
    finish(&company, &slack, &before, "before PostgreSQL went").await;

    let before = company.ask_to_send("before Temporal went").await;
    company.task_is(&before, &["waiting_input"]).await;
    let since = taken(&gateway, "temporal/pid", Signal::SIGKILL).await;
    let occupied = OccupiedPort::of_temporal(&gateway).await;
    company.approve(&before).await;
    let meanwhile = company.ask_to_send("while Temporal was gone").await;
    assert_eq!(company.task(&meanwhile).await["status"], "queued");
    assert_eq!(company.owner.get("//readyz").await.status, 503);
    tokio::time::sleep_until(since + OUTAGE).await;
    occupied.leave().await;
    company.task_is(&before, &["completed"]).await;
    finish(&company, &slack, &meanwhile, "while Temporal was gone").await;

    let before = company.ask_to_send("before OpenClaw went").await;
    company.task_is(&before, &["waiting_input"]).await;
    let instance = company.instance_is("running").await;
    let pid_file = format!("instances/{}/pid", text(&instance["name"]));
    let until = Instant::now() + OUTAGE;
    let pid = gateway.pid_of(&pid_file).expect("OpenClaw runs");
    processes::end(pid);
    let direct = company
        .owner
        .post("/skills/slack/list_channels", &json!({ "params": {} }))
        .await;
    assert!(
        direct.status == 503 || direct.status == 202,
        "{}",
        direct.text
    );
    assert!(direct.status == 202 || direct.headers.contains_key("retry-after"));
    company.approve(&before).await;
    // It is brought back at once; so it is taken away for as long as the minute lasts.
    while Instant::now() < until {
        if let Some(pid) = gateway.pid_of(&pid_file) {
            processes::end(pid);
        }
        assert_ne!(company.task(&before).await["status"], "failed");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    company.task_is(&before, &["completed"]).await;
    assert_eq!(slack.count("before OpenClaw went"), 1);
}

/// The database loses what it had not written to the disk. A client that was told of something finds it afterwards.
async fn crash() {
    let gateway = Gateway::start().await;
    let slack = Recorder::start().await;
    let company = Company::ready(&gateway, "crash", &slack, CANARY).await;
    let call = |message: &str| {
        let params = json!({ "params": { "channel": "#finance", "text": message } });
        let owner = company.owner.clone();
        async move { owner.post("/skills/slack/send_message", &params).await }
    };
    // The plugin is loaded, and the connection open: nothing else is written meanwhile.
    call("before").await.ok();

    let done = call("done").await;
    taken(&gateway, "postgres/pid", Signal::SIGKILL).await;
    let id = text(&done.ok()["id"]);
    let found = found_again(&company, &format!("/skill-calls/{id}")).await;
    assert_eq!(found["status"], "succeeded");
    let trace = found_again(&company, &format!("/skill-calls/{id}/trace")).await;
    assert_eq!(trace.as_array().map(Vec::len), Some(1));
    assert_eq!(slack.count("done"), 1);

    company
        .configure("slack", &json!({ "approval_actions": ["send_message"] }))
        .await;
    let asked = call("asked").await;
    taken(&gateway, "postgres/pid", Signal::SIGKILL).await;
    assert_eq!(asked.status, 202);
    let id = text(&asked.ok()["id"]);
    let found = found_again(&company, &format!("/skill-calls/{id}")).await;
    assert_eq!(found["status"], "awaiting_approval");
    let approval = format!("/approvals/{}", text(&found["approval_id"]));
    assert_eq!(found_again(&company, &approval).await["status"], "pending");
}

async fn found_again(company: &Company, path: &str) -> serde_json::Value {
    eventually("the database is back", || async {
        let answer = company.owner.get(path).await;
        assert_ne!(answer.status, 404, "{path} is lost");
        answer.status.is_success().then(|| answer.json())
    })
    .await
}

async fn finish(company: &Company, slack: &Recorder, task: &str, message: &str) {
    company.task_is(task, &["waiting_input"]).await;
    company.approve(task).await;
    company.task_is(task, &["completed"]).await;
    assert_eq!(slack.count(message), 1);
}
