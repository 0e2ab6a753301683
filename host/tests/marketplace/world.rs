use crate::Stage;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Mutex, task::AbortHandle};
use tsunami::{
    app::App, config::Config, db, id::TenantId, plugins, problem::Problem, routes, tenants,
};
use tsunami_embedded::{Postgres, PostgresSettings, Role};
use tsunami_sealed::KeyFile;
use tsunami_tests::{api::Api, company::text, repository};

pub struct Server {
    postgres: Postgres,
    folder: TempDir,
    /// How many there are. Held while one is made: roles belong to the server, and its databases share them.
    databases: Mutex<u32>,
}

impl Server {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = PostgresSettings {
            install_dir: repository().join(".tools/postgres"),
            dir: folder.path().join("postgres"),
            ephemeral: true,
        };
        Self {
            postgres: Postgres::start(&settings).await.expect("PostgreSQL starts"),
            folder,
            databases: Mutex::new(0),
        }
    }

    pub async fn stop(self) {
        self.postgres.stop().await;
    }

    /// A database with the schema in it.
    pub async fn database(&self) -> Database<'_> {
        self.database_before(i64::MAX).await
    }

    /// With what the migrations before this one made.
    pub async fn database_before(&self, before: i64) -> Database<'_> {
        let mut databases = self.databases.lock().await;
        *databases += 1;
        let name = format!("story_{databases}");
        let role = |name, create_role| Role { name, create_role };
        let roles = [
            role("tsunami_owner", true),
            role("tsunami_app", false),
            role("tsunami_system", false),
        ];
        self.postgres
            .create_database(&name, &roles)
            .await
            .expect("a database");
        let database = Database { server: self, name };
        let mut owner = database.connect("tsunami_owner").await;
        for migration in db::MIGRATOR.iter().filter(|m| m.version < before) {
            let sql = migration.sql.as_str().to_owned();
            let run = owner.execute(sqlx::AssertSqlSafe(sql)).await;
            run.expect("a migration runs");
        }
        database
    }
}

pub struct Database<'a> {
    server: &'a Server,
    name: String,
}

impl Database<'_> {
    pub fn url(&self, role: &str) -> String {
        self.server.postgres.url(&self.name, role)
    }

    pub async fn connect(&self, role: &str) -> PgConnection {
        PgConnection::connect(&self.url(role))
            .await
            .expect("a connection")
    }
}

/// A gateway's API on a database of its own, with two companies.
pub struct World {
    pub app: App,
    pub operator: Api,
    pub acme: Api,
    pub globex: Api,
    urls: Vec<(&'static str, String)>,
    serving: AbortHandle,
}

impl World {
    pub async fn make(stage: &Stage) -> Self {
        Self::make_with(stage, &[]).await
    }

    /// With settings on top.
    pub async fn make_with(stage: &Stage, settings: &[(&str, &str)]) -> Self {
        let database = stage.server.database().await;
        let folder = stage.server.folder.path().join(&database.name);
        std::fs::create_dir(&folder).expect("a folder");
        let app = app_on(&database, &folder, settings).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let router = routes::router(app.clone());
        let serving =
            tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        let key = tenants::create_operator_key(&app, "of a test", None)
            .await
            .expect("a key");
        let operator = Api::new(&base, &key);
        let urls = ["postgres", "tsunami_app", "tsunami_system"];
        Self {
            acme: company(&operator, "acme").await,
            globex: company(&operator, "globex").await,
            operator,
            app,
            urls: urls.map(|role| (role, database.url(role))).to_vec(),
            serving: serving.abort_handle(),
        }
    }

    /// Another host on the same database, which knows nothing yet.
    pub async fn another_host(&self) -> App {
        App::new(self.app.config().clone()).await.expect("an app")
    }

    pub async fn database(&self, role: &str) -> PgConnection {
        let (_, url) = self.urls.iter().find(|(r, _)| *r == role).expect("a role");
        PgConnection::connect(url).await.expect("a connection")
    }

    /// What becomes of a call's first look at its plugin.
    pub async fn load(&self, app: &App, tenant: &Api) -> Result<String, Problem> {
        let mut tx = app.db().tenant(self.tenant(tenant).await).await?;
        let installed = plugins::installed(app, &mut tx, "chameleon").await?;
        Ok(installed
            .map(|i| i.manifest.about.version.clone())
            .unwrap_or_default())
    }

    pub async fn tenant(&self, api: &Api) -> TenantId {
        let tenant = api.get("/tenant").await.ok();
        text(&tenant["id"]).parse().expect("an id")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn app_on(database: &Database<'_>, folder: &Path, settings: &[(&str, &str)]) -> App {
    KeyFile::create_if_missing(&folder.join("keys")).expect("a key file");
    let text = |path: PathBuf| path.display().to_string();
    let mut all = vec![
        ("TSUNAMI_DATABASE__URL", database.url("tsunami_app")),
        (
            "TSUNAMI_DATABASE__SYSTEM_URL",
            database.url("tsunami_system"),
        ),
        ("TSUNAMI_DATABASE__CONNECTIONS_MAX", "6".to_owned()),
        ("TSUNAMI_DATABASE__SYSTEM_CONNECTIONS_MAX", "4".to_owned()),
        ("TSUNAMI_VAULT__KEY_FILE", text(folder.join("keys"))),
        (
            "TSUNAMI_INSTANCES__DATA_DIR",
            text(folder.join("instances")),
        ),
        (
            "TSUNAMI_INSTANCES__TOOLS_DIR",
            text(repository().join(".tools")),
        ),
        (
            "TSUNAMI_INSTANCES__BRIDGE_DIR",
            text(repository().join("plugins/openclaw-bridge")),
        ),
    ];
    all.extend(
        settings
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned())),
    );
    let env = all
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    let config = Config::load(None, env).expect("a configuration");
    App::new(config).await.expect("an app")
}

async fn company(operator: &Api, slug: &str) -> Api {
    let new = json!({ "name": slug, "slug": slug });
    let created = operator.post("/tenants", &new).await.ok();
    operator.with_key(&text(&created["owner_key"]))
}

/// What is installed for the skill, and its notices' codes.
pub async fn live(api: &Api) -> (Value, Vec<String>) {
    let plugins = api.get("/plugins").await.ok();
    let plugin = plugins["items"][0].clone();
    let notices = plugin["notices"].as_array().cloned().unwrap_or_default();
    (plugin, notices.iter().map(|n| text(&n["code"])).collect())
}
