//! PostgreSQL, Temporal or OpenClaw is gone for a minute: what needs it says so, tasks wait, and all goes on by itself.

use crate::{CANARY, Stories, Theatre, own};
use serde_json::json;
use std::{
    os::unix::{fs::MetadataExt, process::CommandExt},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use tsunami_tests::{
    company::{Company, text},
    eventually,
    gateway::Gateway,
    processes::{self, Seen},
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
}

/// A server that was taken away, with all that it takes to bring it back.
struct Gone {
    server: Seen,
    uid: u32,
    gid: u32,
    since: Instant,
}

impl Gone {
    async fn take(pid: i32, signal: nix::sys::signal::Signal) -> Self {
        let server = processes::all()
            .into_iter()
            .find(|seen| seen.pid == pid)
            .expect("it runs");
        let owner = std::fs::metadata(format!("/proc/{pid}")).expect("it runs");
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
        eventually("it is gone", || async {
            (!processes::lives(pid)).then_some(())
        })
        .await;
        Self {
            server,
            uid: owner.uid(),
            gid: owner.gid(),
            since: Instant::now(),
        }
    }

    /// When the minute is over.
    async fn bring_back(self) -> std::process::Child {
        tokio::time::sleep_until(self.since + OUTAGE).await;
        let environment = self
            .server
            .environment
            .iter()
            .filter_map(|variable| variable.split_once('='));
        Command::new(&self.server.command[0])
            .args(&self.server.command[1..])
            .env_clear()
            .envs(environment)
            .current_dir(&self.server.directory)
            .uid(self.uid)
            .gid(self.gid)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts again")
    }
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
    let pid = gateway.pid_of("postgres/pid").expect("PostgreSQL runs");
    let gone = Gone::take(pid, nix::sys::signal::Signal::SIGINT).await;
    let answer = company.owner.get("/agent-tasks").await;
    answer.problem(503);
    assert!(answer.headers.contains_key("retry-after"));
    let ready = company.owner.get("//readyz").await;
    assert_eq!(
        (ready.status.as_u16(), &ready.json()["database"]),
        (503, &json!("unavailable"))
    );
    company.owner.get("//healthz").await.ok();
    let mut postgres = gone.bring_back().await;
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
    let pid = gateway.pid_of("temporal/pid").expect("Temporal runs");
    let gone = Gone::take(pid, nix::sys::signal::Signal::SIGKILL).await;
    company.approve(&before).await;
    let meanwhile = company.ask_to_send("while Temporal was gone").await;
    assert_eq!(company.task(&meanwhile).await["status"], "queued");
    assert_eq!(company.owner.get("//readyz").await.status, 503);
    let mut temporal = gone.bring_back().await;
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

    drop(gateway);
    let _ = (
        postgres.kill(),
        postgres.wait(),
        temporal.kill(),
        temporal.wait(),
    );
}

async fn finish(company: &Company, slack: &Recorder, task: &str, message: &str) {
    company.task_is(task, &["waiting_input"]).await;
    company.approve(task).await;
    company.task_is(task, &["completed"]).await;
    assert_eq!(slack.count(message), 1);
}
