//! Routing policies before calls: the strictest answer holds, what does not answer denies, and each answer is recorded.

use crate::{Stories, Theatre, World, shared};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use tsunami_tests::{
    api::{Answer, Api},
    chameleon::{chameleon, guise},
    company::{Company, text},
    component,
    publisher::Publisher,
};

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    shared(
        stories,
        theatre,
        "the_strictest_policy_holds_and_each_answer_is_recorded",
        strictest,
    );
    shared(stories, theatre, "a_policy_that_fails_denies", failing);
    shared(
        stories,
        theatre,
        "no_tenant_takes_the_operators_policy_away",
        operators,
    );
    shared(
        stories,
        theatre,
        "what_calls_cost_is_held_against_a_spending_limit",
        spending,
    );
    shared(
        stories,
        theatre,
        "a_policy_asks_for_a_second_person_of_a_role",
        second_person,
    );
    shared(
        stories,
        theatre,
        "a_replay_shows_what_a_policy_would_have_changed",
        replayed,
    );
    shared(
        stories,
        theatre,
        "a_published_policy_goes_into_the_chain_by_its_name_or_digest",
        published,
    );
}

async fn bring(api: &Api, path: &str) -> String {
    let brought = api
        .upload(&format!("{path}/components"), component("policy_probe"))
        .await
        .ok();
    text(&brought["digest"])
}

/// Puts the probe into a chain; gives its path there.
async fn put(api: &Api, path: &str, settings: Value) -> String {
    let digest = bring(api, path).await;
    let new = json!({ "digest": digest, "settings": settings, "skills": ["slack"] });
    let added = api.post(path, &new).await.ok();
    format!("{path}/{}", text(&added["id"]))
}

async fn take_out(api: &Api, policy: &str) {
    let gone = Api::send(api.request(Method::DELETE, policy)).await;
    assert_eq!(gone.status, 204, "{}", gone.text);
}

async fn send(world: &World, message: &str) -> Answer {
    let body = json!({ "params": { "channel": "#finance", "text": message } });
    world
        .acme
        .owner
        .post("/skills/slack/send_message", &body)
        .await
}

async fn strictest(world: Arc<World>) {
    let owner = &world.acme.owner;
    let allow = put(owner, "/policies", json!({ "answer": "allow" })).await;
    let deny = put(
        owner,
        "/policies",
        json!({ "answer": "deny", "action": "send_message" }),
    )
    .await;
    let ask = put(owner, "/policies", json!({ "answer": "ask" })).await;

    let refused = send(&world, "policy: denied").await;
    assert_eq!(refused.problem(403), "policy_denied");
    assert!(
        refused.text.contains("the probe says no"),
        "{}",
        refused.text
    );
    let call = text(&refused.json()["call_id"]);
    let decisions = owner
        .get(&format!("/policy-decisions?call_id={call}"))
        .await
        .ok();
    let items = decisions["items"].as_array().cloned().unwrap_or_default();
    let mut said: Vec<_> = items.iter().map(|d| text(&d["decision"])).collect();
    said.sort();
    assert_eq!(said, ["allow", "ask", "deny"]);
    for decision in &items {
        assert_eq!(decision["digest"].as_str().map(str::len), Some(64));
        assert_eq!(decision["input"]["action"], "send_message");
        assert!(decision["input"]["scopes"].to_string().contains("#finance"));
    }
    let trace = owner.get(&format!("/skill-calls/{call}/trace")).await.ok();
    assert!(trace.to_string().contains("the probe says no"), "{trace}");

    // The dry run says the same, and records nothing.
    let body = json!({ "params": { "channel": "#finance", "text": "dry" } });
    let dry = owner
        .post("/skills/slack/send_message?dry_run=true", &body)
        .await
        .ok();
    assert_eq!(
        (&dry["would_run"], &dry["requires_approval"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(dry["policies"].as_array().map(Vec::len), Some(3), "{dry}");

    take_out(owner, &deny).await;
    let asked = send(&world, "policy: asked").await;
    assert_eq!(asked.status, 202, "{}", asked.text);
    take_out(owner, &ask).await;
    assert_eq!(
        send(&world, "policy: allowed").await.ok()["status"],
        "succeeded"
    );
    take_out(owner, &allow).await;
    let arrived =
        ["policy: denied", "policy: asked", "policy: allowed"].map(|m| world.slack.count(m));
    assert_eq!(arrived, [0, 0, 1]);
}

async fn failing(world: Arc<World>) {
    let owner = &world.acme.owner;
    for answer in ["loop", "panic"] {
        let policy = put(owner, "/policies", json!({ "answer": answer })).await;
        let message = format!("policy: {answer}");
        let refused = send(&world, &message).await;
        assert_eq!(refused.problem(403), "policy_denied");
        assert!(refused.text.contains("did not answer"), "{}", refused.text);
        assert_eq!(world.slack.count(&message), 0);
        take_out(owner, &policy).await;
    }
    // Settings that are not what it takes do not get into the chain.
    let digest = bring(owner, "/policies").await;
    let wrong = json!({ "digest": digest, "settings": { "answer": "maybe" } });
    let refused = owner.post("/policies", &wrong).await;
    assert_eq!(refused.problem(422), "invalid_settings");
    assert!(
        refused.text.contains("/settings/answer"),
        "{}",
        refused.text
    );
    // Nor does a skill, or what is no component.
    for (file, code) in [
        (component("slack"), "invalid_policy"),
        (b"nonsense".to_vec(), "invalid_plugin"),
    ] {
        let refused = owner.upload("/policies/components", file).await;
        assert_eq!(refused.problem(422), code);
    }
}

async fn operators(world: Arc<World>) {
    let (operator, owner) = (world.gateway.operator(), &world.acme.owner);
    let policy = put(&operator, "/operator-policies", json!({ "answer": "deny" })).await;
    let own = put(owner, "/policies", json!({ "answer": "allow" })).await;
    assert_eq!(
        send(&world, "policy: operator").await.problem(403),
        "policy_denied"
    );
    let chain = owner.get("/policies").await.ok();
    let sources: Vec<_> = chain["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|p| text(&p["source"]))
        .collect();
    // The operator's comes first, before all that this tenant has.
    assert_eq!(sources[0], "operator");
    assert!(
        sources[1..].iter().all(|source| source == "tenant"),
        "{chain}"
    );
    let as_tenants = policy.replace("/operator-policies", "/policies");
    for path in [&policy, &as_tenants] {
        let answer = Api::send(owner.request(Method::DELETE, path)).await;
        assert_eq!(answer.problem(404), "not_found");
        let answer = owner.patch(path, &json!({ "enabled": false })).await;
        assert_eq!(answer.problem(404), "not_found");
    }
    assert_eq!(
        send(&world, "policy: operator").await.problem(403),
        "policy_denied"
    );
    take_out(&operator, &policy).await;
    assert_eq!(
        send(&world, "policy: operator").await.ok()["status"],
        "succeeded"
    );
    take_out(owner, &own).await;
    assert_eq!(world.slack.count("policy: operator"), 1);
}

async fn spending(world: Arc<World>) {
    const COST: u64 = 400_000;
    let (acme, owner) = (&world.acme, &world.acme.owner);
    let config = acme.configure("slack", &json!({})).await;
    let path = format!("/skill-configs/{}", text(&config["id"]));
    for (costs, place) in [
        (
            json!({ "post_telepathically": 1 }),
            "/costs/post_telepathically",
        ),
        (
            json!({ "add_reaction": 1_000_000_000_001_u64 }),
            "/costs/add_reaction",
        ),
    ] {
        let refused = owner.patch(&path, &json!({ "costs": costs })).await;
        assert_eq!(refused.status, 422, "{}", refused.text);
        assert!(refused.text.contains(place), "{}", refused.text);
    }
    let costs = json!({ "costs": { "add_reaction": COST } });
    assert_eq!(
        acme.configure("slack", &costs).await["costs"],
        costs["costs"]
    );
    let digest = owner
        .upload("/policies/components", component("spending_limit"))
        .await
        .ok();
    let limit = json!({ "digest": digest["digest"], "settings": {
        "month": { "deny_above_micro_usd": 1_000_000 }, "calls": { "actions": ["slack.add_reaction"] } } });
    let policy = owner.post("/policies", &limit).await.ok();
    let policy = format!("/policies/{}", text(&policy["id"]));

    let params =
        json!({ "channel": "C0FINANCE1", "timestamp": "1700000000.000100", "name": "tada" });
    let action = "/skills/slack/add_reaction";
    let body = json!({ "params": params });
    let dry = owner
        .post(&format!("{action}?dry_run=true"), &body)
        .await
        .ok();
    assert_eq!(dry["estimated_cost_micro_usd"], COST, "{dry}");
    let called = owner.post(action, &body).await.ok();
    assert_eq!(
        (&called["status"], &called["expected_cost_micro_usd"]),
        (&json!("succeeded"), &json!(COST))
    );
    // Within a task it counts the same, and as the task's.
    let step = json!({ "skill": "slack", "action": "add_reaction", "params": params });
    let task = json!({ "objective": "React", "plan": { "steps": [step] } });
    let task = text(&owner.post("/agent-tasks", &task).await.ok()["id"]);
    let done = acme.task_is(&task, &["completed"]).await;
    assert_eq!(done["cost_micro_usd"], COST, "{done}");
    // What costs nothing is not in its way, and adds nothing.
    assert_eq!(
        send(&world, "policy: free").await.ok()["expected_cost_micro_usd"],
        0
    );
    let refused = owner.post(action, &body).await;
    assert_eq!(refused.problem(403), "policy_denied");
    let (first, last) = (text(&called["id"]), text(&refused.json()["call_id"]));
    let mut spent = Vec::new();
    for call in [first, last] {
        let decided = owner
            .get(&format!("/policy-decisions?call_id={call}"))
            .await
            .ok();
        let usage = decided["items"][0]["input"]["usage"].clone();
        assert_eq!(usage["estimated_cost_micro_usd"], COST, "{usage}");
        spent.push(usage["month_spend_micro_usd"].as_u64().expect("a sum"));
    }
    assert_eq!(spent[1] - spent[0], 2 * COST);
    take_out(owner, &policy).await;
    acme.configure("slack", &json!({ "costs": {} })).await;
}

async fn second_person(world: Arc<World>) {
    let owner = &world.acme.owner;
    let settings =
        json!({ "answer": "ask", "second_person": true, "roles": ["admin", "approver"] });
    let policy = put(owner, "/policies", settings).await;
    let user = |name: &'static str| async move {
        let new = json!({ "email": format!("{name}@second.test"), "roles": ["admin"] });
        owner.post("/users", &new).await.ok()["id"].clone()
    };
    let (asks, agrees) = (user("asks").await, user("agrees").await);
    let key = |user: &Value, role: &str| {
        let new = json!({ "name": "key", "roles": [role], "user_id": user });
        let owner = owner.clone();
        async move { owner.with_key(&text(&owner.post("/api-keys", &new).await.ok()["secret"])) }
    };
    let admin = key(&asks, "admin").await;
    let same = key(&asks, "approver").await;
    let other = key(&agrees, "approver").await;
    let body = json!({ "params": { "channel": "#finance", "text": "policy: two" } });
    let asked = admin.post("/skills/slack/send_message", &body).await;
    assert_eq!(asked.status, 202, "{}", asked.text);
    let asked = asked.json();
    let path = format!("/approvals/{}/approve", text(&asked["approval_id"]));
    assert_eq!(
        admin.post(&path, &json!({})).await.problem(403),
        "second_person_needed"
    );
    // Another key makes nobody another person.
    assert_eq!(
        same.post(&path, &json!({})).await.problem(403),
        "second_person_needed"
    );
    assert_eq!(
        owner.post(&path, &json!({})).await.problem(403),
        "missing_role"
    );
    other.post(&path, &json!({})).await.ok();
    let call = format!("/skill-calls/{}", text(&asked["id"]));
    tsunami_tests::eventually("the call is made", || async {
        (owner.get(&call).await.ok()["status"] == "succeeded").then_some(())
    })
    .await;
    take_out(owner, &policy).await;
    assert_eq!(world.slack.count("policy: two"), 1);
}

async fn replayed(world: Arc<World>) {
    let owner = &world.acme.owner;
    let allowed = text(&send(&world, "policy: replayed").await.ok()["id"]);
    owner
        .post("/skills/slack/list_channels", &json!({ "params": {} }))
        .await
        .ok();
    let digest = bring(owner, "/policies").await;
    let trial = json!({ "digest": digest, "settings": { "answer": "deny", "action": "send_message" },
        "skills": ["slack"], "since": "2026-01-01T00:00:00Z" });
    let report = owner.post("/policies/replay", &trial).await.ok();
    let changes = report["changes"].as_array().cloned().unwrap_or_default();
    let change = changes.iter().find(|change| change["call_id"] == allowed);
    let change = change.expect("the call would have been stopped");
    assert_eq!(
        (&change["before"], &change["after"]),
        (&json!("allow"), &json!("deny"))
    );
    assert!(
        changes
            .iter()
            .all(|change| change["action"] == "send_message"),
        "{report}"
    );
    assert_eq!(
        send(&world, "policy: replayed").await.ok()["status"],
        "succeeded",
        "nothing was switched on"
    );
}

/// Nothing of it lies on the disk of whoever puts it into the chain.
async fn published(world: Arc<World>) {
    let (owner, operator) = (&world.acme.owner, world.gateway.operator());
    let maker = Company::found(&world.gateway, "policy-maker").await;
    let publisher = Publisher::register(&maker.owner, "policy-maker").await;
    let release = publisher.publish(component("policy_probe")).await.ok();
    let name = text(&release["full_name"]);
    let plugin = name.split('@').next().unwrap_or_default();
    let digest = text(&release["digest"]);
    let add = async |what: &str, rest: &[&str]| {
        let no = r#"{"answer":"deny","action":"send_message"}"#;
        let arguments = [
            "policy",
            "add",
            what,
            "--settings",
            no,
            "--skill",
            "slack",
            "--json",
        ];
        let ran = world
            .gateway
            .cli(owner, &[&arguments[..], rest].concat())
            .await;
        match ran.status.success() {
            true => Ok(serde_json::from_slice::<Value>(&ran.stdout).expect("JSON")),
            false => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
        }
    };
    // Nobody has looked at it yet, so nobody else sees it.
    let unseen = add(&name, &[]).await.expect_err("it is not approved");
    assert!(
        unseen.contains("no release") && unseen.contains("plugin search"),
        "{unseen}"
    );
    let about = |what: &str| format!("/marketplace/releases/{}/{what}", text(&release["id"]));
    operator.post(&about("approve"), &json!({})).await.ok();

    for what in [name.as_str(), plugin, &digest] {
        let added = add(what, &[]).await.expect("it is there for everybody");
        assert_eq!(added["digest"], digest.as_str(), "{what}");
        let message = format!("published policy: {what}");
        assert_eq!(send(&world, &message).await.problem(403), "policy_denied");
        assert_eq!(world.slack.count(&message), 0);
        take_out(owner, &format!("/policies/{}", text(&added["id"]))).await;
    }
    let sent = send(&world, "published policy: taken out").await.ok();
    assert_eq!(sent["status"], "succeeded");

    let adapter = publisher
        .publish_approved(chameleon(&guise("9.0.0")), &operator)
        .await;
    let refused = add(&text(&adapter["full_name"]), &[])
        .await
        .expect_err("it is an adapter");
    assert!(refused.contains("is no policy"), "{refused}");
    let refused = add("policy-probe", &[])
        .await
        .expect_err("it has no publisher");
    assert!(refused.contains("acme/four-eyes@1.2.0"), "{refused}");
    let refused = add(&"0".repeat(64), &[])
        .await
        .expect_err("nothing has this digest");
    assert!(refused.contains("bring its component first"), "{refused}");
    let reason = json!({ "reason": "counts wrong" });
    maker.owner.post(&about("yank"), &reason).await.ok();
    let refused = add(&name, &[]).await.expect_err("it is withdrawn");
    assert!(refused.contains("yanked: counts wrong"), "{refused}");
}
