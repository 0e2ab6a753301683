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
    own(
        stories,
        theatre,
        "what_was_answered_outlasts_a_crash_of_the_database",
        crash,
    );
}

/// A server that runs, with all that it takes to start it again.
struct Server {
    seen: Seen,
    uid: u32,
    gid: u32,
}

impl Server {
    fn find(pid: i32) -> Self {
        let seen = processes::all().into_iter().find(|seen| seen.pid == pid);
        let owner = std::fs::metadata(format!("/proc/{pid}")).expect("it runs");
        Self {
            seen: seen.expect("it runs"),
            uid: owner.uid(),
            gid: owner.gid(),
        }
    }

    async fn take(self, signal: nix::sys::signal::Signal) -> Gone {
        let pid = self.seen.pid;
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
        eventually("it is gone", || async {
            (!processes::lives(pid)).then_some(())
        })
        .await;
        Gone {
            server: self,
            since: Instant::now(),
        }
    }
}

/// A server that was taken away.
struct Gone {
    server: Server,
    since: Instant,
}

impl Gone {
    async fn take(pid: i32, signal: nix::sys::signal::Signal) -> Self {
        Server::find(pid).take(signal).await
    }

    /// When the minute is over.
    async fn bring_back(self) -> std::process::Child {
        tokio::time::sleep_until(self.since + OUTAGE).await;
        self.start()
    }

    /// As soon as its helpers have ended too.
    async fn bring_back_at_once(self) -> std::process::Child {
        eventually("its helpers are gone", || async {
            let mut all = processes::all().into_iter();
            let lives = all.any(|seen| {
                seen.directory == self.server.seen.directory && processes::lives(seen.pid)
            });
            (!lives).then_some(())
        })
        .await;
        self.start()
    }

    fn start(self) -> std::process::Child {
        let environment = self
            .server
            .seen
            .environment
            .iter()
            .filter_map(|variable| variable.split_once('='));
        Command::new(&self.server.seen.command[0])
            .args(&self.server.seen.command[1..])
            .env_clear()
            .envs(environment)
            .current_dir(&self.server.seen.directory)
            .uid(self.server.uid)
            .gid(self.server.gid)
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
    let kill = nix::sys::signal::Signal::SIGKILL;
    let pid = gateway.pid_of("postgres/pid").expect("PostgreSQL runs");
    let server = Server::find(pid);
    // The plugin is loaded, and the connection open: nothing else is written meanwhile.
    call("before").await.ok();

    let done = call("done").await;
    let mut first = server.take(kill).await.bring_back_at_once().await;
    let id = text(&done.ok()["id"]);
    let found = found_again(&company, &format!("/skill-calls/{id}")).await;
    assert_eq!(found["status"], "succeeded");
    let trace = found_again(&company, &format!("/skill-calls/{id}/trace")).await;
    assert_eq!(trace.as_array().map(Vec::len), Some(1));
    assert_eq!(slack.count("done"), 1);

    company
        .configure("slack", &json!({ "approval_actions": ["send_message"] }))
        .await;
    let server = Server::find(i32::try_from(first.id()).expect("a pid"));
    let asked = call("asked").await;
    let gone = server.take(kill).await;
    first.wait().expect("it has ended");
    let mut second = gone.bring_back_at_once().await;
    assert_eq!(asked.status, 202);
    let id = text(&asked.ok()["id"]);
    let found = found_again(&company, &format!("/skill-calls/{id}")).await;
    assert_eq!(found["status"], "awaiting_approval");
    let approval = format!("/approvals/{}", text(&found["approval_id"]));
    assert_eq!(found_again(&company, &approval).await["status"], "pending");

    drop(gateway);
    let _ = (second.kill(), second.wait());
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
