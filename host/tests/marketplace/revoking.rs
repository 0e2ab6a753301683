//! A bad plugin stops, for whom and how fast.

use crate::{
    Stage, Stories, story,
    world::{World, live},
};
use serde_json::{Value, json};
use sqlx::Executor;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tsunami::{
    app::App,
    marketplace::{revocations, upgrades},
};
use tsunami_provenance::PrivateKey;
use tsunami_tests::{
    api::Api,
    chameleon::{chameleon, guise},
    company::text,
    component, eventually,
    publisher::{Publisher, agree_and_install},
};

/// What is promised.
const WITHIN: Duration = Duration::from_secs(10);

pub fn stories(stories: &mut Stories, stage: &Arc<Stage>) {
    story(
        stories,
        stage,
        "a_yanked_release_stays_and_warns_and_is_not_installed_anew",
        yanked,
    );
    story(
        stories,
        stage,
        "a_publisher_revokes_its_release_and_not_others_bytes",
        by_publisher,
    );
    story(
        stories,
        stage,
        "an_operator_revokes_bytes_wherever_they_came_from",
        by_operator,
    );
    story(stories, stage, "a_revoked_key_stops_what_it_signed", by_key);
    story(
        stories,
        stage,
        "what_a_revoked_key_signed_takes_the_place_of_nothing",
        by_stolen_key,
    );
    story(
        stories,
        stage,
        "a_revocation_holds_where_its_notification_is_lost",
        lost,
    );
    story(
        stories,
        stage,
        "a_published_policy_goes_into_a_chain_and_denies_once_it_is_revoked",
        policies,
    );
    story(
        stories,
        stage,
        "a_policy_that_a_tenant_took_from_the_operator_stays_with_it",
        taken,
    );
    story(
        stories,
        stage,
        "a_host_without_word_of_revocations_calls_nothing_published",
        stale,
    );
    story(
        stories,
        stage,
        "a_release_that_was_tampered_with_is_not_run",
        tampered,
    );
}

async fn code(world: &World, app: &App, api: &Api) -> String {
    match world.load(app, api).await {
        Ok(version) => version,
        Err(problem) => problem.code().to_owned(),
    }
}

/// Until the host says so; fails when more time than promised has passed.
async fn comes_to(world: &World, app: &App, api: &Api, wanted: &str) -> Duration {
    let began = Instant::now();
    while code(world, app, api).await != wanted {
        assert!(began.elapsed() < WITHIN, "not {wanted} within {WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

async fn released(world: &World, version: &str) -> (Publisher, Value) {
    let acme = Publisher::register(&world.acme, "acme").await;
    let release = acme
        .publish_approved(chameleon(&guise(version)), &world.operator)
        .await;
    (acme, release)
}

fn about(release: &Value, what: &str) -> String {
    format!("/marketplace/releases/{}/{what}", text(&release["id"]))
}

async fn yanked(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let (acme, release) = released(&world, "1.0.0").await;
    let installed = agree_and_install(&world.globex, &release).await;
    let reason = json!({ "reason": "counts wrong" });
    assert_eq!(
        world
            .globex
            .post(&about(&release, "yank"), &reason)
            .await
            .problem(403),
        "not_the_publisher"
    );
    let yanked = world
        .acme
        .post(&about(&release, "yank"), &reason)
        .await
        .ok();
    assert_eq!(
        (&yanked["state"], &yanked["state_reason"]),
        (&json!("yanked"), &json!("counts wrong"))
    );
    // It stays, and says so.
    assert_eq!(code(&world, &world.app, &world.globex).await, "1.0.0");
    let (plugin, notices) = live(&world.globex).await;
    assert_eq!(notices, ["yanked"]);
    assert!(text(&plugin["notices"][0]["message"]).contains("counts wrong"));
    let told = world.globex.get("/marketplace/notices").await.ok();
    assert_eq!(
        (&told["items"][0]["code"], &told["items"][0]["installed"]),
        (&json!("yanked"), &json!(true))
    );
    assert!(
        world.acme.get("/marketplace/notices").await.ok()["items"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    // Nobody else installs it or finds it; who had it may have it again.
    let consent = |api: &Api| {
        let api = api.clone();
        let path = about(&release, "consent");
        async move { api.get(&path).await.ok() }
    };
    let asked = consent(&world.acme).await;
    let new = json!({ "release": release["id"], "consent": { "sha256": asked["consent_sha256"] } });
    assert_eq!(
        world.acme.post("/plugins", &new).await.problem(409),
        "release_yanked"
    );
    let found = world
        .globex
        .get("/marketplace/search?q=chameleon")
        .await
        .ok();
    assert!(found["items"].as_array().unwrap().is_empty());
    assert_eq!(
        world
            .acme
            .post("/plugins", &json!({ "release": "acme/chameleon" }))
            .await
            .problem(404),
        "not_found"
    );
    world
        .globex
        .delete(&format!("/plugins/{}", text(&installed["id"])))
        .await
        .ok();
    agree_and_install(&world.globex, &release).await;
    // And back.
    world.acme.delete(&about(&release, "yank")).await.ok();
    assert_eq!(live(&world.globex).await.1, Vec::<String>::new());
    agree_and_install(&world.acme, &release).await;
    drop(acme);
}

async fn by_publisher(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let (acme, release) = released(&world, "1.0.0").await;
    agree_and_install(&world.globex, &release).await;
    let watching = tokio::spawn(revocations::watch(world.app.clone()));
    assert_eq!(code(&world, &world.app, &world.globex).await, "1.0.0");
    // The same bytes, brought by somebody themselves.
    world
        .acme
        .upload("/plugins", chameleon(&guise("1.0.0")))
        .await
        .ok();
    let reason = json!({ "reason": "it leaks" });
    assert_eq!(
        world
            .globex
            .post(&about(&release, "revoke"), &reason)
            .await
            .problem(403),
        "not_the_publisher"
    );
    let revoked = world
        .acme
        .post(&about(&release, "revoke"), &reason)
        .await
        .ok();
    assert_eq!(revoked["state"], "revoked");
    let took = comes_to(&world, &world.app, &world.globex, "plugin_revoked").await;
    assert!(
        took < Duration::from_secs(2),
        "it was notified, and took {took:?}"
    );
    assert_eq!(
        code(&world, &world.app, &world.acme).await,
        "1.0.0",
        "a publisher stops its release, not others' files"
    );
    // Tenants are told, also after they removed it.
    assert_eq!(live(&world.globex).await.1, ["revoked"]);
    let told = world.globex.get("/marketplace/notices").await.ok();
    assert!(
        text(&told["items"][0]["message"]).contains("it leaks"),
        "{told}"
    );
    let listed = world.globex.get("/marketplace/revocations").await.ok();
    assert_eq!(
        (&listed["items"][0]["release"], &listed["items"][0]["by"]),
        (&json!("acme/chameleon@1.0.0"), &json!("publisher"))
    );
    let installed = live(&world.globex).await.0;
    world
        .globex
        .delete(&format!("/plugins/{}", text(&installed["id"])))
        .await
        .ok();
    let told = world.globex.get("/marketplace/notices").await.ok();
    assert_eq!(told["items"][0]["installed"], false);
    // There is no way back, and no way in.
    let asked = world.globex.get(&about(&release, "consent")).await.ok();
    let new = json!({ "release": release["id"], "consent": { "sha256": asked["consent_sha256"] } });
    assert_eq!(
        world.globex.post("/plugins", &new).await.problem(409),
        "plugin_revoked"
    );
    world
        .acme
        .post(&about(&release, "revoke"), &reason)
        .await
        .ok();
    // A release of somebody else's with the same bytes is not its to stop.
    let globex = Publisher::register(&world.globex, "globex").await;
    let fork = globex
        .publish_approved(chameleon(&guise("1.0.0")), &world.operator)
        .await;
    agree_and_install(&world.globex, &fork).await;
    assert_eq!(code(&world, &world.app, &world.globex).await, "1.0.0");
    watching.abort();
    drop(acme);
}

async fn by_operator(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let (_, release) = released(&world, "1.0.0").await;
    agree_and_install(&world.globex, &release).await;
    world
        .acme
        .upload("/plugins", chameleon(&guise("1.0.0")))
        .await
        .ok();
    let watching = tokio::spawn(revocations::watch(world.app.clone()));
    for api in [&world.acme, &world.globex] {
        assert_eq!(code(&world, &world.app, api).await, "1.0.0");
    }
    let revocation = json!({ "digest": release["digest"], "reason": "hostile" });
    world
        .acme
        .post("/marketplace/revocations", &revocation)
        .await
        .problem(404);
    world
        .operator
        .post("/marketplace/revocations", &revocation)
        .await
        .ok();
    for api in [&world.acme, &world.globex] {
        comes_to(&world, &world.app, api, "plugin_revoked").await;
    }
    // Nor does it come in anew, by either way.
    let brought = world
        .acme
        .upload("/plugins", chameleon(&guise("1.0.0")))
        .await;
    assert_eq!(brought.problem(409), "plugin_revoked");
    let again = json!({ "digest": release["digest"] });
    assert_eq!(
        world.acme.post("/plugins", &again).await.problem(409),
        "plugin_revoked"
    );
    // A host that starts later knows it before its first call.
    let later = world.another_host().await;
    assert_eq!(code(&world, &later, &world.globex).await, "plugin_revoked");
    let wrong = json!({ "digest": "xyz", "reason": "hostile" });
    assert_eq!(
        world
            .operator
            .post("/marketplace/revocations", &wrong)
            .await
            .problem(422),
        "invalid_body"
    );
    watching.abort();
}

async fn by_key(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let (acme, release) = released(&world, "1.0.0").await;
    agree_and_install(&world.globex, &release).await;
    let watching = tokio::spawn(revocations::watch(world.app.clone()));
    assert_eq!(code(&world, &world.app, &world.globex).await, "1.0.0");
    let key = format!("/marketplace/publishers/{}/keys/{}", acme.id, acme.key_id);
    world
        .acme
        .post(&format!("{key}/retire"), &json!({}))
        .await
        .ok();
    let later = world.another_host().await;
    assert_eq!(
        code(&world, &later, &world.globex).await,
        "1.0.0",
        "what a retired key signed stays good"
    );
    let known = world.acme.get(&key).await.ok();
    let revoked = world
        .acme
        .post(&format!("{key}/revoke"), &json!({}))
        .await
        .ok();
    // The publisher is told how far it reaches, and not whom; nobody else is told.
    assert_eq!(revoked["signed"]["tenants"], 1, "{revoked}");
    assert_eq!(known["signed"], revoked["signed"]);
    assert_eq!(revoked["signed"]["newest"][0]["tenants"], 1);
    let foreign = world.globex.get(&key).await;
    foreign.problem(foreign.status.as_u16());
    comes_to(&world, &world.app, &world.globex, "plugin_revoked").await;
    assert_eq!(live(&world.globex).await.1, ["revoked"]);
    let told = world.globex.get("/marketplace/notices").await.ok();
    assert_eq!(told["items"][0]["code"], "revoked");
    watching.abort();
}

async fn by_stolen_key(stage: Arc<Stage>) {
    let settings = [("TSUNAMI_MARKETPLACE__AUTO_UPGRADE_INTERVAL_SECONDS", "1")];
    let world = World::make_with(&stage, &settings).await;
    let (mut acme, release) = released(&world, "1.0.0").await;
    let globex = &world.globex;
    let installed = agree_and_install(globex, &release).await;
    let path = format!("/plugins/{}", text(&installed["id"]));
    acme.key = PrivateKey::generate();
    acme.key_id = Publisher::add_key(&world.acme, &acme.id, &acme.key).await;
    let stolen = acme
        .publish_approved(chameleon(&guise("1.1.0")), &world.operator)
        .await;
    let waiting = acme.publish(chameleon(&guise("1.2.0"))).await.ok();
    assert_eq!(live(globex).await.1, ["upgrade_available"]);
    let key = format!("/marketplace/publishers/{}/keys/{}", acme.id, acme.key_id);
    let revoke = format!("{key}/revoke");
    let revoked = world.acme.post(&revoke, &json!({})).await.ok();
    let signed = &revoked["signed"];
    assert_eq!(
        (&signed["releases"], &signed["tenants"]),
        (&json!(2), &json!(0))
    );
    let newest = signed["newest"].as_array().expect("a list");
    let versions = newest.iter().map(|one| text(&one["name"]));
    let versions: Vec<_> = versions
        .filter_map(|name| Some(name.split_once('@')?.1.to_owned()))
        .collect();
    assert_eq!(versions, ["1.2.0", "1.1.0"], "the newest first");
    let shown = globex
        .get(&format!("/marketplace/releases/{}", text(&stolen["id"])))
        .await
        .ok();
    assert_eq!(shown["state"], "revoked");
    // Nobody approves it, installs it, finds it or goes to it.
    let approved = world
        .operator
        .post(&about(&waiting, "approve"), &json!({}))
        .await;
    assert_eq!(approved.problem(409), "plugin_revoked");
    let asked = globex.get(&about(&stolen, "consent")).await.ok();
    let consent = json!({ "sha256": asked["consent_sha256"] });
    let new = json!({ "release": stolen["id"], "consent": consent });
    assert_eq!(
        globex.post("/plugins", &new).await.problem(409),
        "plugin_revoked"
    );
    let to = json!({ "to": "1.1.0", "consent": consent });
    assert_eq!(
        globex
            .post(&format!("{path}/upgrade"), &to)
            .await
            .problem(409),
        "plugin_revoked"
    );
    assert_eq!(live(globex).await.1, Vec::<String>::new());
    let found = globex.get("/marketplace/search?q=chameleon").await.ok();
    assert_eq!(found["items"][0]["version"], "1.0.0", "{found}");
    // Nor does what upgrades by itself, which goes past it to what another key signed.
    globex
        .patch(&path, &json!({ "auto_upgrade": true }))
        .await
        .ok();
    let round = tokio::spawn(upgrades::go_round(world.app.clone()));
    let third = PrivateKey::generate();
    acme.key_id = Publisher::add_key(&world.acme, &acme.id, &third).await;
    acme.key = third;
    acme.publish_approved(chameleon(&guise("1.0.1")), &world.operator)
        .await;
    eventually("it upgrades", || async {
        let version = text(&live(globex).await.0["version"]);
        assert!(["1.0.0", "1.0.1"].contains(&version.as_str()), "{version}");
        (version == "1.0.1").then_some(())
    })
    .await;
    assert_eq!(code(&world, &world.app, globex).await, "1.0.1");
    round.abort();
}

async fn lost(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let (_, release) = released(&world, "1.0.0").await;
    agree_and_install(&world.globex, &release).await;
    let hosts = [
        world.app.clone(),
        world.another_host().await,
        world.another_host().await,
    ];
    let watching = hosts
        .clone()
        .map(|host| tokio::spawn(revocations::watch(host)));
    for host in &hosts {
        assert_eq!(code(&world, host, &world.globex).await, "1.0.0");
    }
    // No trigger fires, so nobody is told.
    let mut root = world.database("postgres").await;
    root.execute("set session_replication_role = replica")
        .await
        .unwrap();
    sqlx::query("insert into plugin_revocations (id, digest, reason, revoked_by) values (gen_random_uuid(), $1, 'hostile', 'a test')")
        .bind(text(&release["digest"]))
        .execute(&mut root)
        .await
        .unwrap();
    for host in &hosts {
        comes_to(&world, host, &world.globex, "plugin_revoked").await;
    }
    for task in watching {
        task.abort();
    }
}

async fn stale(stage: Arc<Stage>) {
    let world = World::make_with(
        &stage,
        &[("TSUNAMI_MARKETPLACE__REVOCATIONS_STALE_SECONDS", "4")],
    )
    .await;
    let (_, release) = released(&world, "1.0.0").await;
    agree_and_install(&world.globex, &release).await;
    world
        .acme
        .upload("/plugins", chameleon(&guise("0.9.0")))
        .await
        .ok();
    let host = world.another_host().await;
    let watching = tokio::spawn(revocations::watch(host.clone()));
    let tenants = (
        world.tenant(&world.acme).await,
        world.tenant(&world.globex).await,
    );
    let load = async |tenant| {
        let mut tx = host.db().tenant(tenant).await?;
        tsunami::plugins::installed(&host, &mut tx, "chameleon")
            .await
            .map(|i| i.unwrap())
    };
    let installed = load(tenants.1).await.unwrap();
    // The role that reads the list cannot, while tenants' own connections go on.
    let mut root = world.database("postgres").await;
    let database: String = sqlx::query_scalar("select current_database()")
        .fetch_one(&mut root)
        .await
        .unwrap();
    let cut = format!(
        "revoke connect on database {database} from public, tsunami_system; grant connect on database {database} to tsunami_app"
    );
    root.execute(sqlx::AssertSqlSafe(cut)).await.unwrap();
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tsunami_system' and datname = current_database()";
    root.execute(end).await.unwrap();
    let began = Instant::now();
    let refused = loop {
        match load(tenants.1).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(problem) => break problem,
        }
        assert!(began.elapsed() < WITHIN, "it is called on");
    };
    assert_eq!(
        (refused.code(), refused.status().as_u16()),
        ("unavailable", 503)
    );
    assert!(refused.detail().contains("revoked plugins"), "{refused}");
    // The list was read at most two seconds before.
    assert!(
        began.elapsed() > Duration::from_secs(1),
        "not before the time is over: {:?}",
        began.elapsed()
    );
    // Nor does a call that has begun go on with it; and a tenant's own file does.
    assert_eq!(
        host.revocations()
            .check(&installed.origin)
            .unwrap_err()
            .code(),
        "unavailable"
    );
    let own = load(tenants.0).await.unwrap();
    assert_eq!(own.manifest.about.version, "0.9.0");
    // It goes on by itself.
    let mend = format!("grant connect on database {database} to public");
    root.execute(sqlx::AssertSqlSafe(mend)).await.unwrap();
    let began = Instant::now();
    while load(tenants.1).await.is_err() {
        assert!(began.elapsed() < WITHIN, "it does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    watching.abort();
}

async fn tampered(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let (acme, release) = released(&world, "1.0.0").await;
    agree_and_install(&world.globex, &release).await;
    let other = acme.publish(chameleon(&guise("6.6.6"))).await.ok();
    let mut root = world.database("postgres").await;
    let digest = text(&other["digest"]);
    let id = text(&release["id"]);
    assert_eq!(
        code(&world, &world.another_host().await, &world.globex).await,
        "1.0.0"
    );
    assert_eq!(code(&world, &world.app, &world.globex).await, "1.0.0");
    // Whoever gets at the rows still has no key of the publisher's.
    for (what, undo) in [
        (
            format!("update plugin_releases set version = '1.0.1' where id = '{id}'"),
            format!("update plugin_releases set version = '1.0.0' where id = '{id}'"),
        ),
        (
            format!(
                "update plugin_releases set digest = '{digest}' where id = '{id}'; update plugin_versions set digest = '{digest}' where release_id = '{id}'; update plugin_installations set digest = '{digest}'"
            ),
            format!(
                "update plugin_releases set digest = '{0}' where id = '{id}'; update plugin_versions set digest = '{0}' where release_id = '{id}'; update plugin_installations set digest = '{0}'",
                text(&release["digest"])
            ),
        ),
        (
            format!(
                "update plugin_versions set digest = '{digest}' where release_id = '{id}'; update plugin_installations set digest = '{digest}'"
            ),
            format!(
                "update plugin_versions set digest = '{0}' where release_id = '{id}'; update plugin_installations set digest = '{0}'",
                text(&release["digest"])
            ),
        ),
        (
            "update publisher_keys set public_key = sha256('x')".to_owned(),
            String::new(),
        ),
    ] {
        root.execute(sqlx::AssertSqlSafe(what.clone()))
            .await
            .unwrap();
        let host = world.another_host().await;
        assert_eq!(
            code(&world, &host, &world.globex).await,
            "signature_invalid",
            "{what}"
        );
        // Other bytes are looked at anew, also where the release was run before.
        if what.contains("plugin_installations") {
            assert_eq!(
                code(&world, &world.app, &world.globex).await,
                "signature_invalid",
                "{what}"
            );
        }
        root.execute(sqlx::AssertSqlSafe(undo)).await.unwrap();
    }
}

async fn policies(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let watching = tokio::spawn(revocations::watch(world.app.clone()));
    let acme = Publisher::register(&world.acme, "acme").await;
    let release = acme.publish(component("policy_probe")).await.ok();
    let new = json!({ "digest": release["digest"], "settings": { "answer": "allow" } });
    // Nobody has looked at it yet.
    let early = world.globex.post("/policies", &new).await;
    assert_eq!(early.problem(422), "invalid_body");
    world
        .operator
        .post(&about(&release, "approve"), &json!({}))
        .await
        .ok();
    world.globex.post("/policies", &new).await.ok();
    world
        .globex
        .upload("/plugins", chameleon(&guise("1.0.0")))
        .await
        .ok();
    let said = || async {
        let body = json!({ "params": {} });
        let path = "/skills/chameleon/tell?dry_run=true";
        let dry = world.globex.post(path, &body).await.ok();
        (
            text(&dry["policies"][0]["decision"]),
            dry["policies"].to_string(),
        )
    };
    assert_eq!(said().await.0, "allow");
    let reason = json!({ "reason": "lets all pass" });
    world
        .operator
        .post(&about(&release, "revoke"), &reason)
        .await
        .ok();
    let began = Instant::now();
    while said().await.0 != "deny" {
        assert!(began.elapsed() < WITHIN, "{}", said().await.1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(said().await.1.contains("lets all pass"));
    // It would deny every call from then on.
    let again = world.globex.post("/policies", &new).await;
    assert_eq!(again.problem(409), "plugin_revoked");
    watching.abort();
}

async fn taken(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let (operator, globex) = (&world.operator, &world.globex);
    let brought = operator
        .upload("/operator-policies/components", component("policy_probe"))
        .await
        .ok();
    let new = json!({ "digest": brought["digest"], "settings": { "answer": "allow" } });
    let theirs = operator.post("/operator-policies", &new).await.ok();
    let own = globex.post("/policies", &new).await.ok();
    operator
        .delete(&format!("/operator-policies/{}", text(&theirs["id"])))
        .await
        .ok();
    globex
        .upload("/plugins", chameleon(&guise("1.0.0")))
        .await
        .ok();
    let path = "/skills/chameleon/tell?dry_run=true";
    let dry = globex.post(path, &json!({ "params": {} })).await.ok();
    assert_eq!(dry["policies"][0]["decision"], "allow", "{dry}");
    // Who did not take it in time does not read it.
    let late = world.acme.post("/policies", &new).await;
    assert_eq!(late.problem(422), "invalid_body");
    // What is revoked comes into no chain anew, and out of it or off.
    let revocation = json!({ "digest": brought["digest"], "reason": "lets all pass" });
    operator
        .post("/marketplace/revocations", &revocation)
        .await
        .ok();
    for (api, path) in [(globex, "/policies"), (operator, "/operator-policies")] {
        assert_eq!(api.post(path, &new).await.problem(409), "plugin_revoked");
    }
    let path = format!("/policies/{}", text(&own["id"]));
    let again = json!({ "digest": brought["digest"] });
    assert_eq!(
        globex.patch(&path, &again).await.problem(409),
        "plugin_revoked"
    );
    let off = globex.patch(&path, &json!({ "enabled": false })).await.ok();
    assert_eq!(off["enabled"], false);
}
