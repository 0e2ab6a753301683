//! A credential is nowhere but in the vault, sealed, and on its way to the service.

use crate::{
    CANARY, Stories, Theatre, World,
    isolation::operations,
    shared,
    spellings::{self, Spellings},
};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};
use tsunami_tests::{company::text, processes};

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    shared(stories, theatre, "a_credential_is_found_nowhere", nowhere);
    shared(
        stories,
        theatre,
        "what_a_task_says_is_found_nowhere_in_temporal",
        nowhere_in_temporal,
    );
}

/// The part that no mask and no prefix shows.
static SECRET: LazyLock<Spellings> = LazyLock::new(|| Spellings::of("CANARYsecretCANARY"));
/// What a task says, and so does go through Temporal. Its spellings differ.
const TOLD: &str = "toldTOLD \"in\" confidence / \u{fc}ber Temporal? toldTOLD";

fn shows(text: &str) -> bool {
    SECRET.are_in(text.as_bytes())
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

async fn nowhere(world: Arc<World>) {
    spellings::are_found();
    act(&world).await;
    no_answer_shows(&world, &shows).await;
    let mut database = world.gateway.database("postgres").await;
    let found = tables_that_show(&mut database, &shows).await;
    assert!(found.is_empty(), "in the tables {found:?}");
    assert!(!shows(&world.gateway.log()), "in the host's log");
    // Every file: PostgreSQL's with its log, Temporal's, OpenClaw's state, all logs.
    sqlx::query("checkpoint")
        .execute(&mut database)
        .await
        .expect("all is on the disk");
    let (searched, found) = files_that_show(world.gateway.folder(), &|bytes| SECRET.are_in(bytes));
    let database_url = world.gateway.database_url("postgres");
    assert!(
        searched > 500,
        "only {searched} files were searched, for {database_url}"
    );
    assert!(found.is_empty(), "in the files {found:?}");
    processes_show_nothing(&world).await;
}

/// Whatever the owner may read.
pub async fn no_answer_shows(world: &World, shows: &impl Fn(&str) -> bool) {
    let acme = &world.acme;
    for operation in operations(&acme.owner).await {
        if operation.method != reqwest::Method::GET || operation.path.contains("{skill}") {
            continue;
        }
        let mut paths = vec![operation.path.clone()];
        if let Some((collection, rest)) = operation.path.split_once("/{id}") {
            let page = acme
                .owner
                .get(&format!("{collection}?limit=200"))
                .await
                .json();
            let items = page["items"].as_array().cloned().unwrap_or_default();
            paths = items
                .iter()
                .map(|item| format!("{collection}/{}{rest}", text(&item["id"])))
                .collect();
        }
        for path in paths {
            let answer = acme.owner.get(&path).await;
            assert!(!shows(&answer.text), "{path}: {}", answer.text);
        }
    }
}

/// Everything that touches a credential, and everything that might let it out.
async fn act(world: &World) {
    let acme = &world.acme;
    let task = acme.ask_to_send("with the canary").await;
    acme.task_is(&task, &["completed"]).await;
    // A service that repeats the credential: in its error, in a header, encoded.
    let echo = json!({ "ok": false, "error": format!("bad token {CANARY}"), "again": hex(CANARY) });
    world
        .slack
        .answer_next(200, vec![("x-echo", CANARY.to_owned())], echo.to_string());
    let failing = acme.ask_to_send("echoed").await;
    let failed = acme.task_is(&failing, &["failed"]).await;
    assert!(!shows(&failed.to_string()), "{failed}");
    // A value that is not taken, in a body that is none, and of the wrong type.
    let bad = json!({ "skill": "slack", "key": "bot_token", "value": format!("nope-{CANARY}") });
    let refused = acme.owner.post("/skill-creds", &bad).await;
    refused.problem(422);
    assert!(!shows(&refused.text), "{}", refused.text);
    for body in [
        format!("{{\"value\": \"{CANARY}"),
        json!({ "skill": { "x": CANARY } }).to_string(),
        json!({ "skill": "slack", "key": "bot_token", "value": [CANARY] }).to_string(),
        json!({ "skill": "slack", "key": "bot_token", "value": "x", "expires_at": CANARY })
            .to_string(),
        json!({ "skill": "slack", "key": "bot_token", "value": "x", "type": CANARY }).to_string(),
    ] {
        let request = acme.owner.request(reqwest::Method::POST, "/skill-creds");
        let request = request
            .header("content-type", "application/json")
            .body(body);
        let refused = tsunami_tests::api::Api::send(request).await;
        assert!(refused.status.is_client_error());
        assert!(!shows(&refused.text), "{}", refused.text);
    }
    // A plugin that tells everything it is given, and a check that panics with the value.
    acme.install("hostile").await;
    acme.store_credential("hostile", "token", CANARY).await;
    acme.configure(
        "hostile",
        &json!({ "settings": { "base_url": world.slack.url } }),
    )
    .await;
    let answer = json!({ "you_sent": CANARY, "and": [CANARY] });
    world
        .slack
        .answer_next(200, vec![("x-echo", CANARY.to_owned())], answer.to_string());
    let told = acme
        .owner
        .post("/skills/hostile/tell", &json!({ "params": { "a": 1 } }))
        .await
        .ok();
    assert!(told["output"].to_string().contains("replies"), "{told}");
    assert!(!shows(&told.to_string()), "{told}");
    let arrivals = world.slack.arrivals();
    let last = arrivals.last().expect("the plugin's request");
    assert_eq!(last.authorization, format!("Bearer {CANARY}"));
    let leaking = json!({ "skill": "hostile", "key": "token", "value": format!("leak {CANARY}") });
    let refused = acme.owner.post("/skill-creds", &leaking).await;
    assert!(
        refused.status.is_client_error() || refused.status.is_server_error(),
        "{}",
        refused.text
    );
    assert!(!shows(&refused.text), "{}", refused.text);
}

/// The tables with a row that shows it, as text: what is compressed on the disk is not here.
pub async fn tables_that_show(
    database: &mut PgConnection,
    shows: &impl Fn(&str) -> bool,
) -> Vec<String> {
    let tables: Vec<String> = sqlx::query_scalar("select relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'public' and relkind in ('r', 'p')")
        .fetch_all(&mut *database)
        .await
        .expect("the tables");
    let mut found = Vec::new();
    for table in tables {
        let rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(format!("select t::text from {table} t")))
                .fetch_all(&mut *database)
                .await
                .expect("the rows");
        if rows.iter().any(|row| shows(row)) {
            found.push(table);
        }
    }
    found
}

/// How many files lie below a folder, and which of them show it.
pub fn files_that_show(folder: &Path, shows: &impl Fn(&[u8]) -> bool) -> (usize, Vec<PathBuf>) {
    let (mut searched, mut found) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        match kind {
            Ok(kind) if kind.is_dir() => {
                let below = files_that_show(&path, shows);
                searched += below.0;
                found.extend(below.1);
            }
            Ok(kind) if kind.is_file() => {
                let Ok(bytes) = std::fs::read(&path) else {
                    continue; // It was removed meanwhile.
                };
                searched += 1;
                if shows(&bytes) {
                    found.push(path);
                }
            }
            _ => {}
        }
    }
    (searched, found)
}

/// The text of a failure passes from an activity to the workflow and on to the next activity: what the task says in the
/// end was there. Twice: the service's word for it, and the objective of a task that was handed on.
async fn nowhere_in_temporal(world: Arc<World>) {
    let acme = &world.acme;
    let refusal = json!({ "ok": false, "error": TOLD }).to_string();
    world.slack.answer_next(200, vec![], refusal);
    let refused = acme.ask_to_send("refused, and told so").await;
    let handed_on =
        json!({ "objective": "hand it on", "plan": { "delegate": [{ "objective": TOLD }] } });
    let handed_on = acme.owner.post("/agent-tasks", &handed_on).await.ok();
    let handed_on = text(&handed_on["id"]);
    for task in [&refused, &handed_on] {
        let failed = acme.task_is(task, &["failed"]).await;
        let told = text(&failed["error"]["message"]);
        assert!(told.contains(TOLD), "it did not go through: {told}");
    }
    let temporal = world.gateway.data_dir().join("temporal");
    // Their ids are there, in clear: what is searched is where it would be.
    for task in [&refused, &handed_on] {
        let task = Spellings::of(task);
        let (_, found) = files_that_show(&temporal, &|bytes| task.are_in(bytes));
        assert!(
            !found.is_empty(),
            "the search finds nothing in {}",
            temporal.display()
        );
    }
    let told = Spellings::of(TOLD);
    let (_, found) = files_that_show(&temporal, &|bytes| told.are_in(bytes));
    assert!(found.is_empty(), "in the files {found:?}");
}

/// No process has it as an argument or in its environment; an instance's token is in that instance's alone.
async fn processes_show_nothing(world: &World) {
    let instance = world.acme.instance_is("running").await;
    let folder = world
        .gateway
        .data_dir()
        .join("instances")
        .join(text(&instance["name"]));
    let own = std::process::id();
    let of_token = |variable: &&String| variable.starts_with("OPENCLAW_GATEWAY_TOKEN=");
    let all = processes::all();
    let holder = all.iter().find(|process| {
        process.directory.starts_with(&folder) && process.environment.iter().any(|v| of_token(&v))
    });
    let variable = holder
        .expect("the instance's process")
        .environment
        .iter()
        .find(of_token)
        .expect("its token")
        .clone();
    let (_, token) = variable.split_once('=').expect("a variable");
    for process in all
        .iter()
        .filter(|process| process.pid.unsigned_abs() != own)
    {
        let shown = process.command.iter().chain(&process.environment);
        for part in shown {
            assert!(
                !shows(part),
                "process {} {:?}",
                process.pid,
                process.command
            );
            let allowed = process.directory.starts_with(&folder) && part == &variable;
            assert!(
                !part.contains(token) || allowed,
                "the instance's token in process {} {:?}",
                process.pid,
                process.command
            );
        }
    }
}
