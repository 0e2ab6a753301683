//! What an approval is good for: what it was given for, by whom it may be given, once, and for a time.

use crate::{Stories, Theatre, World, shared};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use tsunami_tests::{
    api::{Answer, Api},
    company::text,
    component, eventually,
};

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    shared(
        stories,
        theatre,
        "an_approval_of_what_has_changed_since_is_not_used",
        stale,
    );
    shared(
        stories,
        theatre,
        "an_approval_that_has_run_out_is_not_used",
        expired,
    );
    shared(
        stories,
        theatre,
        "who_lacks_the_role_does_not_approve",
        roles,
    );
    shared(
        stories,
        theatre,
        "roles_that_are_asked_for_since_are_asked_of_what_waits",
        roles_raised,
    );
    shared(
        stories,
        theatre,
        "what_is_decided_is_not_decided_the_other_way",
        decided_once,
    );
    shared(
        stories,
        theatre,
        "an_approval_of_one_step_approves_no_other",
        one_step,
    );
    shared(
        stories,
        theatre,
        "the_command_line_shows_what_it_decides_and_calls_once_for_a_key",
        command_line,
    );
    shared(
        stories,
        theatre,
        "a_call_that_waits_is_found_approved_and_shown_by_the_command_line_alone",
        command_line_alone,
    );
}

const ASK: &str = "approval_actions";

async fn ask_always(world: &World, ask: bool) {
    let actions = if ask {
        json!(["send_message"])
    } else {
        json!([])
    };
    let change = json!({ ASK: actions });
    world.acme.configure("slack", &change).await;
}

fn call(message: &str) -> Value {
    json!({ "params": { "channel": "#finance", "text": message } })
}

/// The same call again and again, by its key: each looks where the call stands, and takes it further.
async fn make(world: &World, message: &str) -> Answer {
    let request = world
        .acme
        .owner
        .request(Method::POST, "/skills/slack/send_message");
    let key = message.replace(' ', "-");
    Api::send(request.header("idempotency-key", key).json(&call(message))).await
}

/// A call that waits for its approval: its id, and the approval's path.
async fn asked(world: &World, message: &str) -> (String, String) {
    let answer = make(world, message).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let call = answer.json();
    let approval = format!("/approvals/{}", text(&call["approval_id"]));
    (text(&call["id"]), approval)
}

async fn decide(api: &Api, approval: &str, how: &str) -> Answer {
    api.post(&format!("{approval}/{how}"), &json!({})).await
}

/// Waits until the call was rejected, for the reason of this code.
async fn is_rejected(world: &World, call: &str, code: &str) {
    let path = format!("/skill-calls/{call}");
    eventually("the call is rejected", || async {
        let call = world.acme.owner.get(&path).await.ok();
        assert_ne!(call["status"], "succeeded");
        (call["status"] == "rejected").then(|| assert_eq!(call["error"]["code"], code, "{call}"))
    })
    .await;
    let trace = world.acme.owner.get(&format!("{path}/trace")).await.ok();
    assert!(trace.to_string().contains(code), "{trace}");
}

/// The same component under another digest: it has one section more, which means nothing.
fn another_slack() -> Vec<u8> {
    let mut bytes = component("slack");
    let (name, content) = (b"note", b"!");
    let length = u8::try_from(1 + name.len() + content.len()).expect("a short section");
    bytes.extend([0, length, 4]);
    bytes.extend(name);
    bytes.extend(content);
    bytes
}

async fn stale(world: Arc<World>) {
    let acme = &world.acme;
    ask_always(&world, true).await;

    let (settings_changed, approval) = asked(&world, "stale by its settings").await;
    let base_url = json!({ "base_url": format!("{}/", world.slack.url) });
    acme.configure("slack", &json!({ "settings": base_url }))
        .await;
    decide(&acme.owner, &approval, "approve").await.ok();
    is_rejected(&world, &settings_changed, "approval_stale").await;
    acme.configure(
        "slack",
        &json!({ "settings": { "base_url": world.slack.url } }),
    )
    .await;

    let (plugin_changed, approval) = asked(&world, "stale by its plugin").await;
    acme.owner.upload("/plugins", another_slack()).await.ok();
    decide(&acme.owner, &approval, "approve").await.ok();
    is_rejected(&world, &plugin_changed, "approval_stale").await;
    acme.install("slack").await;

    // The same without a change is made.
    let (unchanged, approval) = asked(&world, "not stale").await;
    decide(&acme.owner, &approval, "approve").await.ok();
    let path = format!("/skill-calls/{unchanged}");
    eventually("the call is made", || async {
        (acme.owner.get(&path).await.ok()["status"] == "succeeded").then_some(())
    })
    .await;
    ask_always(&world, false).await;
    let counts = ["stale by its settings", "stale by its plugin", "not stale"]
        .map(|message| world.slack.count(message));
    assert_eq!(counts, [0, 0, 1]);
    // It is used up: it has no second call in it.
    assert_eq!(acme.owner.get(&approval).await.ok()["status"], "used");
}

async fn expired(world: Arc<World>) {
    ask_always(&world, true).await;
    let mut database = world.gateway.database("postgres").await;
    for (message, status) in [
        ("expired undecided", "pending"),
        ("expired approved", "approved"),
    ] {
        let (call, approval) = asked(&world, message).await;
        let id = approval.trim_start_matches("/approvals/");
        sqlx::query("update approvals set status = $2, expires_at = now() - interval '1 second' where id = $1::uuid")
            .bind(id)
            .bind(status)
            .execute(&mut database)
            .await
            .expect("time passes");
        if status == "pending" {
            let late = decide(&world.acme.owner, &approval, "approve").await;
            // Its workflow may have found that it ran out before us.
            let code = late.problem(409);
            assert!(
                ["approval_expired", "already_decided"].contains(&code.as_str()),
                "{code}"
            );
        }
        let answer = make(&world, message).await;
        assert_eq!(answer.problem(502), "call_failed");
        is_rejected(&world, &call, "approval_expired").await;
        assert_eq!(world.slack.count(message), 0);
        let approval = world.acme.owner.get(&approval).await.ok();
        assert_eq!(approval["status"], "expired");
    }
    ask_always(&world, false).await;
}

async fn roles(world: Arc<World>) {
    let owner = &world.acme.owner;
    ask_always(&world, true).await;
    world
        .acme
        .configure("slack", &json!({ "approver_roles": ["approver"] }))
        .await;
    let key = |role: &str| {
        let new = json!({ "name": role, "roles": [role] });
        async move { owner.with_key(&text(&owner.post("/api-keys", &new).await.ok()["secret"])) }
    };
    let (member, approver) = (key("member").await, key("approver").await);
    let (call, approval) = asked(&world, "for approvers").await;
    // An owner may approve in general, and not this; a member may not at all.
    for (api, how) in [
        (owner, "approve"),
        (owner, "reject"),
        (&member, "approve"),
        (&member, "reject"),
    ] {
        let refused = decide(api, &approval, how).await;
        assert_eq!(refused.problem(403), "missing_role");
    }
    assert_eq!(owner.get(&approval).await.ok()["status"], "pending");
    assert_eq!(world.slack.count("for approvers"), 0);
    decide(&approver, &approval, "approve").await.ok();
    let path = format!("/skill-calls/{call}");
    eventually("the call is made", || async {
        (owner.get(&path).await.ok()["status"] == "succeeded").then_some(())
    })
    .await;
    world
        .acme
        .configure("slack", &json!({ "approver_roles": [] }))
        .await;
    ask_always(&world, false).await;
}

async fn roles_raised(world: Arc<World>) {
    let owner = &world.acme.owner;
    ask_always(&world, true).await;
    let (raised, waiting) = asked(&world, "raised before").await;
    let (stale, approved) = asked(&world, "raised after").await;
    let mut database = world.gateway.database("postgres").await;
    world
        .acme
        .configure("slack", &json!({ "approver_roles": ["approver"] }))
        .await;
    // As if an owner had approved it the moment before.
    sqlx::query("update approvals set status = 'approved', decided_with_roles = '{owner}' where id = $1::uuid")
        .bind(approved.trim_start_matches("/approvals/"))
        .execute(&mut database)
        .await
        .expect("an owner approves");
    make(&world, "raised after").await;
    is_rejected(&world, &stale, "approval_stale").await;
    assert_eq!(world.slack.count("raised after"), 0);

    let refused = decide(owner, &waiting, "approve").await;
    assert_eq!(refused.problem(403), "missing_role");
    let new = json!({ "name": "raised", "roles": ["approver"] });
    let key = owner.post("/api-keys", &new).await.ok();
    let approver = owner.with_key(&text(&key["secret"]));
    decide(&approver, &waiting, "approve").await.ok();
    let path = format!("/skill-calls/{raised}");
    eventually("the call is made", || async {
        (owner.get(&path).await.ok()["status"] == "succeeded").then_some(())
    })
    .await;
    assert_eq!(world.slack.count("raised before"), 1);
    world
        .acme
        .configure("slack", &json!({ "approver_roles": [] }))
        .await;
    ask_always(&world, false).await;
}

async fn decided_once(world: Arc<World>) {
    let owner = &world.acme.owner;
    ask_always(&world, true).await;
    let (_, approved) = asked(&world, "decided: yes").await;
    let (call, rejected) = asked(&world, "decided: no").await;
    for (approval, how, other) in [
        (&approved, "approve", "reject"),
        (&rejected, "reject", "approve"),
    ] {
        let first = decide(owner, approval, how).await.ok();
        let again = decide(owner, approval, how).await.ok();
        assert_eq!(first["decided_at"], again["decided_at"]);
        let turned = decide(owner, approval, other).await;
        assert_eq!(turned.problem(409), "already_decided");
    }
    is_rejected(&world, &call, "approval_rejected").await;
    eventually("the other call is made", || async {
        (world.slack.count("decided: yes") == 1).then_some(())
    })
    .await;
    assert_eq!(world.slack.count("decided: no"), 0);
    ask_always(&world, false).await;
}

/// Waits until the task asks for an approval other than `earlier`; gives its id.
async fn asks(world: &World, task: &str, earlier: &str) -> String {
    eventually("the task asks", || async {
        let task = world.acme.task_is(task, &["waiting_input", "executing"]);
        let approval = text(&task.await["waiting_for"]["approval_id"]);
        (!approval.is_empty() && approval != earlier).then_some(approval)
    })
    .await
}

async fn two_steps(world: &World, messages: [&str; 2]) -> String {
    let steps = messages.map(|message| {
        json!({ "skill": "slack", "action": "send_message",
            "params": { "channel": "#finance", "text": message } })
    });
    let new = json!({ "objective": "Two messages", "plan": { "steps": steps } });
    text(&world.acme.owner.post("/agent-tasks", &new).await.ok()["id"])
}

async fn one_step(world: Arc<World>) {
    let owner = &world.acme.owner;
    ask_always(&world, true).await;
    let task = two_steps(&world, ["step one", "step two"]).await;
    let path = format!("/agent-tasks/{task}");
    let decide = |how: &str, approval: &str| {
        let path = format!("{path}/{how}");
        let body = json!({ "approval_id": approval });
        async move { owner.post(&path, &body).await }
    };
    let first = asks(&world, &task, "").await;
    decide("approve", &first).await.ok();
    let second = asks(&world, &task, &first).await;
    // Who decides on the first step meant that one, whatever waits by now.
    let again = decide("approve", &first).await.ok();
    assert_eq!(again["id"], first.as_str());
    assert_eq!(
        decide("reject", &first).await.problem(409),
        "already_decided"
    );
    let foreign = uuid::Uuid::nil().to_string();
    assert_eq!(decide("approve", &foreign).await.problem(404), "not_found");
    let pending = owner.get(&format!("/approvals/{second}")).await.ok();
    assert_eq!(pending["status"], "pending");
    assert_eq!(
        (world.slack.count("step one"), world.slack.count("step two")),
        (1, 0)
    );
    decide("approve", &second).await.ok();
    world.acme.task_is(&task, &["completed"]).await;
    assert_eq!(world.slack.count("step two"), 1);
    ask_always(&world, false).await;
}

async fn command_line(world: Arc<World>) {
    let owner = &world.acme.owner;
    ask_always(&world, true).await;
    let task = two_steps(&world, ["cli one", "cli two"]).await;
    let first = asks(&world, &task, "").await;
    let run = |arguments: Vec<String>| {
        let world = world.clone();
        async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let ran = world.gateway.cli(&world.acme.owner, &arguments).await;
            let said = String::from_utf8_lossy(&ran.stderr).into_owned();
            (ran.status.success(), said)
        }
    };
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();

    // Without saying which, nothing is decided; it says what waits, and how to decide that.
    for how in ["approve", "reject"] {
        let (done, said) = run(words(&format!("task {how} {task}"))).await;
        assert!(!done);
        for part in [
            "slack.send_message",
            "cli one",
            &format!("--approval {first}"),
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    let pending = owner.get(&format!("/approvals/{first}")).await.ok();
    assert_eq!(pending["status"], "pending");
    let approve = |approval: &str| words(&format!("task approve {task} --approval {approval}"));
    let (done, said) = run(approve(&first)).await;
    assert!(done && said.contains("cli one"), "{said}");
    let second = asks(&world, &task, &first).await;
    // The one that was shown, and not the one that waits by now.
    run(approve(&first)).await;
    let pending = owner.get(&format!("/approvals/{second}")).await.ok();
    assert_eq!(pending["status"], "pending");
    let (done, said) = run(words(&format!("task reject {task} --approval {second}"))).await;
    assert!(done && said.contains("cli two"), "{said}");
    world.acme.task_is(&task, &["failed"]).await;
    ask_always(&world, false).await;
    assert_eq!(
        (world.slack.count("cli one"), world.slack.count("cli two")),
        (1, 0)
    );

    let call = |key: Option<&str>| {
        let mut arguments = words("skill call slack.send_message");
        arguments.push(call("cli call")["params"].to_string());
        arguments.extend(key.into_iter().flat_map(|key| ["--key".into(), key.into()]));
        arguments
    };
    for sent in [1, 1] {
        let (done, said) = run(call(Some("cli-key"))).await;
        assert!(done, "{said}");
        assert_eq!(world.slack.count("cli call"), sent);
    }
    let (done, said) = run(call(None)).await;
    assert!(done, "{said}");
    assert_eq!(world.slack.count("cli call"), 2);
    let mut database = world.gateway.database("postgres").await;
    let own_keys: i64 = sqlx::query_scalar(
        "select count(*) from skill_calls where idempotency_key ~ '^direct:cli-[0-9a-f]{32}$'",
    )
    .fetch_one(&mut database)
    .await
    .expect("the calls");
    assert_eq!(own_keys, 1);
}

async fn command_line_alone(world: Arc<World>) {
    ask_always(&world, true).await;
    let run = async |line: &str, more: &[&str]| {
        let words: Vec<&str> = line.split(' ').chain(more.iter().copied()).collect();
        let ran = world.gateway.cli(&world.acme.owner, &words).await;
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        let waits = line.starts_with("skill call ");
        let expected = if waits { 3 } else { 0 };
        assert_eq!(ran.status.code(), Some(expected), "{line}: {said}");
        (String::from_utf8_lossy(&ran.stdout).into_owned(), said)
    };
    let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let params = |message: &str| call(message)["params"].to_string();

    let (made, said) = run(
        "skill call slack.send_message --json",
        &[&params("alone: yes")],
    )
    .await;
    let approval = text(&json(&made)["approval_id"]);
    let id = text(&json(&made)["id"]);
    assert!(
        said.contains(&format!("tsunami approval approve {approval}")),
        "{said}"
    );

    // Whoever did not see that finds both.
    let (waiting, _) = run("approval list", &[]).await;
    assert!(
        waiting.contains(&approval) && waiting.contains("slack.send_message"),
        "{waiting}"
    );
    let (calls, _) = run(
        "skill calls --status awaiting_approval --skill slack --json",
        &[],
    )
    .await;
    let calls = json(&calls);
    let calls = calls.as_array().expect("a list");
    assert!(calls.iter().any(|call| call["id"] == id.as_str()));
    assert!(
        calls
            .iter()
            .all(|call| call["status"] == "awaiting_approval")
    );
    let (card, said) = run("approval show", &[&approval]).await;
    assert!(card.contains("alone: yes") && card.contains(&id), "{card}");
    assert!(said.contains("tsunami approval reject"), "{said}");

    let (decided, said) = run("approval approve --note fine", &[&approval]).await;
    assert!(decided.contains("approved"), "{decided}");
    assert!(said.contains(&format!("tsunami skill show {id}")), "{said}");
    eventually("the command line shows that the call was made", || async {
        let (card, _) = run("skill show", &[&id]).await;
        card.contains("succeeded").then_some(())
    })
    .await;
    assert_eq!(world.slack.count("alone: yes"), 1);
    let (trace, _) = run("skill trace", &[&id]).await;
    assert!(trace.contains("approval_granted"), "{trace}");
    let (waiting, _) = run("approval list", &[]).await;
    assert!(!waiting.contains(&approval), "{waiting}");

    let (made, _) = run(
        "skill call slack.send_message --json",
        &[&params("alone: no")],
    )
    .await;
    let approval = text(&json(&made)["approval_id"]);
    run("approval reject", &[&approval]).await;
    let (rejected, _) = run("approval list --status rejected", &[]).await;
    assert!(rejected.contains(&approval), "{rejected}");
    assert_eq!(world.slack.count("alone: no"), 0);
    ask_always(&world, false).await;
}
