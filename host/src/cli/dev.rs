//! `tsunami dev`: PostgreSQL, Temporal, the API, the worker and the tenants' OpenClaw instances, as one process tree.

use super::serve;
use crate::{app::App, config::Config, db, instances, telemetry, tenants, worker};
use anyhow::Context;
use sqlx::{Connection, PgConnection};
use std::{
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use tokio::sync::oneshot;
use toml::Table;
use tsunami_embedded::{Postgres, PostgresSettings, Role, Temporal, TemporalSettings};
use tsunami_process::FolderLock;
use tsunami_sealed::KeyFile;

const DATABASE: &str = "tsunami";
const OWNER: &str = "tsunami_owner";
const APP: &str = "tsunami_app";
const SYSTEM: &str = "tsunami_system";

#[derive(clap::Args)]
pub struct DevArgs {
    /// Where everything is kept. Delete the folder to begin anew.
    #[arg(long, default_value = ".tsunami", env = "TSUNAMI_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Where `scripts/bootstrap` put the servers.
    #[arg(long, default_value = ".tools", env = "TSUNAMI_TOOLS_DIR")]
    pub tools_dir: PathBuf,
    /// The API's address.
    #[arg(long, default_value = "127.0.0.1:8480")]
    pub listen: String,
}

/// All that runs.
pub struct Stack {
    pub app: App,
    pub address: SocketAddr,
    pub operator_key: String,
    data_dir: PathBuf,
    postgres: Postgres,
    temporal: Temporal,
    worker: worker::Running,
    stop_api: oneshot::Sender<()>,
    api: tokio::task::JoinHandle<anyhow::Result<()>>,
    _lock: FolderLock,
}

pub async fn dev(args: &DevArgs, file: Option<&Path>) -> anyhow::Result<()> {
    let stack = Stack::start(args, file, true).await?;
    println!("{}", stack.where_everything_is());
    println!("ready; press Ctrl-C to stop");
    serve::asked_to_stop().await?;
    println!("stopping");
    stack.stop().await;
    Ok(())
}

impl Stack {
    /// Starts whatever does not run yet, and takes over what a killed run left behind.
    pub async fn start(args: &DevArgs, file: Option<&Path>, log: bool) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&args.data_dir)
            .with_context(|| format!("cannot make {}", args.data_dir.display()))?;
        let data_dir = args.data_dir.canonicalize()?;
        let lock = FolderLock::take(&data_dir)?;
        let install_dir = crate::config::env_var("TSUNAMI_POSTGRES_BIN")
            .and_then(|bin| Path::new(&bin).parent().map(Path::to_owned))
            .unwrap_or_else(|| args.tools_dir.join("postgres"));
        let postgres_settings = PostgresSettings {
            install_dir,
            dir: data_dir.join("postgres"),
            ephemeral: false,
        };
        let temporal_settings = TemporalSettings {
            program: args.tools_dir.join("temporal/bin/temporal"),
            dir: data_dir.join("temporal"),
        };
        let (postgres, temporal) = tokio::join!(
            Postgres::start(&postgres_settings),
            Temporal::start(&temporal_settings)
        );
        let (postgres, temporal) = (postgres?, temporal?);
        let roles = [
            Role {
                name: OWNER,
                create_role: true,
            },
            Role {
                name: APP,
                create_role: false,
            },
            Role {
                name: SYSTEM,
                create_role: false,
            },
        ];
        postgres.create_database(DATABASE, &roles).await?;
        KeyFile::create_if_missing(&data_dir.join("vault-keys"))?;
        let base = provided(args, &data_dir, &postgres, &temporal)?;
        let config = Config::load_over(base, file, std::env::vars())?;
        if log {
            telemetry::start(&config.log)?;
        }
        let mut owner = PgConnection::connect(config.database.owner_url.expose()).await?;
        db::MIGRATOR.run(&mut owner).await?;
        owner.close().await?;
        let app = App::new(config).await?;
        let operator_key = operator_key(&app, &data_dir.join("operator-key")).await?;
        instances::resume_all(&app)
            .await
            .map_err(|problem| anyhow::anyhow!("{problem}"))?;
        let worker = worker::start(&app);
        let listener = serve::listen(&app).await?;
        let address = listener.local_addr()?;
        let (stop_api, stopped) = oneshot::channel();
        let api = tokio::spawn(serve::serve_on(app.clone(), listener, async {
            let _ = stopped.await;
        }));
        Ok(Self {
            app,
            address,
            operator_key,
            data_dir,
            postgres,
            temporal,
            worker,
            stop_api,
            api,
            _lock: lock,
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub fn where_everything_is(&self) -> String {
        format!(
            "api            {url}  ({url}/openapi.json)\n\
             operator key   {key}\n\
             postgresql     {socket} (log {pg_log})\n\
             temporal       {temporal} (log {t_log})\n\
             instances      {instances}",
            url = self.url(),
            key = self.data_dir.join("operator-key").display(),
            socket = self.postgres.url(DATABASE, APP),
            pg_log = self.postgres.log().display(),
            temporal = self.temporal.url(),
            t_log = self.temporal.log().display(),
            instances = self.data_dir.join("instances").display(),
        )
    }

    /// Stops everything that this run started or took over.
    pub async fn stop(self) {
        let _ = self.stop_api.send(());
        self.worker.stop().await;
        self.api.abort();
        self.app.gateways().close_all();
        self.app.cluster().shutdown().await;
        self.temporal.stop().await;
        self.postgres.stop().await;
    }
}

/// The settings that `dev` brings along; a file and the environment may override them.
fn provided(
    args: &DevArgs,
    data_dir: &Path,
    postgres: &Postgres,
    temporal: &Temporal,
) -> anyhow::Result<Table> {
    let text = |path: &Path| path.display().to_string();
    let bridge = args
        .tools_dir
        .parent()
        .unwrap_or(Path::new("."))
        .join("plugins/openclaw-bridge");
    let bridge = if bridge.exists() {
        bridge
    } else {
        PathBuf::from("plugins/openclaw-bridge")
    };
    let table = toml::toml! {
        [skills]
        private_network_hosts = ["127.0.0.1", "localhost"]
    };
    let mut table: Table = table;
    let mut section = |name: &str, entries: Vec<(&str, String)>| {
        let entry = table.entry(name).or_insert_with(|| Table::new().into());
        if let toml::Value::Table(section) = entry {
            section.extend(
                entries
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value.into())),
            );
        }
    };
    section("http", vec![("listen", args.listen.clone())]);
    section(
        "database",
        vec![
            ("url", postgres.url(DATABASE, APP)),
            ("system_url", postgres.url(DATABASE, SYSTEM)),
            ("owner_url", postgres.url(DATABASE, OWNER)),
        ],
    );
    section("temporal", vec![("url", temporal.url())]);
    section(
        "vault",
        vec![("key_file", text(&data_dir.join("vault-keys")))],
    );
    section(
        "instances",
        vec![
            ("data_dir", text(&data_dir.join("instances"))),
            ("tools_dir", text(&args.tools_dir)),
            ("bridge_dir", text(&bridge)),
        ],
    );
    section(
        "plugins",
        vec![("cache_dir", text(&data_dir.join("plugin-cache")))],
    );
    section("log", vec![("filter", "warn,tsunami=info".to_owned())]);
    Ok(table)
}

/// The operator's key of this folder, made on the first start; only its owner may read the file.
async fn operator_key(app: &App, path: &Path) -> anyhow::Result<String> {
    if let Ok(key) = std::fs::read_to_string(path) {
        return Ok(key.trim().to_owned());
    }
    let key = tenants::create_operator_key(app, "development").await?;
    write_private(path, &key)?;
    Ok(key)
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{text}")?;
    Ok(())
}
