//! What a tenant agrees to, and what becomes of what it installed.

use crate::{
    Stage, Stories, story,
    world::{World, live},
};
use serde_json::{Value, json};
use sqlx::Executor;
use std::sync::Arc;
use tsunami_tests::{
    api::Api,
    chameleon::{chameleon, guise},
    company::text,
    eventually,
    publisher::{Publisher, agree_and_install},
};

pub fn stories(stories: &mut Stories, stage: &Arc<Stage>) {
    story(
        stories,
        stage,
        "nothing_published_is_installed_without_consent_to_the_letter",
        consent,
    );
    story(
        stories,
        stage,
        "an_upgrade_that_may_do_more_is_agreed_to_anew",
        upgrade,
    );
    story(
        stories,
        stage,
        "an_upgrade_that_may_run_longer_is_agreed_to_anew",
        longer,
    );
    story(
        stories,
        stage,
        "an_upgrade_by_itself_never_does_more",
        auto_upgrade,
    );
    story(
        stories,
        stage,
        "a_rollback_brings_back_what_was_there",
        rollback,
    );
    story(
        stories,
        stage,
        "what_a_removed_plugin_leaves_behind_is_chosen",
        leftovers,
    );
    story(
        stories,
        stage,
        "two_who_install_at_once_leave_one_plugin",
        at_once,
    );
    story(stories, stage, "a_component_is_stored_once_for_all", once);
}

async fn install(api: &Api, release: &str, sha256: &Value) -> tsunami_tests::api::Answer {
    let new = json!({ "release": release, "consent": { "sha256": sha256 } });
    api.post("/plugins", &new).await
}

async fn consent(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let acme = Publisher::register(&world.acme, "acme").await;
    let mut said = guise("1.0.0");
    said["credentials"] = json!(["key"]);
    said["actions"][0]["scopes"] = json!([["channels", "/channel"]]);
    let release = acme
        .publish_approved(chameleon(&said), &world.operator)
        .await;
    let globex = &world.globex;
    let refused = globex
        .post("/plugins", &json!({ "release": "acme/chameleon@1.0.0" }))
        .await;
    assert_eq!(refused.problem(409), "consent_required");
    let asked = refused.json();
    let consent = &asked["consent"];
    assert_eq!(consent["publisher"], "acme");
    assert_eq!(consent["hosts"], json!(["allowed.example"]));
    assert_eq!(consent["host_settings"], json!(["/base_url"]));
    assert_eq!(consent["digest"], release["digest"]);
    assert_eq!(consent["actions"][0]["risk"], "read");
    assert_eq!(
        consent["actions"][0]["scopes"],
        json!(["channels (/channel)"])
    );
    assert_eq!(consent["credentials"][0]["key"], "key");
    assert_eq!(consent["limits"]["requests_max"], 32);
    let same = globex
        .get(&format!(
            "/marketplace/releases/{}/consent",
            text(&release["id"])
        ))
        .await
        .ok();
    assert_eq!(&same["consent"], consent);
    for wrong in [json!("0".repeat(64)), json!(""), release["digest"].clone()] {
        assert_eq!(
            install(globex, "acme/chameleon", &wrong).await.problem(409),
            "consent_required"
        );
    }
    assert!(
        globex.get("/plugins").await.ok()["items"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let installed = install(globex, "acme/chameleon", &asked["consent_sha256"])
        .await
        .ok();
    assert_eq!(installed["release"]["full_name"], "acme/chameleon@1.0.0");
    assert_eq!(installed["agreed"]["consent"], *consent);
    assert_eq!(installed["agreed"]["sha256"], asked["consent_sha256"]);
    assert!(
        text(&installed["agreed"]["by"]).contains("tsk_"),
        "{installed}"
    );
    // Whoever may not manage does not agree either, and reads all the same.
    let key = globex
        .post("/api-keys", &json!({ "name": "a", "roles": ["auditor"] }))
        .await
        .ok();
    let auditor = globex.with_key(&text(&key["secret"]));
    assert_eq!(
        install(&auditor, "acme/chameleon", &asked["consent_sha256"])
            .await
            .problem(403),
        "missing_role"
    );
    auditor
        .get(&format!(
            "/marketplace/releases/{}/consent",
            text(&release["id"])
        ))
        .await
        .ok();
    // It is counted.
    let counted = globex
        .get(&format!("/marketplace/releases/{}", text(&release["id"])))
        .await
        .ok();
    assert_eq!(
        (
            &counted["downloads"],
            &counted["details"]["downloads_of_plugin"]
        ),
        (&json!(1), &json!(1))
    );
}

async fn upgrade(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let acme = Publisher::register(&world.acme, "acme").await;
    let first = acme
        .publish_approved(chameleon(&guise("1.0.0")), &world.operator)
        .await;
    let globex = &world.globex;
    let installed = agree_and_install(globex, &first).await;
    assert_eq!(live(globex).await.1, Vec::<String>::new());
    let upgrade = async |id: &Value, body: Value| {
        globex
            .post(&format!("/plugins/{}/upgrade", text(id)), &body)
            .await
    };
    // Nothing is newer.
    assert_eq!(
        upgrade(&installed["id"], json!({})).await.ok()["id"],
        installed["id"]
    );
    acme.publish_approved(chameleon(&guise("1.1.0")), &world.operator)
        .await;
    assert_eq!(live(globex).await.1, ["upgrade_available"]);
    let second = upgrade(&installed["id"], json!({})).await.ok();
    assert_eq!(second["version"], "1.1.0");
    assert_eq!(second["previous_id"], installed["id"]);
    assert_eq!(
        second["agreed"]["at"], installed["agreed"]["at"],
        "nobody had to agree anew"
    );
    assert_eq!(
        upgrade(&installed["id"], json!({})).await.problem(409),
        "not_installed"
    );
    // One that may do more.
    let mut more = guise("1.2.0");
    more["hosts"] = json!(["allowed.example", "evil.example"]);
    more["credentials"] = json!(["key"]);
    more["actions"] = json!([{ "name": "tell", "risk": "destructive", "scopes": [] }, { "name": "wipe", "risk": "destructive", "scopes": [] }]);
    acme.publish_approved(chameleon(&more), &world.operator)
        .await;
    let plan = globex
        .get(&format!("/plugins/{}/upgrade", text(&second["id"])))
        .await
        .ok();
    assert_eq!(plan["needs_consent"], true);
    let refused = upgrade(&second["id"], json!({})).await;
    assert_eq!(refused.problem(409), "consent_required");
    let asked = refused.json();
    assert_eq!(asked["changes"], plan["changes"]);
    let grown: Vec<String> = asked["changes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["grows"] == true)
        .map(|c| text(&c["what"]))
        .collect();
    assert_eq!(
        grown,
        ["host", "risk", "action_credential", "action", "credential"]
    );
    assert_eq!(live(globex).await.0["version"], "1.1.0");
    // What was agreed to for the first version is no consent to this one.
    let old = json!({ "consent": { "sha256": installed["agreed"]["sha256"] } });
    assert_eq!(
        upgrade(&second["id"], old).await.problem(409),
        "consent_required"
    );
    let agreed = json!({ "to": "1.2.0", "consent": { "sha256": asked["consent_sha256"] } });
    let third = upgrade(&second["id"], agreed).await.ok();
    assert_eq!(third["version"], "1.2.0");
    assert_ne!(third["agreed"]["at"], installed["agreed"]["at"]);
    // An older one is no upgrade, whatever it may do.
    for older in ["1.0.0", "1.1.0"] {
        let to = json!({ "to": older });
        let refused = upgrade(&third["id"], to).await;
        assert_eq!(refused.problem(409), "older_version");
        assert!(refused.text.contains("/rollback"), "{}", refused.text);
    }
    assert_eq!(live(globex).await.0["version"], "1.2.0");
    // A file of one's own has no publisher to upgrade it.
    world
        .acme
        .upload("/plugins", chameleon(&guise("1.0.0")))
        .await
        .ok();
    let own = live(&world.acme).await.0;
    assert_eq!(
        world
            .acme
            .post(
                &format!("/plugins/{}/upgrade", text(&own["id"])),
                &json!({})
            )
            .await
            .problem(409),
        "not_published"
    );
    assert!(own["agreed"].is_null() && own["release"].is_null());
}

/// A component with so many bytes more, in a custom section that nothing reads.
fn padded(mut component: Vec<u8>, bytes: u32) -> Vec<u8> {
    // An id and the size in LEB128, five bytes long; the section's name is empty.
    component.push(0);
    let size = bytes + 1;
    component.extend((0..5).map(|i| {
        let seven = u8::try_from((size >> (7 * i)) & 0x7f).expect("seven bits");
        if i < 4 { seven | 0x80 } else { seven }
    }));
    component.resize(component.len() + size as usize, 0);
    component
}

async fn longer(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let acme = Publisher::register(&world.acme, "acme").await;
    let first = acme
        .publish_approved(chameleon(&guise("1.0.0")), &world.operator)
        .await;
    let globex = &world.globex;
    let installed = agree_and_install(globex, &first).await;
    let consent = &installed["agreed"]["consent"];
    assert_eq!(consent["limits"]["call_timeout_ms"], 100, "{installed}");
    // More than a small component may be: it has the limits of those that bring an interpreter along.
    let large = padded(chameleon(&guise("1.1.0")), 4 << 20);
    let second = acme.publish_approved(large, &world.operator).await;
    let path = format!("/plugins/{}/upgrade", text(&installed["id"]));
    let plan = globex.get(&path).await.ok();
    assert_eq!(plan["needs_consent"], true, "{plan}");
    let grown: Vec<String> = plan["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| {
            format!(
                "{}: {} to {}",
                text(&c["of"]),
                text(&c["before"]),
                text(&c["after"])
            )
        })
        .collect();
    assert_eq!(
        grown,
        [
            "call_timeout_ms: 100 to 1000",
            "call_memory_bytes_max: 33554432 to 134217728"
        ]
    );
    assert_eq!(
        globex.post(&path, &json!({})).await.problem(409),
        "consent_required"
    );
    // The same by a host that has not loaded it.
    let other = world.another_host().await;
    let mut tx = other.db().tenant(world.tenant(globex).await).await.unwrap();
    let id = text(&second["id"]).parse().unwrap();
    let asked = tsunami::marketplace::installations::consent_to(&other, &mut tx, id).await;
    assert_eq!(asked.unwrap().limits.call_timeout_ms, 1000);
}

async fn auto_upgrade(stage: Arc<Stage>) {
    let world = World::make_with(
        &stage,
        &[("TSUNAMI_MARKETPLACE__AUTO_UPGRADE_INTERVAL_SECONDS", "1")],
    )
    .await;
    let acme = Publisher::register(&world.acme, "acme").await;
    let first = acme
        .publish_approved(chameleon(&guise("1.0.0")), &world.operator)
        .await;
    let installed = agree_and_install(&world.globex, &first).await;
    agree_and_install(&world.acme, &first).await;
    let path = format!("/plugins/{}", text(&installed["id"]));
    let on = world
        .globex
        .patch(&path, &json!({ "auto_upgrade": true }))
        .await
        .ok();
    assert_eq!(on["auto_upgrade"], true);
    let round = tokio::spawn(tsunami::marketplace::upgrades::go_round(world.app.clone()));
    let mut grown = guise("2.0.0");
    grown["hosts"] = json!(["allowed.example", "evil.example"]);
    acme.publish_approved(chameleon(&guise("1.1.0")), &world.operator)
        .await;
    let version = async |api: &Api| text(&live(api).await.0["version"]);
    eventually("it upgrades", || async {
        (version(&world.globex).await == "1.1.0").then_some(())
    })
    .await;
    // The next may do more: it waits, while one of a third publisher's goes on.
    acme.publish_approved(chameleon(&grown), &world.operator)
        .await;
    let other = Publisher::register(&world.operator, "official").await;
    let mut theirs = guise("1.0.0");
    theirs["skill"] = json!("other");
    let release = other.publish(chameleon(&theirs)).await.ok();
    let asked = world
        .globex
        .get(&format!(
            "/marketplace/releases/{}/consent",
            text(&release["id"])
        ))
        .await
        .ok();
    let new = json!({ "release": release["id"], "auto_upgrade": true, "consent": { "sha256": asked["consent_sha256"] } });
    world.globex.post("/plugins", &new).await.ok();
    theirs["version"] = json!("1.0.1");
    other.publish(chameleon(&theirs)).await.ok();
    // When that one has upgraded, the round has passed the one that waits.
    eventually("the other upgrades", || async {
        let all = world.globex.get("/plugins").await.ok();
        let found = all["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|p| p["skill"] == "other")
            .cloned();
        (found?["version"] == "1.0.1").then_some(())
    })
    .await;
    let all = world.globex.get("/plugins").await.ok();
    let waits = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["skill"] == "chameleon")
        .unwrap()
        .clone();
    assert_eq!(waits["version"], "1.1.0");
    assert_eq!(waits["notices"][0]["code"], "upgrade_available");
    assert_eq!(waits["installed_by"], "automatic upgrade");
    assert_eq!(waits["agreed"]["by"], installed["agreed"]["by"]);
    // Who did not ask for it stays where it is.
    assert_eq!(version(&world.acme).await, "1.0.0");
    round.abort();
}

async fn rollback(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let acme = Publisher::register(&world.acme, "acme").await;
    let globex = &world.globex;
    let own = globex
        .upload("/plugins", chameleon(&guise("0.9.0")))
        .await
        .ok();
    let back = async |id: &Value| {
        globex
            .post(&format!("/plugins/{}/rollback", text(id)), &json!({}))
            .await
    };
    assert_eq!(back(&own["id"]).await.problem(409), "nothing_before");
    let first = acme
        .publish_approved(chameleon(&guise("1.0.0")), &world.operator)
        .await;
    let installed = agree_and_install(globex, &first).await;
    acme.publish_approved(chameleon(&guise("1.1.0")), &world.operator)
        .await;
    globex
        .patch(
            &format!("/plugins/{}", text(&installed["id"])),
            &json!({ "auto_upgrade": true }),
        )
        .await
        .ok();
    let second = globex
        .post(
            &format!("/plugins/{}/upgrade", text(&installed["id"])),
            &json!({}),
        )
        .await
        .ok();
    assert_eq!(second["auto_upgrade"], true);
    let restored = back(&second["id"]).await.ok();
    assert_eq!(restored["digest"], first["digest"]);
    assert_eq!(restored["agreed"], installed["agreed"]);
    assert_eq!(
        restored["auto_upgrade"], false,
        "else it would upgrade again at once"
    );
    assert_eq!(world.load(&world.app, globex).await.unwrap(), "1.0.0");
    let earlier = back(&restored["id"]).await.ok();
    assert_eq!(earlier["digest"], own["digest"]);
    assert_eq!(back(&earlier["id"]).await.problem(409), "nothing_before");
    // Not to what is revoked.
    let id = text(&first["id"]);
    let again = agree_and_install(globex, &first).await;
    let newer = globex
        .post(
            &format!("/plugins/{}/upgrade", text(&again["id"])),
            &json!({}),
        )
        .await
        .ok();
    world
        .acme
        .post(
            &format!("/marketplace/releases/{id}/revoke"),
            &json!({ "reason": "leaks" }),
        )
        .await
        .ok();
    assert_eq!(back(&newer["id"]).await.problem(409), "plugin_revoked");
}

async fn leftovers(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let globex = &world.globex;
    let mut said = guise("1.0.0");
    said["credentials"] = json!(["key"]);
    let bring = async || {
        let installed = globex.upload("/plugins", chameleon(&said)).await.ok();
        let credential = json!({ "skill": "chameleon", "key": "key", "value": "a-secret-value" });
        globex.post("/skill-creds", &credential).await.ok();
        format!("/plugins/{}", text(&installed["id"]))
    };
    let left = async || {
        let count = async |list: &str| {
            globex.get(list).await.ok()["items"]
                .as_array()
                .unwrap()
                .len()
        };
        (count("/skill-creds").await, count("/skill-configs").await)
    };
    let path = bring().await;
    globex.delete(&path).await.ok();
    assert_eq!(left().await, (1, 1));
    let path = bring().await;
    assert_eq!(
        globex
            .delete(&format!("{path}?configuration=delete"))
            .await
            .problem(400),
        "invalid_query"
    );
    // A call that has begun needs its credentials.
    let mut root = world.database("postgres").await;
    let tenant = world.tenant(globex).await;
    let begun = format!("insert into skill_calls (id, tenant_id, actor, idempotency_key, request_sha256, skill_name, action, params, status)
        values (gen_random_uuid(), '{tenant}', 'a', 'k', '', 'chameleon', 'tell', '{{}}', 'running')");
    root.execute(sqlx::AssertSqlSafe(begun)).await.unwrap();
    let refused = globex.delete(&format!("{path}?credentials=delete")).await;
    assert_eq!(refused.problem(409), "calls_under_way");
    assert_eq!(
        live(globex).await.0["skill"],
        "chameleon",
        "nothing was removed"
    );
    root.execute("update skill_calls set status = 'succeeded'")
        .await
        .unwrap();
    globex
        .delete(&format!("{path}?credentials=delete"))
        .await
        .ok();
    assert_eq!(left().await, (0, 1));
    let path = bring().await;
    globex
        .delete(&format!("{path}?credentials=delete&configuration=delete"))
        .await
        .ok();
    assert_eq!(left().await, (0, 0));
    // An old installation's leftovers are those of the one in its place.
    let old = bring().await;
    said["title"] = json!("Another");
    globex.upload("/plugins", chameleon(&said)).await.ok();
    assert_eq!(
        globex
            .delete(&format!("{old}?credentials=delete"))
            .await
            .problem(409),
        "skill_installed"
    );
}

async fn at_once(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let uploads = ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"]
        .map(|version| world.globex.upload("/plugins", chameleon(&guise(version))));
    for answer in futures::future::join_all(uploads).await {
        answer.ok();
    }
    let plugins = world.globex.get("/plugins").await.ok();
    assert_eq!(plugins["items"].as_array().unwrap().len(), 1);
    let mut root = world.database("postgres").await;
    let chain: i64 = sqlx::query_scalar(
        "with recursive before as (select id, previous_id from plugin_installations where removed_at is null
             union all select i.id, i.previous_id from plugin_installations i join before b on i.id = b.previous_id)
         select count(*) from before",
    )
    .fetch_one(&mut root)
    .await
    .unwrap();
    assert_eq!(chain, 5, "each knows the one before it");
}

async fn once(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let acme = Publisher::register(&world.acme, "acme").await;
    let release = acme
        .publish_approved(chameleon(&guise("1.0.0")), &world.operator)
        .await;
    for api in [&world.acme, &world.globex] {
        agree_and_install(api, &release).await;
        api.upload("/plugins", chameleon(&guise("1.0.0")))
            .await
            .ok();
    }
    let mut root = world.database("postgres").await;
    let count: (i64, i64) = sqlx::query_as(
        "select (select count(*) from plugin_components), (select count(*) from plugin_versions)",
    )
    .fetch_one(&mut root)
    .await
    .unwrap();
    assert_eq!(
        count,
        (1, 4),
        "once, and once for each tenant and each way that it came by"
    );
}
