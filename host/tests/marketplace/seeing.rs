//! Who sees which release, how it is found, and who was affected.

use crate::{Stage, Stories, story, world::World};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use std::sync::Arc;
use tsunami_provenance::sha256_hex;
use tsunami_tests::{
    chameleon::{chameleon, guise},
    company::text,
    publisher::{Publisher, agree_and_install},
};

pub fn stories(stories: &mut Stories, stage: &Arc<Stage>) {
    story(
        stories,
        stage,
        "a_private_release_is_for_those_it_names",
        private,
    );
    story(
        stories,
        stage,
        "the_tables_show_a_tenant_only_what_is_for_it",
        tables,
    );
    story(
        stories,
        stage,
        "a_search_finds_the_newest_that_can_be_installed",
        search,
    );
    story(
        stories,
        stage,
        "who_was_affected_is_told_to_each_in_its_measure",
        affected,
    );
}

async fn private(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let acme = Publisher::register(&world.acme, "acme").await;
    let mut release = acme.prepare(chameleon(&guise("1.0.0"))).await;
    release["visibility"] = json!("private");
    let release = world
        .acme
        .post("/marketplace/releases", &release)
        .await
        .ok();
    let path = format!("/marketplace/releases/{}", text(&release["id"]));
    world
        .operator
        .post(&format!("{path}/approve"), &json!({}))
        .await
        .ok();
    world.globex.get(&path).await.problem(404);
    world
        .globex
        .get(&format!("{path}/component"))
        .await
        .problem(404);
    world
        .globex
        .get(&format!("{path}/consent"))
        .await
        .problem(404);
    let globex = world.tenant(&world.globex).await.to_string();
    let audience = json!({ "visibility": "private", "tenants": [globex] });
    assert_eq!(
        world.acme.patch(&path, &audience).await.ok()["details"]["tenants"],
        json!([globex])
    );
    // It was approved for others: an operator looks again.
    world.globex.get(&path).await.problem(404);
    let approve = format!("{path}/approve");
    world.operator.post(&approve, &json!({})).await.ok();
    let seen = world.globex.get(&path).await.ok();
    assert_eq!(
        seen["details"]["tenants"],
        json!([]),
        "whom else it is for is not theirs to know"
    );
    assert_eq!(seen["details"]["submitted_by"], Value::Null);
    assert_eq!(
        world.globex.patch(&path, &audience).await.problem(403),
        "not_the_publisher"
    );
    agree_and_install(&world.globex, &release).await;
    // Whoever has it keeps it.
    let nobody = json!({ "visibility": "private", "tenants": [] });
    world.acme.patch(&path, &nobody).await.ok();
    assert_eq!(
        world.load(&world.app, &world.globex).await.unwrap(),
        "1.0.0"
    );
    world.globex.get(&path).await.ok();
    // To fewer it goes without a look, to everybody not; nor by whoever gets at the application's role.
    let state = async || text(&world.acme.get(&path).await.ok()["state"]);
    assert_eq!(state().await, "approved");
    let public = json!({ "visibility": "public" });
    let widened = world.acme.patch(&path, &public).await.ok();
    assert_eq!(widened["state"], "submitted");
    assert_eq!(widened["details"]["reviewed_by"], Value::Null);
    let found = world.globex.get("/marketplace/search?q=chameleon").await;
    assert_eq!(found.ok()["items"], json!([]));
    let acme = world.tenant(&world.acme).await.to_string();
    let approved = format!(
        "update plugin_releases set state = 'approved' where id = '{}'",
        text(&release["id"])
    );
    let mut app = world.database("tsunami_app").await;
    let refused = as_tenant(&mut app, &acme, &approved).await.unwrap_err();
    assert!(
        refused.to_string().contains("only an operator"),
        "{refused}"
    );
    world.operator.post(&approve, &json!({})).await.ok();
    // What everybody sees already goes to nobody else.
    world.acme.patch(&path, &public).await.ok();
    assert_eq!(state().await, "approved");
}

/// Runs something as a tenant; gives how many rows it saw or touched.
async fn as_tenant(app: &mut PgConnection, tenant: &str, query: &str) -> Result<u64, sqlx::Error> {
    let begin = format!("begin; set local tsunami.tenant_id = '{tenant}'");
    app.execute(AssertSqlSafe(begin)).await?;
    let done = app.execute(AssertSqlSafe(query.to_owned())).await;
    app.execute("rollback").await?;
    Ok(done?.rows_affected())
}

async fn tables(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let acme = Publisher::register(&world.acme, "acme").await;
    let hidden = acme.publish(chameleon(&guise("1.0.0"))).await.ok();
    let shown = acme
        .publish_approved(chameleon(&guise("1.1.0")), &world.operator)
        .await;
    world
        .acme
        .upload("/plugins", chameleon(&guise("0.1.0")))
        .await
        .ok();
    let mut app = world.database("tsunami_app").await;
    let globex = world.tenant(&world.globex).await.to_string();
    let (hidden_id, hidden_digest) = (text(&hidden["id"]), text(&hidden["digest"]));
    let own_digest = sha256_hex(&chameleon(&guise("0.1.0")));
    let rows = async |app: &mut PgConnection, query: String| as_tenant(app, &globex, &query).await;
    assert_eq!(
        rows(&mut app, "select 1 from plugin_releases".into())
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        rows(
            &mut app,
            format!(
                "select 1 from plugin_components where digest = '{}'",
                text(&shown["digest"])
            )
        )
        .await
        .unwrap(),
        1
    );
    for digest in [&hidden_digest, &own_digest] {
        assert_eq!(
            rows(
                &mut app,
                format!("select 1 from plugin_components where digest = '{digest}'")
            )
            .await
            .unwrap(),
            0
        );
    }
    // What it must not do to others'.
    for (what, query) in [
        (
            "revoke",
            format!(
                "insert into plugin_revocations (id, digest, release_id, reason, revoked_by) values (gen_random_uuid(), '{}', '{}', 'x', 'x')",
                text(&shown["digest"]),
                text(&shown["id"])
            ),
        ),
        (
            "revoke bytes",
            format!(
                "insert into plugin_revocations (id, digest, reason, revoked_by) values (gen_random_uuid(), '{hidden_digest}', 'x', 'x')"
            ),
        ),
        (
            "add a key",
            format!(
                "insert into publisher_keys (id, publisher_id, name, public_key, created_by) values (gen_random_uuid(), '{}', 'x', sha256('x'), 'x')",
                acme.id
            ),
        ),
        (
            "let itself in",
            format!(
                "insert into release_audience (release_id, tenant_id, owner_tenant_id) values ('{hidden_id}', '{globex}', '{globex}')"
            ),
        ),
        (
            "take the name",
            format!(
                "insert into plugin_releases select gen_random_uuid(), publisher_id, '{globex}', namespace, name, '9.9.9', version_numbers, prerelease, digest, contract, kinds, title, summary, licence, categories, homepage, readme, words, key_id, signature, sigstore, sigstore_bundle, source_kind, source, visibility, 'submitted', null, null, null, null, null, null, null, 0, 'x', now() from plugin_releases"
            ),
        ),
    ] {
        let refused = rows(&mut app, query).await.expect_err(what).to_string();
        assert!(
            refused.contains("row-level security") || refused.contains("foreign key"),
            "{what}: {refused}"
        );
    }
    for query in [
        "update publishers set name = 'x'",
        "update publisher_keys set revoked_at = now()",
        "update plugin_releases set yanked_at = now()",
        "delete from release_audience",
    ] {
        assert_eq!(rows(&mut app, query.into()).await.unwrap(), 0, "{query}");
    }
    for query in [
        "delete from plugin_revocations",
        "delete from plugin_releases",
        "delete from publishers",
        "update plugin_components set kinds = '{}'",
        "update publishers set owner_tenant_id = null",
    ] {
        let refused = rows(&mut app, query.into()).await.unwrap_err().to_string();
        assert!(refused.contains("permission denied"), "{query}: {refused}");
    }
    // Without a tenant: nothing.
    for table in [
        "plugin_components",
        "publishers",
        "publisher_keys",
        "plugin_releases",
        "release_audience",
        "plugin_revocations",
    ] {
        let seen = app
            .execute(AssertSqlSafe(format!("select 1 from {table}")))
            .await
            .unwrap();
        assert_eq!(seen.rows_affected(), 0, "{table}");
    }
}

async fn search(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let acme = Publisher::register(&world.acme, "acme").await;
    for version in ["1.9.0", "1.10.0", "2.0.0-rc.1"] {
        acme.publish_approved(chameleon(&guise(version)), &world.operator)
            .await;
    }
    let mut other = guise("0.1.0");
    other["skill"] = json!("other");
    other["title"] = json!("Quite different");
    acme.publish_approved(chameleon(&other), &world.operator)
        .await;
    let names = async |query: &str| -> Vec<String> {
        let found = world
            .globex
            .get(&format!("/marketplace/search{query}"))
            .await
            .ok();
        found["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| text(&r["full_name"]))
            .collect()
    };
    assert_eq!(
        names("").await,
        ["acme/other@0.1.0", "acme/chameleon@1.10.0"]
    );
    assert_eq!(
        names("?q=chamel").await,
        ["acme/other@0.1.0", "acme/chameleon@1.10.0"],
        "the readme is searched too"
    );
    assert_eq!(names("?q=quite+diff").await, ["acme/other@0.1.0"]);
    assert_eq!(names("?q=quite+unheard").await, Vec::<String>::new());
    assert_eq!(
        names("?category=test&kind=skill-adapter&q=acme")
            .await
            .len(),
        2
    );
    assert_eq!(names("?category=messaging").await, Vec::<String>::new());
    assert_eq!(names("?kind=routing-policy").await, Vec::<String>::new());
    let page = world.globex.get("/marketplace/search?limit=1").await.ok();
    assert_eq!(
        names(&format!("?limit=1&cursor={}", text(&page["next_cursor"]))).await,
        ["acme/chameleon@1.10.0"]
    );
    world
        .globex
        .get("/marketplace/search?q=%27")
        .await
        .problem(400);
    world
        .globex
        .get("/marketplace/search?unknown=1")
        .await
        .problem(400);
    let versions = world
        .globex
        .get("/marketplace/releases?publisher=acme&name=chameleon")
        .await
        .ok();
    assert_eq!(versions["items"].as_array().unwrap().len(), 3);
    let id = text(&versions["items"][0]["id"]);
    let whole = world
        .globex
        .get(&format!("/marketplace/releases/{id}"))
        .await
        .ok();
    assert!(text(&whole["details"]["readme"]).contains("Chameleon"));
    assert_eq!(
        (&whole["licence"], &whole["prerelease"]),
        (&json!("Apache-2.0"), &json!(true))
    );
    // The newest is what is installed where no version is named.
    let refused = world
        .globex
        .post("/plugins", &json!({ "release": "acme/chameleon" }))
        .await;
    assert_eq!(
        refused.json()["consent"]["release"],
        "acme/chameleon@1.10.0"
    );
}

async fn affected(stage: Arc<Stage>) {
    let world = World::make(&stage).await;
    let acme = Publisher::register(&world.acme, "acme").await;
    let release = acme
        .publish_approved(chameleon(&guise("1.0.0")), &world.operator)
        .await;
    agree_and_install(&world.globex, &release).await;
    let digest = text(&release["digest"]);
    let mut root = world.database("postgres").await;
    let tenants = [
        (world.tenant(&world.acme).await, 1),
        (world.tenant(&world.globex).await, 3),
    ];
    for (tenant, calls) in tenants {
        for n in 0..calls {
            let call = format!("insert into skill_calls (id, tenant_id, actor, idempotency_key, request_sha256, skill_name, action, params, status, plugin_digest)
                values (gen_random_uuid(), '{tenant}', 'somebody', 'k{n}', '', 'chameleon', 'tell', '{{}}', 'succeeded', '{digest}')");
            root.execute(AssertSqlSafe(call)).await.unwrap();
        }
    }
    let path = format!("/marketplace/releases/{}/affected", text(&release["id"]));
    let own = world.globex.get(&format!("{path}?limit=2")).await.ok();
    assert_eq!(
        (own["calls"].as_array().unwrap().len(), &own["tenants"]),
        (2, &json!([]))
    );
    let rest = world
        .globex
        .get(&format!("{path}?cursor={}", text(&own["next_cursor"])))
        .await
        .ok();
    assert_eq!(rest["calls"].as_array().unwrap().len(), 1);
    assert_eq!(rest["calls"][0]["action"], "tell");
    let all = world.operator.get(&path).await.ok();
    assert_eq!(all["calls"], json!([]));
    let mut told: Vec<_> = all["tenants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| {
            (
                text(&t["slug"]),
                t["calls"].as_i64().unwrap(),
                t["installed"] == true,
            )
        })
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            ("acme".to_owned(), 1, false),
            ("globex".to_owned(), 3, true)
        ]
    );
    let by_digest = world
        .operator
        .get(&format!("/marketplace/digests/{digest}/affected"))
        .await
        .ok();
    assert_eq!(by_digest["tenants"], all["tenants"]);
    world
        .operator
        .get("/marketplace/digests/xyz/affected")
        .await
        .problem(422);
}
