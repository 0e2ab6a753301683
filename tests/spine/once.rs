//! A call acts once, says what is known of it, and leaves a trace however it ends.

use crate::{CANARY, Stories, Theatre, World, own, shared};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tsunami_tests::{
    api::{Answer, Api},
    company::{Company, text},
    eventually,
    gateway::Gateway,
    processes,
    recorder::Recorder,
};

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    shared(
        stories,
        theatre,
        "a_refused_call_is_in_its_trace_and_may_come_again_under_its_key",
        refused,
    );
    shared(
        stories,
        theatre,
        "an_answer_that_means_nothing_leaves_the_outcome_unknown",
        not_understood,
    );
    shared(
        stories,
        theatre,
        "the_command_line_says_what_to_type_where_an_outcome_is_unknown",
        resolved_by_command_line,
    );
    shared(
        stories,
        theatre,
        "a_nul_in_what_a_plugin_says_loses_nothing",
        nul,
    );
    shared(
        stories,
        theatre,
        "what_the_service_refuses_for_now_is_tried_again_a_few_times",
        slow_down,
    );
    own(
        stories,
        theatre,
        "a_host_that_comes_back_asks_what_became_of_what_it_sent",
        asks_first,
    );
    own(
        stories,
        theatre,
        "a_call_that_outlasts_its_clients_patience_is_told_of_and_ends",
        goes_on,
    );
    own(
        stories,
        theatre,
        "an_instance_that_does_not_answer_costs_no_working_time",
        no_working_time,
    );
}

fn message(text: &str) -> Value {
    json!({ "params": { "channel": "#finance", "text": text } })
}

async fn call_with_key(owner: &Api, text: &str) -> Answer {
    let request = owner.request(Method::POST, "/skills/slack/send_message");
    let key = text.replace(' ', "-");
    Api::send(request.header("idempotency-key", key).json(&message(text))).await
}

async fn refused(world: Arc<World>) {
    let acme = &world.acme;
    let owner = &acme.owner;
    let credentials = owner.get("/skill-creds").await.ok();
    let stored = credentials["items"].as_array().into_iter().flatten();
    let token = stored
        .into_iter()
        .find(|c| c["key"] == "bot_token" && c["status"] == "active");
    let credential = format!(
        "/skill-creds/{}",
        text(&token.expect("Slack has a token")["id"])
    );
    let none_left = json!({ "rate_limit": { "max_actions": 1, "per_seconds": 3600 } });
    // What stands against the call, what it is refused with, and what lets it through.
    let cases = [
        (
            "disabled",
            json!({ "disabled_actions": ["send_message"] }),
            (403, "action_disabled"),
            json!({ "disabled_actions": [] }),
        ),
        (
            "out of scope",
            json!({ "allowed_scopes": { "channels": ["#board"] } }),
            (403, "scope_denied"),
            json!({ "allowed_scopes": {} }),
        ),
        (
            "too often",
            none_left,
            (429, "rate_limited"),
            json!({ "rate_limit": null }),
        ),
        (
            "without a credential",
            Value::Null,
            (409, "credential_revoked"),
            Value::Null,
        ),
    ];
    for (name, obstacle, (status, code), away) in cases {
        let text_of = format!("refused: {name}");
        match &obstacle {
            Value::Null => drop(owner.delete(&credential).await.ok()),
            change => drop(acme.configure("slack", change).await),
        }
        let mut id = String::new();
        for _twice in 0..2 {
            let answer = call_with_key(owner, &text_of).await;
            assert_eq!(answer.problem(status), code);
            id = text(&answer.json()["call_id"]);
        }
        let call = owner.get(&format!("/skill-calls/{id}")).await.ok();
        assert_eq!(
            (&call["status"], &call["error"]["code"]),
            (&json!("rejected"), &json!(code)),
            "{call}"
        );
        let trace = owner.get(&format!("/skill-calls/{id}/trace")).await.ok();
        let told: Vec<_> = trace.as_array().into_iter().flatten().collect();
        assert_eq!(told.len(), 2, "{trace}");
        for step in told {
            assert_eq!(step["details"]["status"], "refused");
            assert_eq!(step["details"]["error"]["code"], code);
            assert_eq!(step["details"]["params"]["text"], text_of.as_str());
        }
        assert_eq!(world.slack.count(&text_of), 0);

        match &away {
            Value::Null => drop(acme.store_credential("slack", "bot_token", CANARY).await),
            change => drop(acme.configure("slack", change).await),
        }
        let made = call_with_key(owner, &text_of).await.ok();
        assert_eq!(
            (&made["id"], &made["status"]),
            (&json!(id), &json!("succeeded"))
        );
        assert_eq!(call_with_key(owner, &text_of).await.ok()["id"], json!(id));
        assert_eq!(world.slack.count(&text_of), 1);
    }
}

async fn resolved_by_command_line(world: Arc<World>) {
    let run = async |words: &[&str]| {
        let ran = world.gateway.cli(&world.acme.owner, words).await;
        let said = String::from_utf8_lossy(&ran.stdout).into_owned()
            + &String::from_utf8_lossy(&ran.stderr);
        (ran.status.success(), said)
    };
    let params = json!({ "channel": "#finance", "text": "typed and lost" }).to_string();
    for found in ["again", "done"] {
        world
            .slack
            .answer_next(502, vec![], "<html>Bad Gateway</html>".into());
        let (done, said) = run(&["skill", "call", "slack.send_message", &params]).await;
        assert!(!done, "{said}");
        // What it says is what is typed.
        let next = said
            .lines()
            .find_map(|line| line.split_once("tsunami skill resolve "))
            .expect("what to type next")
            .1;
        let call = next.split(' ').next().expect("the call").to_owned();
        let unknown = ["skill", "calls", "--status", "outcome_unknown"];
        assert!(run(&unknown).await.1.contains(&call));
        let (done, said) = run(&["skill", "resolve", &call, found, "--note", "looked"]).await;
        assert!(done, "{said}");
        eventually("the call is made", || async {
            let (_, card) = run(&["skill", "show", &call]).await;
            card.contains("succeeded").then_some(())
        })
        .await;
        assert!(!run(&unknown).await.1.contains(&call));
    }
    // Two calls, and one of them again.
    assert_eq!(world.slack.count("typed and lost"), 3);
}

/// The service has the request, and what came back means nothing to the plugin, or the plugin fails over it.
async fn not_understood(world: Arc<World>) {
    let owner = &world.acme.owner;
    world
        .slack
        .answer_next(502, vec![], "<html>Bad Gateway</html>".into());
    let answer = call_with_key(owner, "not understood").await;
    assert_eq!(answer.problem(502), "outcome_unknown");
    let id = text(&answer.json()["call_id"]);
    // The same again asks nobody and sends nothing.
    let again = call_with_key(owner, "not understood").await;
    assert_eq!(again.problem(502), "outcome_unknown");
    assert_eq!(world.slack.count("not understood"), 1);
    let trace = owner.get(&format!("/skill-calls/{id}/trace")).await.ok();
    assert!(trace.to_string().contains("unexpected_reply"), "{trace}");
    // A person finds that it did not happen. It is sent once more, and the answer is a good one.
    let path = format!("/skill-calls/{id}");
    let resolved = json!({ "resolution": "try_again" });
    // Their word goes no further than the rules do by now.
    let limit = json!({ "rate_limit": { "max_actions": 1, "per_seconds": 3600 } });
    for (rule, back, code) in [
        (
            json!({ "disabled_actions": ["send_message"] }),
            json!({ "disabled_actions": [] }),
            "action_disabled",
        ),
        (
            json!({ "allowed_scopes": { "channels": ["#elsewhere"] } }),
            json!({ "allowed_scopes": {} }),
            "scope_denied",
        ),
        (limit, json!({ "rate_limit": null }), "rate_limited"),
    ] {
        world.acme.configure("slack", &rule).await;
        let refused = owner.post(&format!("{path}/resolve"), &resolved).await;
        assert_eq!(refused.json()["code"], code, "{}", refused.text);
        world.acme.configure("slack", &back).await;
    }
    let status = &owner.get(&path).await.ok()["status"];
    assert_eq!(status, "outcome_unknown");
    owner.post(&format!("{path}/resolve"), &resolved).await.ok();
    eventually("the call is made", || async {
        (owner.get(&path).await.ok()["status"] == "succeeded").then_some(())
    })
    .await;
    assert_eq!(world.slack.count("not understood"), 2);

    // What only reads has failed, and that is all.
    world.slack.answer_next(502, vec![], "<html>".into());
    let read = owner
        .post("/skills/slack/list_channels", &json!({ "params": {} }))
        .await;
    assert_eq!(read.problem(502), "call_failed");

    hostile(&world).await;
    let before = world.slack.arrivals().len();
    let answer = owner
        .post("/skills/hostile/trip", &json!({ "params": {} }))
        .await;
    assert_eq!(answer.problem(502), "outcome_unknown");
    assert!(answer.text.contains("over the reply"), "{}", answer.text);
    assert_eq!(world.slack.arrivals().len(), before + 1);
    let path = format!("/skill-calls/{}", text(&answer.json()["call_id"]));
    let resolved = json!({ "resolution": "done" });
    owner.post(&format!("{path}/resolve"), &resolved).await.ok();
    assert_eq!(owner.get(&path).await.ok()["status"], "succeeded");

    // Before anything is sent, a plugin that runs out of time is asked a few times, and then the call has failed.
    let began = Instant::now();
    let answer = owner
        .post("/skills/hostile/loop", &json!({ "params": {} }))
        .await;
    assert_eq!(answer.problem(502), "call_failed");
    assert!(began.elapsed() >= 3 * PLUGIN_TIME, "it was asked once");
}

/// `plugins.call_timeout_ms`
const PLUGIN_TIME: Duration = Duration::from_millis(100);

async fn hostile(world: &World) {
    let acme = &world.acme;
    acme.install("hostile").await;
    acme.store_credential("hostile", "token", "a token of no service")
        .await;
    let settings = json!({ "settings": { "base_url": world.slack.url } });
    acme.configure("hostile", &settings).await;
}

async fn nul(world: Arc<World>) {
    hostile(&world).await;
    let before = world.slack.arrivals().len();
    let done = world
        .acme
        .owner
        .post("/skills/hostile/nul", &json!({ "params": {} }))
        .await
        .ok();
    assert_eq!(done["status"], "succeeded");
    let said = json!({ "nul\u{fffd}": "a\u{fffd}b", "escape": "\\u0000", "both": "\\\u{fffd}" });
    assert_eq!(done["output"], said);
    assert_eq!(world.slack.arrivals().len(), before + 1);
    let path = format!("/skill-calls/{}/trace", text(&done["id"]));
    let trace = world.acme.owner.get(&path).await.ok();
    let log = &trace[0]["details"]["plugin_log"][0]["message"];
    assert_eq!(log, "a\u{fffd}b", "{trace}");
}

/// `tasks.attempts_max`
const ATTEMPTS_MAX: usize = 3;

async fn slow_down(world: Arc<World>) {
    let too_many = || {
        let wait = vec![("retry-after", "1".to_owned())];
        world.slack.answer_next(429, wait, "{}".into());
    };
    let refusals = |trace: &[Value]| {
        let refused = trace.iter().filter(|s| s["details"]["status"] == "refused");
        refused.count()
    };
    too_many();
    let task = world.acme.ask_to_send("slow down once").await;
    world.acme.task_is(&task, &["completed"]).await;
    assert_eq!(world.slack.count("slow down once"), 2);
    assert_eq!(refusals(&world.acme.trace(&task).await), 1);

    (0..ATTEMPTS_MAX).for_each(|_| too_many());
    let task = world.acme.ask_to_send("slow down for ever").await;
    let failed = world.acme.task_is(&task, &["failed"]).await;
    assert!(
        failed["error"].to_string().contains("ratelimited"),
        "{failed}"
    );
    assert_eq!(world.slack.count("slow down for ever"), ATTEMPTS_MAX);
    assert_eq!(
        refusals(&world.acme.trace(&task).await),
        ATTEMPTS_MAX - 1,
        "the last one is the failure"
    );
}

/// The host is killed while the service has the request. What it finds when it comes back would have stopped a call
/// that was still to be sent; the request has left, and its answer is in the instance's journal.
async fn asks_first() {
    let mut gateway = Gateway::start().await;
    let slack = Recorder::start().await;
    let company = Company::ready(&gateway, "returning", &slack, CANARY).await;

    let name = "its credential is revoked meanwhile";
    let task = held(&slack, &company, name).await;
    let credentials = company.owner.get("/skill-creds").await.ok();
    let credential = text(&credentials["items"][0]["id"]);
    company
        .owner
        .delete(&format!("/skill-creds/{credential}"))
        .await
        .ok();
    come_back(&mut gateway, &slack).await;
    company.task_is(&task, &["completed"]).await;
    assert_eq!(slack.count(name), 1);
    company.store_credential("slack", "bot_token", CANARY).await;

    // A journal remembers for 7 days: of what is older, nobody is asked but a person.
    let name = "it was sent a week ago";
    let task = held(&slack, &company, name).await;
    gateway.kill();
    let mut database = gateway.database("postgres").await;
    let aged = sqlx::query("update skill_call_requests set sent_at = sent_at - interval '6 days 1 hour' where reply is null")
        .execute(&mut database)
        .await
        .expect("time passes");
    assert_eq!(aged.rows_affected(), 1);
    slack.release();
    gateway.start_host().await;
    is_unknown(&company, &task).await;
    assert_eq!(slack.count(name), 1);
    let call = call_of(&company, &task).await;
    let path = format!("/skill-calls/{call}/resolve");
    let resolved = json!({ "resolution": "done" });
    company.owner.post(&path, &resolved).await.ok();
    company.task_is(&task, &["completed"]).await;

    // With the instance goes its journal, and with a stopped one there is no asking it.
    let path = format!("/instances/{}", company.instance);
    let (stop, start) = (format!("{path}/stop"), format!("{path}/start"));
    for (name, status) in [
        ("its instance is stopped meanwhile", "stopped"),
        ("its instance is destroyed meanwhile", "destroyed"),
    ] {
        let task = held(&slack, &company, name).await;
        match status {
            "stopped" => company.owner.post(&stop, &json!({})).await.ok(),
            _ => company.owner.delete(&path).await.ok(),
        };
        end_instance(&gateway, &company).await;
        company.instance_is(status).await;
        slack.release();
        is_unknown(&company, &task).await;
        assert_eq!(slack.count(name), 1);
        if status == "stopped" {
            company.owner.post(&start, &json!({})).await.ok();
            company.instance_is("running").await;
        }
    }
}

/// At once: one that is asked to end waits for what it has under way.
async fn end_instance(gateway: &Gateway, company: &Company) {
    let path = format!("/instances/{}", company.instance);
    let name = text(&company.owner.get(&path).await.ok()["name"]);
    if let Some(pid) = gateway.pid_of(&format!("instances/{name}/pid")) {
        processes::end(pid);
    }
}

/// A task whose message the service has, and has not answered.
async fn held(slack: &Recorder, company: &Company, name: &str) -> String {
    let earlier = slack.count(name);
    slack.hold();
    let task = company.ask_to_send(name).await;
    eventually("the request arrives", || async {
        (slack.count(name) > earlier).then_some(())
    })
    .await;
    task
}

async fn come_back(gateway: &mut Gateway, slack: &Recorder) {
    gateway.kill();
    slack.release();
    gateway.start_host().await;
}

async fn is_unknown(company: &Company, task: &str) {
    let waiting = company.task_is(task, &["waiting_input"]).await;
    let told = text(&waiting["waiting_for"]["outcome_unknown"]);
    assert!(told.contains("/resolve"), "{waiting:#}");
}

async fn call_of(company: &Company, task: &str) -> String {
    let trace = company.trace(task).await;
    let step = trace
        .iter()
        .find(|step| step["details"]["status"] == "outcome_unknown");
    text(&step.expect("it is in the trace")["call_id"])
}

/// How long the instance does not answer: three times what the task may work.
const SILENCE: Duration = Duration::from_secs(30);

async fn no_working_time() {
    let gateway = Gateway::start_with(&[
        ("TSUNAMI_TASKS__WORKING_SECONDS_MAX", "10"),
        ("TSUNAMI_SKILLS__REQUEST_TIMEOUT_SECONDS", "2"),
    ])
    .await;
    let slack = Recorder::start().await;
    let company = Company::ready(&gateway, "unhurried", &slack, CANARY).await;
    // The first one makes the connection.
    let task = company.ask_to_send("before the silence").await;
    company.task_is(&task, &["completed"]).await;
    let instance = company.instance_is("running").await;
    let pid_file = format!("instances/{}/pid", text(&instance["name"]));
    let pid = Pid::from_raw(gateway.pid_of(&pid_file).expect("it runs"));
    kill(pid, Signal::SIGSTOP).expect("it stands still");
    let began = Instant::now();
    let task = company.ask_to_send("through the silence").await;
    tokio::time::sleep_until(began + SILENCE).await;
    kill(pid, Signal::SIGCONT).expect("it goes on");
    company.task_is(&task, &["completed"]).await;
    assert_eq!(slack.count("through the silence"), 1);
}

async fn goes_on() {
    // A request may take 8 s, and its client is told of the call after half of that.
    let settings = [("TSUNAMI_HTTP__REQUEST_TIMEOUT_SECONDS", "8")];
    let gateway = Gateway::start_with(&settings).await;
    let slack = Recorder::start().await;
    let company = Company::ready(&gateway, "patient", &slack, CANARY).await;
    let owner = &company.owner;
    call_with_key(owner, "at once").await.ok();
    slack.hold();
    // What is cut off gets a 503 and no place.
    let told = call_with_key(owner, "takes its time").await;
    assert_eq!(told.status, 202, "{}", told.text);
    let place = told.headers.get("location").expect("where it is");
    let place = place.to_str().expect("a path").to_owned();
    let place = place.trim_start_matches("/api/v1");
    let call = told.json();
    assert_eq!(place, format!("/skill-calls/{}", text(&call["id"])));
    let under_way = owner.get(place).await.ok();
    assert_eq!(under_way["status"], "running", "{under_way:#}");
    // Who asks again under the same key is told the same, and sends nothing.
    let again = call_with_key(owner, "takes its time").await;
    assert_eq!(again.status, 202, "{}", again.text);
    assert_eq!(again.json()["id"], call["id"]);
    slack.release();
    eventually("the call ends", || async {
        let call = owner.get(place).await.ok();
        assert_ne!(call["status"], "failed", "{call:#}");
        (call["status"] == "succeeded").then_some(())
    })
    .await;
    let ended = call_with_key(owner, "takes its time").await.ok();
    assert_eq!(ended["id"], call["id"]);
    assert_eq!(slack.count("takes its time"), 1);
}
