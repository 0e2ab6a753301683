//! Live views of a trace, and how they end.

use crate::{
    Stories,
    ground::{Ground, Server, text, until},
    story,
};
use axum::{
    body::{Body, BodyDataStream},
    http::{Method, Request, StatusCode, header},
};
use futures::StreamExt;
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tsunami::{
    id::{TaskId, TenantId},
    traces::{self, NewStep, StepType, Subject},
};

/// Longer than it takes to end a view, and shorter than anything else that would end it.
const SOON: Duration = Duration::from_secs(30);

pub fn stories(stories: &mut Stories, server: &Arc<Server>) {
    story(
        stories,
        server,
        "live::a_view_of_a_task_that_has_ended_ends",
        finished,
    );
    story(stories, server, "live::a_view_ends_with_its_key", revoked);
    story(
        stories,
        server,
        "live::a_process_that_is_asked_to_end_waits_for_no_view",
        asked_to_end,
    );
}

struct Task {
    id: String,
    tenant: TenantId,
    key: String,
}

async fn task(ground: &Ground) -> Task {
    let (tenant, key) = ground.tenant("watched").await;
    let new = json!({ "objective": "be watched" });
    let made = ground.post("/agent-tasks", &key, new).await.ok();
    Task {
        id: text(&made["id"]),
        tenant: TenantId(tenant.parse().expect("an id")),
        key,
    }
}

async fn step(ground: &Ground, task: &Task, step_type: StepType) {
    let mut tx = ground
        .app
        .db()
        .tenant(task.tenant)
        .await
        .expect("a transaction");
    let step = NewStep {
        subject: Subject::Task(TaskId(task.id.parse().expect("an id"))),
        step_type,
        key: step_type.as_str().to_owned(),
        call: None,
        agent: None,
        details: json!({}),
        duration: None,
    };
    assert!(traces::record(&mut tx, step).await.expect("a step"));
    tx.commit().await.expect("it is kept");
}

async fn finish(ground: &Ground) {
    sqlx::query("update agent_tasks set status = 'completed'")
        .execute(&mut ground.database("postgres").await)
        .await
        .expect("it is finished");
}

async fn view(
    ground: &Ground,
    task: &Task,
    key: &str,
    last: Option<&str>,
) -> (StatusCode, BodyDataStream) {
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(format!("/api/v1/agent-tasks/{}/trace", task.id))
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .header(header::ACCEPT, "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let request = request.body(Body::empty()).expect("a request");
    let response = ground.send(request).await;
    (response.status(), response.into_body().into_data_stream())
}

/// All that a view says until it ends; fails where it does not.
async fn to_its_end(mut view: BodyDataStream) -> String {
    let read = async {
        let mut all = String::new();
        while let Some(part) = view.next().await {
            all += &String::from_utf8_lossy(&part.expect("a part"));
        }
        all
    };
    tokio::time::timeout(SOON, read)
        .await
        .expect("the view ends")
}

async fn finished(ground: Ground) {
    let task = task(&ground).await;
    step(&ground, &task, StepType::Dispatched).await;
    step(&ground, &task, StepType::Completed).await;
    finish(&ground).await;
    for (last, wanted) in [(None, vec!["id: 1", "id: 2"]), (Some("1"), vec!["id: 2"])] {
        let (status, stream) = view(&ground, &task, &task.key, last).await;
        assert_eq!(status, StatusCode::OK);
        let said = to_its_end(stream).await;
        let ids: Vec<_> = said
            .lines()
            .filter(|line| line.starts_with("id:"))
            .collect();
        assert_eq!(ids, wanted);
    }
    // Where a browser comes back by itself: it is told not to.
    for last in ["2", "99"] {
        let (status, _) = view(&ground, &task, &task.key, Some(last)).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
    }
    // What is told of after the end has its end too.
    step(&ground, &task, StepType::SkillCall).await;
    let (_, stream) = view(&ground, &task, &task.key, Some("2")).await;
    assert!(to_its_end(stream).await.contains("id: 3"));
}

async fn revoked(ground: Ground) {
    let live = tokio::spawn(ground.app.live().clone().run(ground.app.db().clone()));
    let task = task(&ground).await;
    step(&ground, &task, StepType::Dispatched).await;
    let new = json!({ "name": "short-lived", "roles": ["auditor"] });
    let made = ground.post("/api-keys", &task.key, new).await.ok();
    let (status, mut stream) = view(&ground, &task, &text(&made["secret"]), None).await;
    assert_eq!(status, StatusCode::OK);
    let first = stream.next().await.expect("a part").expect("a part");
    assert!(String::from_utf8_lossy(&first).contains("id: 1"));
    let path = format!("/api-keys/{}", text(&made["api_key"]["id"]));
    ground
        .ask(Method::DELETE, &path, &task.key, Value::Null)
        .await
        .ok();
    step(&ground, &task, StepType::Executing).await;
    let said = to_its_end(stream).await;
    assert!(!said.contains("id: 2"), "after its end: {said}");
    live.abort();
}

/// `tsunami serve`, by itself.
struct Serving {
    process: Child,
    address: String,
}

impl Serving {
    fn start(ground: &Ground) -> Self {
        let config = ground.app.config();
        let path = |path: &std::path::Path| path.display().to_string();
        let mut process = Command::new(env!("CARGO_BIN_EXE_tsunami"))
            .arg("serve")
            .env("TSUNAMI_HTTP__LISTEN", "127.0.0.1:0")
            .env("TSUNAMI_DATABASE__URL", ground.url("tsunami_app"))
            .env("TSUNAMI_DATABASE__SYSTEM_URL", ground.url("tsunami_system"))
            .env("TSUNAMI_TEMPORAL__URL", &config.temporal.url)
            .env("TSUNAMI_VAULT__KEY_FILE", path(&config.vault.key_file))
            .env(
                "TSUNAMI_INSTANCES__DATA_DIR",
                path(&config.instances.data_dir),
            )
            .env(
                "TSUNAMI_INSTANCES__TOOLS_DIR",
                path(&config.instances.tools_dir),
            )
            .env(
                "TSUNAMI_INSTANCES__BRIDGE_DIR",
                path(&config.instances.bridge_dir),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("its output"))
            .read_line(&mut line)
            .expect("a line");
        let address = line
            .trim()
            .strip_prefix("serving http://")
            .expect("its address");
        Self {
            address: address.to_owned(),
            process,
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn asked_to_end(ground: Ground) {
    let task = task(&ground).await;
    step(&ground, &task, StepType::Dispatched).await;
    let mut serving = Serving::start(&ground);
    let mut reader = TcpStream::connect(&serving.address).expect("it answers");
    write!(
        reader,
        "GET /api/v1/agent-tasks/{}/trace HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\naccept: text/event-stream\r\n\r\n",
        task.id, task.key
    )
    .expect("it is asked");
    let mut said = String::new();
    while !said.contains("id: 1") {
        let mut part = [0; 4096];
        let read = reader.read(&mut part).expect("a part");
        assert!(read > 0, "{said}");
        said += &String::from_utf8_lossy(&part[..read]);
    }
    let pid = i32::try_from(serving.process.id()).expect("a pid");
    let asked = tokio::time::Instant::now();
    let signal = nix::sys::signal::Signal::SIGTERM;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it is asked to end");
    until("the process ends", async || {
        serving.process.try_wait().expect("it is ours").is_some()
    })
    .await;
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
}
