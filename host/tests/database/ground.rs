//! A database with the schema in it, and the host on top.

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    runtime::Runtime,
    sync::{Mutex, OnceCell},
};
use tower::ServiceExt;
use tsunami::{
    app::App,
    config::{Config, Secret},
    db::MIGRATOR,
    routes, tenants,
};
use tsunami_embedded::{Postgres, PostgresSettings, Role};
use tsunami_sealed::KeyFile;

/// How long anything may take that a story waits for.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(10);
/// Nobody listens there: these stories need no Temporal.
const NO_TEMPORAL: &str = "http://127.0.0.1:9";
const BODY_BYTES_MAX: usize = 16 << 20;
const ROLES: [Role; 3] = [
    Role {
        name: "tsunami_owner",
        create_role: true,
    },
    Role {
        name: "tsunami_app",
        create_role: false,
    },
    Role {
        name: "tsunami_system",
        create_role: false,
    },
];

/// The one PostgreSQL of this program.
pub struct Server {
    pub runtime: Runtime,
    folder: TempDir,
    postgres: OnceCell<Postgres>,
    /// How many there are. Held while one is made: roles belong to the server, and its databases share them.
    databases: Mutex<u32>,
}

impl Server {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tsunami-test-")
            .tempdir()
            .expect("a folder");
        // Where root runs the tests, PostgreSQL is another user.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is ours");
        KeyFile::create_if_missing(&folder.path().join("vault-keys")).expect("keys");
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            runtime: Runtime::new().expect("a runtime"),
            folder,
            postgres: OnceCell::new(),
            databases: Mutex::new(0),
        }
    }

    async fn postgres(&self) -> &Postgres {
        let settings = PostgresSettings {
            install_dir: tools().join("postgres"),
            dir: self.folder.path().join("postgres"),
            ephemeral: true,
        };
        let start = async { Postgres::start(&settings).await.expect("PostgreSQL starts") };
        self.postgres.get_or_init(|| start).await
    }

    pub async fn ground(&self) -> Ground {
        let postgres = self.postgres().await;
        let mut databases = self.databases.lock().await;
        *databases += 1;
        let database = format!("story_{databases}");
        postgres
            .create_database(&database, &ROLES)
            .await
            .expect("a database");
        let url = |role: &str| postgres.url(&database, role);
        let mut owner = PgConnection::connect(&url("tsunami_owner"))
            .await
            .expect("the owner gets in");
        MIGRATOR.run(&mut owner).await.expect("the schema");
        drop(databases);
        let folder = self.folder.path().join(&database);
        fs::create_dir(&folder).expect("a folder");
        let config = config(&folder, &url);
        let app = App::new(config).await.expect("the host");
        let operator = tenants::create_operator_key(&app, "tester", None)
            .await
            .expect("a key");
        Ground {
            router: routes::router(app.clone()),
            app,
            operator,
            urls: ROLES
                .iter()
                .map(|role| role.name)
                .chain(["postgres"])
                .map(|role| (role, url(role)))
                .collect(),
        }
    }

    /// To be called when all is told.
    pub fn stop(&self) {
        let pid = self
            .postgres
            .get()
            .map(|postgres| postgres.process().clone());
        if let Some(process) = pid {
            let stop = process.stop(tsunami_process::Signal::SIGINT, PATIENCE);
            self.runtime.block_on(stop);
        }
    }
}

pub fn tools() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools");
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
    std::env::var_os("TSUNAMI_TOOLS_DIR").map_or(here, PathBuf::from)
}

fn config(folder: &Path, url: &impl Fn(&str) -> String) -> Config {
    // One file of keys for all stories, and so one cache of compiled plugins: each is compiled once.
    let shared = folder.parent().expect("the server's folder");
    let keys = shared.join("vault-keys");
    let mut config = Config::default();
    config.plugins.cache_dir = shared.join("plugin-cache");
    config.database.url = Secret::new(url("tsunami_app"));
    config.database.system_url = Secret::new(url("tsunami_system"));
    config.database.connections_max = 8;
    config.database.system_connections_max = 4;
    config.temporal.url = NO_TEMPORAL.to_owned();
    config.vault.key_file = keys;
    config.instances.data_dir = folder.join("instances");
    config.instances.tools_dir = stand_in_tools(folder);
    config.instances.bridge_dir =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/openclaw-bridge");
    config
}

/// The real Node, and a program in OpenClaw's place that says it is ready and does nothing: these stories are about the
/// host's rows, and start many.
fn stand_in_tools(folder: &Path) -> PathBuf {
    const SCRIPT: &str = "import { createServer } from 'node:http';\n\
        const port = Number(process.argv[process.argv.indexOf('--port') + 1]);\n\
        createServer((_, answer) => answer.end('{\"ready\":true}')).listen(port, '127.0.0.1');\n";
    let made = folder.join("tools");
    let openclaw = made.join("openclaw/node_modules/openclaw");
    fs::create_dir_all(&openclaw).expect("a folder");
    fs::write(openclaw.join("openclaw.mjs"), SCRIPT).expect("a file");
    let node = tools().join("node").canonicalize().expect("Node");
    std::os::unix::fs::symlink(node, made.join("node")).expect("a link");
    made
}

/// A plugin as `scripts/plugins` built it.
pub fn component(name: &str) -> Vec<u8> {
    let built =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/target/wasm32-wasip2/release");
    let path = built.join(format!("{name}.wasm"));
    fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; build it with scripts/plugins", path.display())
    })
}

/// What one story is told on.
pub struct Ground {
    pub app: App,
    pub operator: String,
    router: Router,
    urls: Vec<(&'static str, String)>,
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub json: Value,
}

impl Answer {
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.json);
        self.json
    }
}

async fn answer(response: axum::response::Response) -> Answer {
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), BODY_BYTES_MAX)
        .await
        .expect("a body");
    Answer {
        status,
        json: serde_json::from_slice(&bytes).unwrap_or_default(),
    }
}

impl Ground {
    /// Another host over the same database, with other settings.
    pub async fn host(&self, change: impl FnOnce(&mut Config)) -> App {
        let mut config = self.app.config().clone();
        change(&mut config);
        App::new(config).await.expect("another host")
    }

    /// The same, in this one's place.
    pub async fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        self.app = self.host(change).await;
        self.router = routes::router(self.app.clone());
        self
    }

    pub fn url(&self, role: &str) -> &str {
        let found = self.urls.iter().find(|(name, _)| *name == role);
        &found.expect("a role").1
    }

    /// A connection of one's own, as one of the roles or as the superuser `postgres`.
    pub async fn database(&self, role: &str) -> PgConnection {
        PgConnection::connect(self.url(role))
            .await
            .expect("a connection")
    }

    /// Asks the API, below `/api/v1`.
    pub async fn ask(&self, method: Method, path: &str, key: &str, body: Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(if body.is_null() {
                Body::empty()
            } else {
                Body::from(body.to_string())
            })
            .expect("a request");
        answer(self.send(request).await).await
    }

    pub async fn send(&self, request: Request<Body>) -> axum::response::Response {
        self.router
            .clone()
            .oneshot(request)
            .await
            .expect("it always answers")
    }

    pub async fn get(&self, path: &str, key: &str) -> Answer {
        self.ask(Method::GET, path, key, Value::Null).await
    }

    pub async fn delete(&self, path: &str, key: &str) -> Answer {
        self.ask(Method::DELETE, path, key, Value::Null).await
    }

    pub async fn post(&self, path: &str, key: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, key, body).await
    }

    /// Installs a plugin.
    pub async fn install(&self, name: &str, key: &str) -> Value {
        let request = Request::post("/api/v1/plugins")
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::CONTENT_TYPE, "application/wasm")
            .body(Body::from(component(name)))
            .expect("a request");
        answer(self.send(request).await).await.ok()
    }

    /// A tenant: its id, and its first owner's key.
    pub async fn tenant(&self, slug: &str) -> (String, String) {
        let new = json!({ "name": slug, "slug": slug });
        let made = self.post("/tenants", &self.operator, new).await.ok();
        (text(&made["tenant"]["id"]), text(&made["owner_key"]))
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// Looks until `holds`; fails, with what it was waiting for, when patience is over.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until so many sessions of this database wait for a lock.
pub async fn until_waiting(watcher: &mut PgConnection, sessions: i64) {
    until("sessions that wait for a lock", async || {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_one(&mut *watcher)
        .await
        .expect("the sessions");
        waiting == sessions
    })
    .await;
}
