//! From a publisher's key to a call, and the end of a bad plugin on every host.

use crate::{Stories, Theatre, World, own, shared};
use serde_json::{Value, json};
use std::{
    process::Output,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tsunami_tests::{
    api::{Answer, Api},
    chameleon::{chameleon, guise},
    company::{Company, text},
    component, eventually,
    gateway::Gateway,
    host::Host,
    publisher::{Publisher, agree_and_install},
    recorder::Recorder,
};

/// How long two tenants call different versions at the same time.
const TOGETHER: Duration = Duration::from_secs(60);
/// A revoked component is not called later than this.
const WITHIN: Duration = Duration::from_secs(10);
/// How long it is looked for after that.
const AFTERWARDS: Duration = Duration::from_secs(10);

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    own(
        stories,
        theatre,
        "a_revoked_plugin_is_not_called_on_any_host_and_versions_never_mix",
        three_hosts,
    );
    shared(
        stories,
        theatre,
        "the_command_line_publishes_installs_locks_and_restores",
        command_line,
    );
    shared(
        stories,
        theatre,
        "a_skills_credentials_are_described_by_another_plugin",
        described_elsewhere,
    );
}

async fn call(api: &Api) -> Answer {
    api.post("/skills/chameleon/tell", &json!({ "params": {} }))
        .await
}

/// A company with an instance, and the plugin pointed at a service of its own.
async fn caller(gateway: &Gateway, slug: &str, service: &Recorder, release: &Value) -> Company {
    let mut company = Company::found(gateway, slug).await;
    agree_and_install(&company.owner, release).await;
    company
        .configure(
            "chameleon",
            &json!({ "settings": { "base_url": service.url } }),
        )
        .await;
    company.deploy().await;
    company
}

/// The versions that a service was told of.
fn told(service: &Recorder) -> Vec<String> {
    let arrivals = service.arrivals();
    let version = |path: &str| {
        path.split("version=")
            .nth(1)
            .unwrap_or_default()
            .split('&')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let mut versions: Vec<_> = arrivals
        .iter()
        .map(|arrival| version(&arrival.path))
        .collect();
    versions.sort();
    versions.dedup();
    versions
}

async fn three_hosts() {
    let gateway = Gateway::start().await;
    let hosts = [Host::start(&gateway).await, Host::start(&gateway).await];
    let operator = gateway.operator();
    let services = [Recorder::start().await, Recorder::start().await];
    let acme = Company::found(&gateway, "acme").await;
    let publisher = Publisher::register(&acme.owner, "acme").await;
    let first = publisher
        .publish_approved(chameleon(&guise("1.0.0")), &operator)
        .await;
    let second = publisher
        .publish_approved(chameleon(&guise("1.1.0")), &operator)
        .await;
    let globex = caller(&gateway, "globex", &services[0], &first).await;
    let initech = caller(&gateway, "initech", &services[1], &second).await;
    let everywhere = |company: &Company| -> Vec<Api> {
        let others = hosts.iter().map(|host| host.as_of(&company.owner));
        std::iter::once(company.owner.clone())
            .chain(others)
            .collect()
    };
    never_mix(&everywhere(&globex), &everywhere(&initech)).await;
    assert_eq!(told(&services[0]), ["1.0.0"]);
    assert_eq!(told(&services[1]), ["1.1.0"]);
    let third = upgrade_that_grows(&globex, &publisher, &operator, &services[0]).await;
    yanked_stays(&initech, &acme, &second).await;
    revoked_stops(&everywhere(&globex), &operator, &third, &services[0]).await;
    // Another version, and another tenant, go on.
    for api in everywhere(&initech) {
        assert_eq!(call(&api).await.ok()["output"]["version"], "1.1.0");
    }
    let affected = format!("/marketplace/releases/{}/affected", text(&third["id"]));
    let own = globex.owner.get(&affected).await.ok();
    assert!(!own["calls"].as_array().expect("calls").is_empty(), "{own}");
    assert_eq!(initech.owner.get(&affected).await.ok()["calls"], json!([]));
    let all = operator.get(&affected).await.ok();
    assert_eq!(all["tenants"][0]["slug"], "globex");
}

/// Both call on all hosts at the same time.
async fn never_mix(globex: &[Api], initech: &[Api]) {
    let until = Instant::now() + TOGETHER;
    let keep_calling = async |api: &Api, version: &str| {
        let mut calls = 0;
        while Instant::now() < until {
            let answer = call(api).await.ok();
            assert_eq!(answer["output"]["version"], version, "{answer}");
            calls += 1;
        }
        calls
    };
    let theirs = |apis: &[Api], version: &'static str| {
        apis.iter()
            .cloned()
            .map(|api| async move { keep_calling(&api, version).await })
            .collect::<Vec<_>>()
    };
    let (one, other) = futures::join!(
        futures::future::join_all(theirs(globex, "1.0.0")),
        futures::future::join_all(theirs(initech, "1.1.0"))
    );
    println!("calls of two versions at once, by host: {one:?} and {other:?}");
    assert!(
        one.iter().chain(&other).all(|calls| *calls > 10),
        "all hosts served both"
    );
}

/// A call that is under way finishes with the version that it began with.
async fn upgrade_that_grows(
    globex: &Company,
    publisher: &Publisher,
    operator: &Api,
    service: &Recorder,
) -> Value {
    let mut more = guise("2.0.0");
    more["hosts"] = json!(["allowed.example", "more.example"]);
    more["actions"][0]["risk"] = json!("write");
    let release = publisher.publish_approved(chameleon(&more), operator).await;
    let plugins = globex.owner.get("/plugins").await.ok();
    let path = format!("/plugins/{}/upgrade", text(&plugins["items"][0]["id"]));
    let refused = globex.owner.post(&path, &json!({})).await;
    assert_eq!(refused.problem(409), "consent_required");
    assert_eq!(call(&globex.owner).await.ok()["output"]["version"], "1.0.0");
    let before = service.arrivals().len();
    service.hold();
    let api = globex.owner.clone();
    let under_way = tokio::spawn(async move { call(&api).await });
    eventually("the call is under way", || async {
        (service.arrivals().len() > before).then_some(())
    })
    .await;
    let agreed = json!({ "consent": { "sha256": refused.json()["consent_sha256"] } });
    let upgraded = globex.owner.post(&path, &agreed).await.ok();
    assert_eq!(upgraded["version"], "2.0.0");
    service.release();
    let finished = under_way.await.expect("it answers").ok();
    assert_eq!(finished["output"]["version"], "1.0.0", "{finished}");
    assert_eq!(call(&globex.owner).await.ok()["output"]["version"], "2.0.0");
    release
}

async fn yanked_stays(initech: &Company, acme: &Company, release: &Value) {
    let path = format!("/marketplace/releases/{}/yank", text(&release["id"]));
    acme.owner
        .post(&path, &json!({ "reason": "counts wrong" }))
        .await
        .ok();
    assert_eq!(
        call(&initech.owner).await.ok()["output"]["version"],
        "1.1.0"
    );
    let plugins = initech.owner.get("/plugins").await.ok();
    let notices = plugins["items"][0]["notices"].as_array().expect("notices");
    assert!(
        notices.iter().any(|notice| notice["code"] == "yanked"),
        "{notices:?}"
    );
    let asked = acme
        .owner
        .get(&format!(
            "/marketplace/releases/{}/consent",
            text(&release["id"])
        ))
        .await
        .ok();
    let new = json!({ "release": release["id"], "consent": { "sha256": asked["consent_sha256"] } });
    assert_eq!(
        acme.owner.post("/plugins", &new).await.problem(409),
        "release_yanked"
    );
}

/// All hosts are called without a pause, while an operator revokes.
async fn revoked_stops(apis: &[Api], operator: &Api, release: &Value, service: &Recorder) {
    let over = Arc::new(AtomicBool::new(false));
    let last = Arc::new(Mutex::new(vec![None::<Instant>; apis.len()]));
    let calling = apis.iter().cloned().enumerate().map(|(host, api)| {
        let (over, last) = (over.clone(), last.clone());
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let answer = call(&api).await;
                match answer.status.as_u16() {
                    200 => last.lock().expect("no panic")[host] = Some(Instant::now()),
                    // It was stopped between its two requests, or before the first.
                    _ => assert!(answer.text.contains("plugin_revoked"), "{}", answer.text),
                }
            }
        })
    });
    let calling: Vec<_> = calling.collect();
    eventually("every host is at work", || async {
        last.lock()
            .expect("no panic")
            .iter()
            .all(Option::is_some)
            .then_some(())
    })
    .await;
    let path = format!("/marketplace/releases/{}/revoke", text(&release["id"]));
    operator
        .post(&path, &json!({ "reason": "it sends more than it says" }))
        .await
        .ok();
    let revoked = Instant::now();
    tokio::time::sleep_until(revoked + WITHIN).await;
    let by_then = service.arrivals().len();
    tokio::time::sleep_until(revoked + WITHIN + AFTERWARDS).await;
    over.store(true, Ordering::Relaxed);
    for task in calling {
        task.await.expect("whoever calls is told why not");
    }
    assert_eq!(
        service.arrivals().len(),
        by_then,
        "the service was asked after {WITHIN:?}"
    );
    for (host, at) in last.lock().expect("no panic").iter().enumerate() {
        let late = at
            .expect("it was at work")
            .saturating_duration_since(revoked);
        println!("host {host}: the last call ended {late:?} after the revocation was answered");
        assert!(
            late < WITHIN,
            "host {host} called it {late:?} after it was revoked"
        );
    }
    for api in apis {
        assert_eq!(call(api).await.problem(409), "plugin_revoked");
    }
}

#[track_caller]
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[track_caller]
fn refused(output: &Output) -> String {
    assert!(
        !output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn command_line(world: Arc<World>) {
    let gateway = &world.gateway;
    let publisher = Company::found(gateway, "cli-publisher").await.owner;
    let tenant = Company::found(gateway, "cli-tenant").await.owner;
    let operator = gateway.operator();
    let nobody = gateway.anybody();
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (key, lock) = (at("key.pem"), at("plugins.lock"));
    let plugin = async |who: &Api, arguments: &[&str]| {
        let arguments: Vec<_> = std::iter::once("plugin")
            .chain(arguments.iter().copied())
            .collect();
        gateway.cli(who, &arguments).await
    };
    said(&plugin(&nobody, &["keygen", &key]).await);
    assert!(refused(&plugin(&nobody, &["keygen", &key]).await).contains("never overwritten"));
    said(&plugin(&publisher, &["register", "cli-acme", "--key", &key]).await);
    for version in ["1.0.0", "1.1.0"] {
        let file = at(&format!("{version}.wasm"));
        std::fs::write(&file, chameleon(&guise(version))).expect("a file");
        let told = said(&plugin(&publisher, &["publish", &file, "--key", &key]).await);
        assert!(
            told.contains(&format!("cli-acme/chameleon@{version} is submitted")),
            "{told}"
        );
        let name = format!("cli-acme/chameleon@{version}");
        let approved = plugin(&operator, &["approve", &name]).await;
        said(&approved);
        // Whoever approves has seen it.
        let shown = String::from_utf8_lossy(&approved.stderr).into_owned();
        for part in ["allowed.example", "it conforms", "skill-adapter", "tell"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
    // What does not do as it says is approved by whoever says so twice: it speaks to a host that it does not declare.
    let mut odd = guise("1.0.0");
    (odd["skill"], odd["hosts"]) = (json!("odd"), json!(["other.example"]));
    let file = at("odd.wasm");
    std::fs::write(&file, chameleon(&odd)).expect("a file");
    said(&plugin(&publisher, &["publish", &file, "--key", &key]).await);
    let name = "cli-acme/odd@1.0.0";
    let silent = refused(&plugin(&operator, &["approve", name]).await);
    for part in ["it does not conform", "allowed.example", "--yes"] {
        assert!(silent.contains(part), "{part}: {silent}");
    }
    let still = said(&plugin(&operator, &["release", name, "--json"]).await);
    let still: Value = serde_json::from_str(&still).expect("JSON");
    assert_eq!(still["state"], "submitted");
    said(&plugin(&operator, &["approve", name, "--yes"]).await);
    let approved = said(&plugin(&tenant, &["release", name]).await);
    assert!(approved.contains("it does not conform"), "{approved}");
    // So can whoever installs, and keep the component.
    let fetched = at("fetched.wasm");
    let name = "cli-acme/chameleon@1.0.0";
    let card = said(&plugin(&tenant, &["release", name]).await);
    assert!(
        card.contains("it conforms") && card.contains("allowed.example"),
        "{card}"
    );
    let download = ["release", name, "--download", &fetched];
    said(&plugin(&tenant, &download).await);
    assert_eq!(
        std::fs::read(&fetched).expect("it"),
        chameleon(&guise("1.0.0"))
    );
    assert!(refused(&plugin(&tenant, &download).await).contains("cannot write"));
    assert!(
        said(&plugin(&tenant, &["search", "chameleon"]).await).contains("cli-acme/chameleon@1.1.0")
    );
    // Nobody agrees for somebody who is not there.
    let silent = refused(&plugin(&tenant, &["install", "cli-acme/chameleon@1.0.0"]).await);
    assert!(
        silent.contains("--yes") && silent.contains("allowed.example"),
        "{silent}"
    );
    said(&plugin(&tenant, &["install", "cli-acme/chameleon@1.0.0", "--yes"]).await);
    // A file does not take a reviewed release's place unasked, nor is it upgraded.
    let silent = refused(&plugin(&tenant, &["install", &at("1.1.0.wasm")]).await);
    assert!(
        silent.contains("place of cli-acme/chameleon@1.0.0") && silent.contains("--yes"),
        "{silent}"
    );
    let upgraded = ["install", &at("1.1.0.wasm"), "--auto-upgrade", "--yes"];
    assert!(refused(&plugin(&tenant, &upgraded).await).contains("--auto-upgrade"));
    assert!(
        said(&plugin(&tenant, &["show", "chameleon"]).await).contains("cli-acme/chameleon@1.0.0")
    );
    let own = at("own.wasm");
    let mut said_of_own = guise("0.1.0");
    said_of_own["skill"] = json!("own");
    std::fs::write(&own, chameleon(&said_of_own)).expect("a file");
    said(&plugin(&tenant, &["install", &own]).await);
    assert!(said(&plugin(&tenant, &["lock", &lock]).await).starts_with("2 plugins"));
    let before = tenant.get("/plugins").await.ok();
    // All of it changes, and comes back.
    said(&plugin(&tenant, &["upgrade", "chameleon"]).await);
    said(
        &plugin(
            &tenant,
            &[
                "remove",
                "own",
                "--credentials",
                "delete",
                "--configuration",
                "delete",
            ],
        )
        .await,
    );
    let mut third = guise("0.1.0");
    third["skill"] = json!("third");
    tenant.upload("/plugins", chameleon(&third)).await.ok();
    said(
        &plugin(
            &publisher,
            &["yank", "cli-acme/chameleon@1.0.0", "--reason", "old"],
        )
        .await,
    );
    // Something would go away: it says what, and does nothing without a yes.
    let changed = tenant.get("/plugins").await.ok();
    let silent = refused(&plugin(&tenant, &["install", "--locked", &lock]).await);
    for part in [
        "third: to remove",
        "in the place of cli-acme/chameleon@1.1.0",
        "--yes",
    ] {
        assert!(silent.contains(part), "{part}: {silent}");
    }
    assert_eq!(tenant.get("/plugins").await.ok(), changed);
    let told = said(&plugin(&tenant, &["install", "--locked", &lock, "--yes"]).await);
    assert!(
        told.contains("third: removed") && told.contains("own: installed"),
        "{told}"
    );
    let digests = |plugins: &Value| {
        let items = plugins["items"].as_array().cloned().unwrap_or_default();
        let mut all: Vec<_> = items
            .iter()
            .map(|p| (text(&p["skill"]), text(&p["digest"])))
            .collect();
        all.sort();
        all
    };
    assert_eq!(
        digests(&tenant.get("/plugins").await.ok()),
        digests(&before)
    );
    let listed = plugin(&tenant, &["list"]).await;
    assert!(said(&listed).contains("cli-acme/chameleon@1.0.0"));
    assert!(String::from_utf8_lossy(&listed.stderr).contains("was withdrawn"));
    // A lock file that names other bytes is not followed.
    let text_of_lock = std::fs::read_to_string(&lock).expect("the lock file");
    let digest = digests(&before)
        .into_iter()
        .find(|(skill, _)| skill == "chameleon")
        .expect("it")
        .1;
    std::fs::write(&lock, text_of_lock.replace(&digest, &"0".repeat(64))).expect("a file");
    assert!(
        refused(&plugin(&tenant, &["install", "--locked", &lock, "--yes"]).await)
            .contains("another component")
    );
    said(&plugin(&tenant, &["rollback", "chameleon"]).await);
    let revoke = [
        "revoke",
        "cli-acme/chameleon@1.1.0",
        "--reason",
        "leaks",
        "--yes",
    ];
    let silent = refused(&plugin(&operator, &revoke[..4]).await);
    assert!(
        silent.contains("--yes") && silent.contains("cli-tenant"),
        "{silent}"
    );
    let still = plugin(&tenant, &["search", "chameleon"]).await;
    assert!(said(&still).contains("cli-acme/chameleon@1.1.0"));
    said(&plugin(&publisher, &revoke).await);
    assert!(
        said(&plugin(&tenant, &["affected", "cli-acme/chameleon@1.0.0"]).await)
            .contains("created at")
    );
    let gone = refused(&plugin(&tenant, &["install", "cli-acme/chameleon@1.1.0", "--yes"]).await);
    assert!(gone.contains("plugin_revoked"), "{gone}");
    // A key that somebody else got at.
    let keys = said(&plugin(&publisher, &["keys", "--json"]).await);
    let keys: Value = serde_json::from_str(&keys).expect("JSON");
    let id = text(&keys[0]["id"]);
    assert!(said(&plugin(&publisher, &["retire-key", &id]).await).contains("retired since"));
    let file = at("1.2.0.wasm");
    std::fs::write(&file, chameleon(&guise("1.2.0"))).expect("a file");
    let publish = ["publish", &file, "--key", &key];
    assert!(refused(&plugin(&publisher, &publish).await).contains("retired"));
    assert!(refused(&plugin(&publisher, &["revoke-key", &id]).await).contains("--yes"));
    let asked = plugin(&publisher, &["revoke-key", &id]).await;
    let asked = String::from_utf8_lossy(&asked.stderr).into_owned();
    for part in [
        "it signed 3 releases, in 1 tenant",
        "cli-acme/odd@1.0.0, in 0",
    ] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    let still = said(&plugin(&operator, &["keys", "cli-acme"]).await);
    assert!(still.contains(&id), "{still}");
    let revoked = said(&plugin(&publisher, &["revoke-key", &id, "--yes"]).await);
    assert!(revoked.contains("revoked since"), "{revoked}");
    let record = [
        "identity",
        "cli-acme",
        "--subject",
        "releases@acme.example",
        "--issuer",
        "https://login.acme.example",
        "--yes",
    ];
    assert!(refused(&plugin(&publisher, &record[..6]).await).contains("--yes"));
    said(&plugin(&publisher, &record).await);
    let recorded = said(&plugin(&tenant, &["identity", "cli-acme"]).await);
    assert!(recorded.contains("releases@acme.example"), "{recorded}");
    // Only an operator takes it away.
    let remove = ["identity", "cli-acme", "--remove"];
    assert!(refused(&plugin(&publisher, &remove).await).contains("identity_recorded"));
    assert!(said(&plugin(&operator, &remove).await).contains("nobody is recorded"));
}

/// The codes of what there is to know of an installed plugin.
async fn noticed(api: &Api, plugin: &Value) -> Vec<String> {
    let plugin = api.get(&format!("/plugins/{}", text(&plugin["id"]))).await;
    let plugin = plugin.ok();
    let notices = plugin["notices"].as_array().into_iter().flatten();
    notices.map(|notice| text(&notice["code"])).collect()
}

fn bearers(service: &Recorder) -> Vec<String> {
    let arrivals = service.arrivals().into_iter();
    arrivals.map(|arrival| arrival.authorization).collect()
}

async fn described_elsewhere(world: Arc<World>) {
    let gateway = &world.gateway;
    let publisher = Company::found(gateway, "split-publisher").await.owner;
    let publisher = Publisher::register(&publisher, "split").await;
    let mut company = Company::found(gateway, "split-tenant").await;
    let owner = company.owner.clone();
    let service = Recorder::start().await;
    let skill = owner.upload("/plugins", component("divided_skill")).await;
    let skill = skill.ok();
    assert_eq!(skill["serves"], "skill");
    assert_eq!(noticed(&owner, &skill).await, ["credentials_not_described"]);
    let new = |value: &str| json!({ "skill": "divided", "key": "api_key", "value": value });
    let early = owner.post("/skill-creds", &new("key-early-enough")).await;
    assert_eq!(early.problem(422), "invalid_body");

    let credentials = component("divided_credentials");
    let operator = gateway.operator();
    let release = publisher
        .publish_approved(credentials.clone(), &operator)
        .await;
    assert_eq!(release["name"], "divided-credentials");
    let unread = owner
        .post("/plugins", &json!({ "release": release["id"] }))
        .await;
    assert_eq!(unread.problem(409), "consent_required");
    let consent = unread.json();
    assert_eq!(consent["consent"]["credentials"][0]["key"], "api_key");
    assert_eq!(consent["consent"]["actions"], json!([]));
    let schema = agree_and_install(&owner, &release).await;
    assert_eq!(
        (&schema["skill"], &schema["serves"]),
        (&json!("divided"), &json!("credentials"))
    );
    assert!(noticed(&owner, &skill).await.is_empty());
    assert!(noticed(&owner, &schema).await.is_empty());

    let form = owner.get("/skills/divided/credential-schema").await.ok();
    assert_eq!(form["required"], json!(["api_key"]));
    let wrong = owner
        .post("/skill-creds", &new("token-of-another-kind"))
        .await;
    assert_eq!(wrong.problem(422), "invalid_body");
    assert!(wrong.text.contains("does not begin"), "{}", wrong.text);
    assert!(!wrong.text.contains("another-kind"), "{}", wrong.text);
    let key = "key-of-the-divided";
    company.store_credential("divided", "api_key", key).await;
    let settings = json!({ "settings": { "base_url": service.url } });
    company.configure("divided", &settings).await;
    company.deploy().await;
    let call = json!({ "params": {} });
    owner.post("/skills/divided/tell", &call).await.ok();
    assert_eq!(bearers(&service), vec![format!("Bearer {key}"); 1]);

    // Both are in a lock file, and come back by it.
    let folder = tempfile::tempdir().expect("a folder");
    let lock = folder.path().join("plugins.lock").display().to_string();
    said(&gateway.cli(&owner, &["plugin", "lock", &lock]).await);
    let locked = std::fs::read_to_string(&lock).expect("a lock file");
    assert_eq!(locked.matches("serves = \"credentials\"").count(), 1);
    for name in ["divided", "split/divided-credentials"] {
        let remove = ["plugin", "remove", name, "--credentials", "keep"];
        let remove = [&remove[..], &["--configuration", "keep"]].concat();
        said(&gateway.cli(&owner, &remove).await);
    }
    assert_eq!(owner.get("/plugins").await.ok()["items"], json!([]));
    // The skill has a configuration, and nothing that describes its credentials.
    let client = "/skill-creds/oauth/client?skill=divided&key=api_key";
    owner.get(client).await.problem(404);
    let unasked = owner.post("/skill-creds", &new("key-for-nobody")).await;
    unasked.problem(404);
    // What a lock file takes a release for is what it is.
    let lie = locked.replace("skill = \"divided\"\nserves", "skill = \"slack\"\nserves");
    assert_ne!(lie, locked);
    let lying = folder.path().join("lying.lock").display().to_string();
    std::fs::write(&lying, lie).expect("a lock file");
    let install = ["plugin", "install", "--locked", &lying, "--yes"];
    let refused = gateway.cli(&owner, &install).await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && told.contains("credentials of divided"),
        "{told}"
    );
    assert_eq!(owner.get("/plugins").await.ok()["items"], json!([]));
    said(
        &gateway
            .cli(&owner, &["plugin", "install", "--locked", &lock, "--yes"])
            .await,
    );
    owner.post("/skills/divided/tell", &call).await.ok();
    assert_eq!(bearers(&service), vec![format!("Bearer {key}"); 2]);

    // A version that describes them itself needs nobody beside it.
    let mut whole = guise("2.0.0");
    (whole["skill"], whole["credentials"]) = (json!("divided"), json!(["api_key"]));
    let whole = owner.upload("/plugins", chameleon(&whole)).await.ok();
    let installed = owner.get("/plugins").await.ok();
    let installed = installed["items"].as_array().cloned().unwrap_or_default();
    let schema = installed.iter().find(|p| p["serves"] == "credentials");
    let schema = schema.expect("it is there still");
    assert_eq!(noticed(&owner, schema).await, ["unused"]);
    owner
        .post("/skill-creds", &new("any-shape-will-do"))
        .await
        .ok();
    let again = owner.upload("/plugins", credentials).await;
    assert_eq!(again.problem(409), "credentials_described");
    let path = format!("/plugins/{}", text(&schema["id"]));
    let both = format!("{path}?credentials=delete&configuration=delete");
    assert_eq!(owner.delete(&both).await.problem(409), "skill_installed");
    owner.delete(&path).await.ok();
    let back = format!("/plugins/{}/rollback", text(&whole["id"]));
    let back = owner.post(&back, &json!({})).await.ok();
    assert_eq!(noticed(&owner, &back).await, ["credentials_not_described"]);
}
