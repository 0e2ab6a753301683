//! What people do at the command line, where a slip of theirs must not cost them anything.

use crate::{CANARY, Stories, Theatre, World, shared};
use nix::{
    pty::openpty,
    sys::termios::{LocalFlags, tcgetattr},
};
use serde_json::json;
use std::{
    fs::File,
    io::{Read, Write},
    process::{Command, Stdio},
    sync::Arc,
};
use tsunami_tests::{
    company::{Company, text},
    eventually,
    gateway::program,
    processes,
};

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    shared(
        stories,
        theatre,
        "what_cannot_be_taken_back_is_not_done_without_a_yes",
        asked_first,
    );
    shared(
        stories,
        theatre,
        "an_instance_is_destroyed_with_a_yes_and_nothing_of_it_stays",
        destroyed,
    );
    shared(
        stories,
        theatre,
        "a_secret_that_is_typed_on_a_terminal_is_not_shown",
        not_shown,
    );
    shared(
        stories,
        theatre,
        "what_strangers_wrote_cannot_act_on_the_terminal",
        strangers,
    );
    shared(
        stories,
        theatre,
        "a_companys_rules_people_and_keys_are_set_by_the_command_line",
        rules_and_people,
    );
    shared(
        stories,
        theatre,
        "a_call_that_waits_for_a_person_is_no_success_until_it_has_ended",
        waits_for_a_person,
    );
}

/// Runs a command as the owner of a company; says whether it was done, and all that was printed.
async fn run(world: &World, company: &Company, words: &[&str]) -> (bool, String) {
    let ran = world.gateway.cli(&company.owner, words).await;
    let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (ran.status.success(), said.concat())
}

async fn strangers(world: Arc<World>) {
    let owner = &world.acme.owner;
    let new = json!({ "name": "of a stranger", "roles": ["auditor"] });
    let key = text(&owner.post("/api-keys", &new).await.ok()["api_key"]["id"]);
    // As it may stand there from before names were looked at, or come from another gateway.
    let hostile = "\u{1b}[2J\u{1b}]0;title\u{7}\u{202e}gpj.exe";
    let mut database = world.gateway.database("postgres").await;
    sqlx::query("update api_keys set name = $2 where id = $1::uuid")
        .bind(&key)
        .bind(hostile)
        .execute(&mut database)
        .await
        .expect("a name");
    for words in [
        &["key", "list"][..],
        &["key", "list", "--json"],
        // What is told on standard error, and is an error.
        &["key", "revoke", &key],
    ] {
        let (_, said) = run(&world, &world.acme, words).await;
        assert!(said.contains("gpj.exe"), "{words:?}: {said:?}");
        for harmful in ['\u{1b}', '\u{7}', '\u{202e}'] {
            assert!(!said.contains(harmful), "{words:?}: {said:?}");
        }
    }
    let ran = world.gateway.cli(owner, &["key", "list", "--json"]).await;
    let keys: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    let named = |k: &serde_json::Value| k["name"] == hostile;
    assert!(keys.as_array().is_some_and(|keys| keys.iter().any(named)));
    owner.delete(&format!("/api-keys/{key}")).await.ok();
}

async fn asked_first(world: Arc<World>) {
    let company = Company::with_slack(&world.gateway, "asked-first", &world.slack, CANARY).await;
    let credentials = company.owner.get("/skill-creds").await.ok();
    let credential = text(&credentials["items"][0]["id"]);
    let instance = format!("/instances/{}", world.acme.instance);
    for (who, words) in [
        (&company, ["cred", "revoke", &credential]),
        (&world.acme, ["instance", "destroy", &world.acme.instance]),
    ] {
        let (done, said) = run(&world, who, &words).await;
        assert!(
            !done && said.contains("--yes") && said.contains("nothing was done"),
            "{said}"
        );
    }
    let stored = company.owner.get("/skill-creds").await.ok();
    assert_eq!(stored["items"][0]["status"], "active");
    assert_eq!(
        world.acme.owner.get(&instance).await.ok()["status"],
        "running"
    );
    let (done, said) = run(&world, &company, &["cred", "revoke", &credential, "--yes"]).await;
    assert!(done && said.contains("revoked"), "{said}");
}

async fn destroyed(world: Arc<World>) {
    let company = Company::ready(&world.gateway, "destroyed", &world.slack, CANARY).await;
    let instance = company.instance_is("running").await;
    let folder = format!("instances/{}", text(&instance["name"]));
    let pid_file = format!("{folder}/pid");
    let pid = world.gateway.pid_of(&pid_file).expect("it runs");
    assert!(processes::lives(pid));
    let destroy = ["instance", "destroy", &company.instance, "--yes"];
    let (done, said) = run(&world, &company, &destroy).await;
    assert!(done && said.contains("destroyed"), "{said}");
    assert!(!processes::lives(pid), "its process has ended");
    let folder = world.gateway.data_dir().join(folder);
    assert!(!folder.exists(), "{} is still there", folder.display());
    let message = json!({ "params": { "channel": "#finance", "text": "to nowhere" } });
    let call = company.owner.post("/skills/slack/send_message", &message);
    assert_eq!(call.await.problem(409), "no_instance");
    // Another takes its place.
    company.owner.post("/instances", &json!({})).await.ok();
}

async fn not_shown(world: Arc<World>) {
    const TYPED: &str = "xoxb-typed-on-a-terminal-9d4e";
    let company = Company::with_slack(&world.gateway, "not-shown", &world.slack, CANARY).await;
    let terminal = openpty(None, None).expect("a terminal");
    let echoes = || {
        let modes = tcgetattr(&terminal.master).expect("its modes");
        modes.local_flags.contains(LocalFlags::ECHO)
    };
    assert!(echoes(), "it shows what is typed, until it is told not to");
    let mut command = Command::new(program());
    command
        .args(["cred", "set", "slack", "bot_token"])
        .args(["--expires", "2099-01-31"])
        .env("TSUNAMI_URL", world.gateway.url())
        .env("TSUNAMI_API_KEY", &company.owner.key)
        .stdin(Stdio::from(terminal.slave.try_clone().expect("a copy")))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let running = command.spawn().expect("it starts");
    eventually("it asks without showing", || async {
        (!echoes()).then_some(())
    })
    .await;
    let mut keyboard = File::from(terminal.master.try_clone().expect("a copy"));
    writeln!(keyboard, "{TYPED}").expect("typed");
    let ran = tokio::task::spawn_blocking(move || running.wait_with_output()).await;
    let ran = ran.expect("it ends").expect("it ran");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{said}");
    assert!(echoes(), "the terminal is as it was");
    // What the screen shows; its end is an error once nobody holds the terminal any more.
    drop(command);
    drop(terminal.slave);
    let mut screen = Vec::new();
    let _ = keyboard.read_to_end(&mut screen);
    let screen = String::from_utf8_lossy(&screen).into_owned();
    assert!(!screen.contains(TYPED), "{screen}");
    let stored = company.owner.get("/skill-creds").await.ok();
    let stored = stored["items"].as_array().expect("a list");
    let active = stored.iter().find(|one| one["status"] == "active");
    let active = active.expect("the one that was typed");
    assert_eq!(active["last_4"], json!("9d4e"));
    assert!(text(&active["expires_at"]).starts_with("2099-01-31"));
}

async fn rules_and_people(world: Arc<World>) {
    let company = Company::with_slack(&world.gateway, "by-command", &world.slack, CANARY).await;
    let owner = async |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        run(&world, &company, &words).await
    };
    let configs = company.owner.get("/skill-configs").await.ok();
    let config = format!("/skill-configs/{}", text(&configs["items"][0]["id"]));
    let (done, said) = owner(
        "skill config set slack --approval send_message --approvers approver --approval-within 2h \
         --scope channels=#finance,#ops --rate 100/1h",
    )
    .await;
    assert!(done && said.contains("#finance, #ops"), "{said}");
    let (done, said) = owner("skill config set slack --scope channels=#finance").await;
    assert!(done, "{said}");
    let set = company.owner.get(&config).await.ok();
    for (rule, expected) in [
        ("approval_actions", json!(["send_message"])),
        ("approver_roles", json!(["approver"])),
        ("approval_ttl_seconds", json!(7200)),
        ("allowed_scopes", json!({ "channels": ["#finance"] })),
        (
            "rate_limit",
            json!({ "max_actions": 100, "per_seconds": 3600 }),
        ),
        // What was not given stays.
        ("settings", json!({ "base_url": world.slack.url })),
        ("enabled", json!(true)),
    ] {
        assert_eq!(set[rule], expected, "{rule}");
    }
    let (done, said) = owner("skill config show slack").await;
    assert!(
        done && said.contains("100 in 3600 s") && said.contains("send_message"),
        "{said}"
    );
    let (done, said) = owner("skill config set slack").await;
    assert!(!done && said.contains("nothing to change"), "{said}");
    let (done, said) = owner("skill config show slick").await;
    assert!(!done && said.contains("tsunami plugin list"), "{said}");

    let (done, said) = owner("user add rita@acme.example --role approver --name Rita").await;
    assert!(done, "{said}");
    assert!(owner("user list").await.1.contains("rita@acme.example"));
    let create = "key create rita --role approver --user rita@acme.example --json";
    let (done, said) = owner(create).await;
    assert!(done, "{said}");
    let made: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let users = company.owner.get("/users").await.ok();
    let users = users["items"].as_array().expect("a list");
    let rita = users.iter().find(|one| one["email"] == "rita@acme.example");
    assert_eq!(made["api_key"]["user_id"], rita.expect("her")["id"]);
    let key = company.owner.with_key(&text(&made["secret"]));
    key.get("/approvals").await.ok();

    let id = text(&made["api_key"]["id"]);
    let (done, said) = owner(&format!("key revoke {id}")).await;
    assert!(!done && said.contains("--yes"), "{said}");
    key.get("/approvals").await.ok();
    let (done, said) = owner(&format!("key revoke {id} --yes")).await;
    assert!(done && said.contains("revoked since"), "{said}");
    assert_eq!(key.get("/approvals").await.status, 401);
    assert!(owner("key list").await.1.contains("revoked since"));
}

/// Runs a command as the owner of the shared company; the code that it ends with, and all that was printed.
async fn ends(world: &World, words: &[&str]) -> (Option<i32>, String) {
    let ran = world.gateway.cli(&world.acme.owner, words).await;
    let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (ran.status.code(), said.concat())
}

/// Decides the one call that bears this text, when it asks.
async fn decide(world: &World, text_of: &str, decision: &str) {
    let owner = &world.acme.owner;
    let approval = eventually("the call asks", || async {
        let pending = owner.get("/approvals?status=pending").await.ok();
        let pending = pending["items"].as_array()?.clone();
        let asked = |one: &&serde_json::Value| one["request"]["params"]["text"] == text_of;
        pending.iter().find(asked).map(|one| text(&one["id"]))
    })
    .await;
    let path = format!("/approvals/{approval}/{decision}");
    owner.post(&path, &json!({})).await.ok();
}

async fn waits_for_a_person(world: Arc<World>) {
    let rule = json!({ "approval_actions": ["send_message"] });
    world.acme.configure("slack", &rule).await;
    let message = |text: &str| json!({ "channel": "#finance", "text": text }).to_string();
    let call = async |text: &str, more: &[&str]| {
        let message = message(text);
        let words = [&["skill", "call", "slack.send_message", &message], more].concat();
        ends(&world, &words).await
    };
    let (code, said) = call("exit: left", &[]).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("tsunami approval approve "), "{said}");
    decide(&world, "exit: left", "reject").await;

    let (ended, ()) = tokio::join!(
        call("exit: approved", &["--wait"]),
        decide(&world, "exit: approved", "approve")
    );
    assert_eq!(ended.0, Some(0), "{}", ended.1);
    for words in ["tsunami approval approve ", "succeeded"] {
        assert!(ended.1.contains(words), "{}", ended.1);
    }
    let (ended, ()) = tokio::join!(
        call("exit: rejected", &["--wait"]),
        decide(&world, "exit: rejected", "reject")
    );
    assert_eq!(ended.0, Some(1), "{}", ended.1);
    assert!(ended.1.contains("rejected"), "{}", ended.1);

    let step = format!("slack.send_message={}", message("exit: task"));
    let task = ["task", "create", "Say it", "--step", &step, "--follow"];
    let (code, said) = ends(&world, &task).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("tsunami approval approve "), "{said}");
    decide(&world, "exit: task", "reject").await;
    let free = json!({ "approval_actions": [] });
    world.acme.configure("slack", &free).await;
    let (code, said) = call("exit: free", &[]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = call("exit: free", &["--no-such-option"]).await;
    assert_eq!(code, Some(2), "{said}");
}
