//! Who publishes what, and that it stays what it is.

use crate::{Stage, Stories, story, world::World};
use serde_json::{Value, json};
use sqlx::Executor;
use std::{sync::Arc, time::Duration};
use tsunami::marketplace::revocations;
use tsunami_plugin_check::{Budget, check_within};
use tsunami_provenance::{
    Identity, PrivateKey, sha256_hex,
    testing::{DockerRegistry, OwnSigstore},
};
use tsunami_tests::{
    chameleon::{chameleon, guise},
    company::text,
    component, eventually,
    publisher::{Publisher, agree_and_install},
};

pub fn stories(stories: &mut Stories, stage: &Arc<Stage>) {
    story(
        stories,
        stage,
        "a_component_is_examined_within_a_budget_and_the_report_says_so",
        budget,
    );
    story(
        stories,
        stage,
        "a_release_is_reviewed_before_anybody_installs_it",
        review,
    );
    story(
        stories,
        stage,
        "a_signature_of_somebody_else_is_refused",
        signatures,
    );
    story(stories, stage, "a_version_never_changes", immutable);
    story(stories, stage, "a_namespace_is_its_owners", namespaces);
    story(
        stories,
        stage,
        "what_is_no_release_is_refused_in_words",
        bad_releases,
    );
    story(
        stories,
        stage,
        "a_release_from_a_registry_stays_when_the_tag_moves",
        registry,
    );
    story(
        stories,
        stage,
        "a_publisher_with_an_identity_publishes_with_its_bundle",
        sigstore,
    );
    story(
        stories,
        stage,
        "what_was_stored_before_is_moved_and_stays_installed",
        migration,
    );
}

async fn review(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let publisher = Publisher::register(&world.acme, "acme").await;
    let release = publisher.prepare(chameleon(&guise("1.0.0"))).await;
    let published = world.acme.post("/marketplace/releases", &release).await;
    assert_eq!(published.status, 201, "{}", published.text);
    let release = published.ok();
    assert_eq!(
        (&release["state"], &release["full_name"]),
        (&json!("submitted"), &json!("acme/chameleon@1.0.0"))
    );
    let path = format!("/marketplace/releases/{}", text(&release["id"]));
    // Nobody else sees it, and nobody installs it, not even its publisher.
    world.globex.get(&path).await.problem(404);
    let asked = world.acme.get(&format!("{path}/consent")).await.ok();
    let new = json!({ "release": release["id"], "consent": { "sha256": asked["consent_sha256"] } });
    assert_eq!(
        world.acme.post("/plugins", &new).await.problem(409),
        "not_approved"
    );
    // A tenant does not review.
    world
        .acme
        .post(&format!("{path}/approve"), &json!({}))
        .await
        .problem(404);
    let waiting = world
        .operator
        .get("/marketplace/releases?state=submitted")
        .await
        .ok();
    assert_eq!(waiting["items"][0]["id"], release["id"]);
    let whole = world.operator.get(&path).await.ok();
    // This host looked for itself.
    let report = &whole["details"]["conformance"];
    assert_eq!(
        (&report["facts"]["digest"], &report["facts"]["actions"]),
        (&release["digest"], &json!(1))
    );
    assert!(report["conforms"].is_boolean(), "{report}");
    let approved = world
        .operator
        .post(&format!("{path}/approve"), &json!({}))
        .await
        .ok();
    assert_eq!(approved["state"], "approved");
    world
        .operator
        .post(&format!("{path}/approve"), &json!({}))
        .await
        .ok();
    let reason = json!({ "reason": "changed my mind" });
    let late = world
        .operator
        .post(&format!("{path}/reject"), &reason)
        .await;
    assert_eq!(late.problem(409), "already_decided");
    agree_and_install(&world.globex, &release).await;
    // Another version, which is rejected with a reason.
    let second = publisher.publish(chameleon(&guise("1.1.0"))).await.ok();
    let path = format!("/marketplace/releases/{}", text(&second["id"]));
    let rejected = world
        .operator
        .post(
            &format!("{path}/reject"),
            &json!({ "reason": "says too little" }),
        )
        .await
        .ok();
    assert_eq!(rejected["state"], "rejected");
    assert_eq!(
        world.acme.get(&path).await.ok()["state_reason"],
        "says too little"
    );
    world.globex.get(&path).await.problem(404);
}

async fn signatures(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let acme = Publisher::register(&world.acme, "acme").await;
    let globex = Publisher::register(&world.globex, "globex").await;
    let good = acme.prepare(chameleon(&guise("1.0.0"))).await;
    let post = async |change: &dyn Fn(&mut Value)| {
        let mut release = good.clone();
        change(&mut release);
        world.acme.post("/marketplace/releases", &release).await
    };
    // Of another version, of another plugin, of another file, by another key.
    let digest = text(&good["digest"]);
    for signed in [
        acme.signed("chameleon", "1.0.1", &digest),
        acme.signed("slack", "1.0.0", &digest),
        acme.signed("chameleon", "1.0.0", &sha256_hex(b"x")),
        globex.signed("chameleon", "1.0.0", &digest),
    ] {
        let answer = post(&|release| release["signature"] = signed["signature"].clone()).await;
        assert_eq!(answer.problem(422), "signature_invalid", "{signed}");
    }
    let answer = post(&|release| release["key_id"] = json!(globex.key_id)).await;
    assert_eq!(answer.problem(422), "unknown_key");
    let answer = post(&|release| release["publisher"] = json!("globex")).await;
    assert_eq!(answer.problem(422), "unknown_publisher");
    // A retired key signs nothing new.
    let other = PrivateKey::generate();
    let other_id = Publisher::add_key(&world.acme, &acme.id, &other).await;
    let retire = format!(
        "/marketplace/publishers/{}/keys/{}/retire",
        acme.id, acme.key_id
    );
    world.globex.post(&retire, &json!({})).await.problem(404);
    world.acme.post(&retire, &json!({})).await.ok();
    assert_eq!(post(&|_| {}).await.problem(422), "key_retired");
    let again = Publisher {
        key: other,
        key_id: other_id,
        ..acme
    };
    again.publish(chameleon(&guise("1.0.0"))).await.ok();
}

async fn immutable(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let acme = Publisher::register(&world.acme, "acme").await;
    let first = acme.publish(chameleon(&guise("1.0.0"))).await.ok();
    let again = acme.publish(chameleon(&guise("1.0.0"))).await.ok();
    assert_eq!(again["id"], first["id"]);
    let mut other = guise("1.0.0");
    other["title"] = json!("Another");
    assert_eq!(
        acme.publish(chameleon(&other)).await.problem(409),
        "version_taken"
    );
    // By the database too, whatever the program does.
    let mut app = world.database("tsunami_app").await;
    let tenant = world.tenant(&world.acme).await;
    for change in [
        "digest = repeat('0', 64)",
        "state = 'approved'",
        "signature = ''",
        "version = '2.0.0'",
        "downloads = 1000",
    ] {
        let set = format!(
            "begin; set local tsunami.tenant_id = '{tenant}'; update plugin_releases set {change}"
        );
        let refused = app.execute(sqlx::AssertSqlSafe(set)).await.unwrap_err();
        assert!(
            refused.to_string().contains("permission denied"),
            "{change}: {refused}"
        );
        app.execute("rollback").await.unwrap();
    }
    // Not even who owns the tables puts other bytes under a digest.
    let mut root = world.database("postgres").await;
    let refused = root
        .execute("update plugin_components set bytes = 'x'")
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("check constraint"),
        "{refused}"
    );
}

async fn namespaces(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let acme = Publisher::register(&world.acme, "acme").await;
    let new = |namespace: &str| json!({ "namespace": namespace, "name": "Somebody" });
    let take = async |namespace: &str| {
        world
            .globex
            .post("/marketplace/publishers", &new(namespace))
            .await
    };
    assert_eq!(take("acme").await.problem(409), "namespace_taken");
    assert_eq!(take("official").await.problem(409), "namespace_taken");
    for wrong in [
        "",
        "A",
        "a",
        "Acme",
        "-acme",
        "1acme",
        "ac me",
        "acme/x",
        &"a".repeat(40),
    ] {
        assert_eq!(take(wrong).await.problem(422), "invalid_body", "{wrong}");
    }
    world
        .operator
        .post("/marketplace/publishers", &new("official"))
        .await
        .ok();
    // What is seen of a publisher is seen by its releases.
    let path = format!("/marketplace/publishers/{}", acme.id);
    world.globex.get(&path).await.problem(404);
    acme.publish_approved(chameleon(&guise("1.0.0")), &world.operator)
        .await;
    let seen = world.globex.get(&path).await.ok();
    assert_eq!(
        (&seen["namespace"], &seen["own"]),
        (&json!("acme"), &json!(false))
    );
    let change = json!({ "name": "Ours" });
    assert_eq!(
        world.globex.patch(&path, &change).await.problem(403),
        "not_the_publisher"
    );
    // An operator's own release needs no look of an operator's.
    let official = world.operator.get("/marketplace/publishers").await.ok();
    let official = official["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["namespace"] == "official")
        .unwrap()
        .clone();
    let key = PrivateKey::generate();
    let id = text(&official["id"]);
    let key_id = Publisher::add_key(&world.operator, &id, &key).await;
    let official = Publisher {
        api: world.operator.clone(),
        id,
        namespace: "official".into(),
        key,
        key_id,
    };
    let release = official.publish(chameleon(&guise("1.0.0"))).await.ok();
    assert_eq!(release["state"], "approved");
    agree_and_install(&world.globex, &release).await;
    // And it publishes under no tenant's namespace.
    let mut stolen = official.prepare(chameleon(&guise("3.0.0"))).await;
    stolen["publisher"] = json!("acme");
    let answer = world.operator.post("/marketplace/releases", &stolen).await;
    assert_eq!(answer.problem(422), "unknown_publisher");
}

async fn bad_releases(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let acme = Publisher::register(&world.acme, "acme").await;
    let good = acme.prepare(chameleon(&guise("1.0.0"))).await;
    let post = async |field: &str, value: Value| {
        let mut release = good.clone();
        release[field] = value;
        world.acme.post("/marketplace/releases", &release).await
    };
    assert_eq!(
        post("digest", json!("0".repeat(64))).await.problem(422),
        "unknown_component"
    );
    assert_eq!(
        post("signature", json!("AAAA")).await.problem(422),
        "invalid_body"
    );
    assert_eq!(
        post("tenants", json!([uuid::Uuid::nil()]))
            .await
            .problem(422),
        "invalid_body"
    );
    assert_eq!(
        post("oci", json!("ghcr.io/acme/slack:1"))
            .await
            .problem(422),
        "oci_refused"
    );
    assert_eq!(
        post("sigstore_bundle", json!({})).await.problem(422),
        "no_identity"
    );
    let mut private = good.clone();
    private["visibility"] = json!("private");
    private["tenants"] = json!([uuid::Uuid::nil()]);
    let answer = world.acme.post("/marketplace/releases", &private).await;
    assert_eq!(answer.problem(422), "invalid_body");
    for version in ["1.0.0+build.7", "99999999999999999999.0.0"] {
        let component = chameleon(&guise(version));
        let answer = world
            .acme
            .upload("/marketplace/components", component.clone())
            .await;
        if answer.status == 422 {
            continue;
        }
        let answer = acme.publish(component).await;
        assert_eq!(answer.problem(422), "invalid_version", "{version}");
    }
    // A component of somebody else is not there for a publisher who does not see it.
    let globex = Publisher::register(&world.globex, "globex").await;
    let foreign = globex.signed("chameleon", "1.0.0", &text(&good["digest"]));
    let answer = world.globex.post("/marketplace/releases", &foreign).await;
    assert_eq!(answer.problem(422), "unknown_component");
    // A repetition under one key is one release.
    let again = async || {
        let request = world
            .acme
            .request(reqwest::Method::POST, "/marketplace/releases");
        tsunami_tests::api::Api::send(request.header("idempotency-key", "once").json(&good))
            .await
            .ok()
    };
    let first = again().await;
    assert_eq!(first["id"], again().await["id"]);
    assert_eq!(first["details"]["conformance"]["facts"]["truncated"], false);
    // It is answered without examining the component again: that would be refused now.
    let watching = tokio::spawn(revocations::watch(world.app.clone()));
    let digest = text(&good["digest"]);
    let revocation = json!({ "digest": digest, "reason": "a test" });
    world
        .operator
        .post("/marketplace/revocations", &revocation)
        .await
        .ok();
    eventually("it is known", || async {
        world.app.revocations().is_revoked(&digest).then_some(())
    })
    .await;
    assert_eq!(first["id"], again().await["id"]);
    watching.abort();
}

async fn budget(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let bytes = chameleon(&guise("1.0.0"));
    let tenant = world.tenant(&world.acme).await;
    let plugin = tsunami::plugins::load(&world.app, tenant, bytes.clone())
        .await
        .unwrap();
    let examine = async |calls_max, time_max| {
        let (plugin, bytes) = (plugin.clone(), bytes.clone());
        let budget = Budget {
            calls_max,
            time_max,
        };
        let checked = move || check_within(budget, Ok(plugin), &bytes, &[]);
        tokio::task::spawn_blocking(checked).await.unwrap()
    };
    let minute = Duration::from_secs(60);
    let whole = examine(10_000, minute).await;
    assert!(!whole.facts.truncated && whole.facts.calls > 20, "{whole}");
    for (calls_max, time_max) in [(5, minute), (10_000, Duration::ZERO)] {
        let cut = examine(calls_max, time_max).await;
        assert!(cut.facts.truncated && !cut.conforms, "{cut}");
        // A few are made between two looks at the budget.
        assert!(cut.facts.calls <= 10, "{cut}");
        assert!(cut.to_string().contains("it was stopped after"), "{cut}");
    }
}

async fn registry(stage: Arc<Stage>) {
    let registry = DockerRegistry::start().await;
    let registries = format!("[{{ host = \"{}\", plain_http = true }}]", registry.host());
    let world = World::make_with(
        &stage,
        &[("TSUNAMI_MARKETPLACE__REGISTRIES", registries.as_str())],
    )
    .await;
    let acme = Publisher::register(&world.acme, "acme").await;
    let first = chameleon(&guise("1.0.0"));
    registry.push("acme/chameleon:1.0.0", first.clone()).await;
    let mut release = acme.signed("chameleon", "1.0.0", &sha256_hex(&first));
    release["oci"] = json!(format!("{}/acme/chameleon:1.0.0", registry.host()));
    let published = world
        .acme
        .post("/marketplace/releases", &release)
        .await
        .ok();
    assert_eq!(published["details"]["source_kind"], "oci");
    let source = text(&published["details"]["source"]);
    assert!(source.contains("/acme/chameleon@sha256:"), "{source}");
    let id = text(&published["id"]);
    world
        .operator
        .post(&format!("/marketplace/releases/{id}/approve"), &json!({}))
        .await
        .ok();
    // Somebody moves the tag, and then the registry is gone.
    let moved = chameleon(&guise("6.6.6"));
    let found = sha256_hex(&moved);
    registry.push("acme/chameleon:1.0.0", moved).await;
    let answer = world.acme.post("/marketplace/releases", &release).await;
    assert_eq!(answer.problem(422), "other_digest");
    assert!(!answer.text.contains(&found), "{}", answer.text);
    drop(registry);
    agree_and_install(&world.globex, &published).await;
    assert_eq!(
        world.load(&world.app, &world.globex).await.unwrap(),
        "1.0.0"
    );
    let downloaded = world
        .globex
        .get(&format!("/marketplace/releases/{id}/component"))
        .await;
    assert_eq!(downloaded.headers["content-type"], "application/wasm");
    let answer = world.acme.post("/marketplace/releases", &release).await;
    assert_eq!(answer.problem(503), "registry_unavailable");
}

async fn sigstore(stage: Arc<Stage>) {
    let own = OwnSigstore::new();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("trusted_root.json");
    std::fs::write(&root, own.trusted_root()).unwrap();
    let root = root.display().to_string();
    let world = World::make_with(
        &stage,
        &[(
            "TSUNAMI_MARKETPLACE__SIGSTORE_TRUSTED_ROOT_FILE",
            root.as_str(),
        )],
    )
    .await;
    let acme = Publisher::register(&world.acme, "acme").await;
    let identity = Identity {
        subject: "https://github.com/acme/plugins/.github/workflows/release.yml@refs/heads/main"
            .into(),
        issuer: "https://token.actions.githubusercontent.com".into(),
    };
    let path = format!("/marketplace/publishers/{}", acme.id);
    let recorded = world
        .acme
        .patch(&path, &json!({ "sigstore": identity }))
        .await
        .ok();
    assert_eq!(recorded["sigstore"], json!(identity));
    // Whoever has the tenant's key does not become another signer.
    for change in [
        json!({ "sigstore": null }),
        json!({ "sigstore": { "subject": "mole@example.com", "issuer": "x" } }),
    ] {
        assert_eq!(
            world.acme.patch(&path, &change).await.problem(409),
            "identity_recorded"
        );
    }
    let component = chameleon(&guise("1.0.0"));
    let mut release = acme.prepare(component.clone()).await;
    assert_eq!(
        world
            .acme
            .post("/marketplace/releases", &release)
            .await
            .problem(422),
        "bundle_missing"
    );
    let bundle = |artifact: &[u8], identity: &Identity| -> Value {
        serde_json::from_str(&own.sign(artifact, identity)).unwrap()
    };
    let mole = Identity {
        subject: "https://github.com/acme/plugins/.github/workflows/release.yml@refs/heads/mole"
            .into(),
        ..identity.clone()
    };
    for wrong in [
        bundle(b"another file", &identity),
        bundle(&component, &mole),
        json!({ "mediaType": "x" }),
    ] {
        release["sigstore_bundle"] = wrong;
        assert_eq!(
            world
                .acme
                .post("/marketplace/releases", &release)
                .await
                .problem(422),
            "bundle_invalid"
        );
    }
    release["sigstore_bundle"] = bundle(&component, &identity);
    let published = world
        .acme
        .post("/marketplace/releases", &release)
        .await
        .ok();
    assert_eq!(published["sigstore"], json!(identity));
    let asked = world
        .acme
        .get(&format!(
            "/marketplace/releases/{}/consent",
            text(&published["id"])
        ))
        .await
        .ok();
    assert_eq!(asked["consent"]["identity"], json!(identity));
    world
        .operator
        .patch(&path, &json!({ "sigstore": null }))
        .await
        .ok();
    acme.publish(chameleon(&guise("1.0.1"))).await.ok();
}

async fn migration(stage: Arc<Stage>) {
    const MARKETPLACE: i64 = 20_261_126_173_000;
    let database = stage.server.database_before(MARKETPLACE).await;
    let mut owner = database.connect("tsunami_owner").await;
    let mut root = database.connect("postgres").await;
    let slack = component("slack");
    let digest = sha256_hex(&slack);
    for tenant in ["a", "b"] {
        sqlx::query("with t as (insert into tenants (id, name, slug) values (gen_random_uuid(), $1, $1) returning id),
                 v as (insert into plugin_versions (id, tenant_id, digest, component, manifest, credential_fields)
                       select gen_random_uuid(), id, $2, $3, '{\"skill\": \"slack\"}', '[{}]' from t returning id, tenant_id)
             insert into plugin_installations (id, tenant_id, plugin_version_id, skill_name, digest, installed_by)
                 select gen_random_uuid(), tenant_id, id, 'slack', $2, 'somebody' from v")
            .bind(tenant).bind(&digest).bind(&slack).execute(&mut root).await.expect("what was there");
    }
    let probe = component("policy_probe");
    let policy = sha256_hex(&probe);
    sqlx::query("with t as (select id from tenants where slug = 'a'),
             c as (insert into policy_components (digest, component, manifest) values ($1, $2, '{\"name\": \"policy-probe\"}')),
             u as (insert into policy_uploads (tenant_id, digest, uploaded_by) select id, $1, 'somebody' from t)
         insert into policies (id, tenant_id, position, name, digest, settings, enabled, created_by)
             select gen_random_uuid(), id, 1, 'policy-probe', $1, '{}', true, 'somebody' from t")
        .bind(&policy).bind(&probe).execute(&mut root).await.expect("a policy");
    for migration in tsunami::db::MIGRATOR
        .iter()
        .filter(|m| m.version >= MARKETPLACE)
    {
        let sql = migration.sql.as_str().to_owned();
        owner
            .execute(sqlx::AssertSqlSafe(sql))
            .await
            .expect("the migration runs");
    }
    let moved: (i64, Vec<String>, i64) = sqlx::query_as(
        "select (select count(*) from plugin_components where bytes = $1), (select kinds from plugin_components where bytes = $1),
                (select count(*) from plugin_installations i join plugin_versions v on v.id = i.plugin_version_id join plugin_components c on c.digest = v.digest)",
    )
    .bind(&slack)
    .fetch_one(&mut root)
    .await
    .unwrap();
    assert_eq!(
        moved,
        (
            1,
            vec!["skill-adapter".to_owned(), "credential-schema".to_owned()],
            2
        )
    );
    let policies: (i64, i64) = sqlx::query_as(
        "select (select count(*) from policies p join plugin_components c on c.digest = p.digest where c.bytes = $1 and c.kinds = '{routing-policy}'),
                (select count(*) from plugin_versions where digest = $2)",
    )
    .bind(&probe)
    .bind(&policy)
    .fetch_one(&mut root)
    .await
    .unwrap();
    assert_eq!(policies, (1, 1));
    let forced: bool = sqlx::query_scalar(
        "select relforcerowsecurity from pg_class where relname = 'plugin_versions'",
    )
    .fetch_one(&mut root)
    .await
    .unwrap();
    assert!(forced);
}
