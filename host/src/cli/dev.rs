//! `tsunami dev`: PostgreSQL, Temporal, the API, the worker and the tenants' OpenClaw instances, as one process tree.
//!
//! Public for the benchmark (`tests/src/bin/bench`), which has the same [`Stack`] in its own process.

use super::serve::{self, Stop};
use crate::{
    app::App,
    config::{Config, environment},
    connections, db, telemetry, tenants, worker,
};
use anyhow::Context;
use sqlx::{Connection, PgConnection};
use std::{
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::oneshot,
};
use toml::Table;
use tsunami_cluster::LocalCluster;
use tsunami_embedded::{Kept, Postgres, PostgresSettings, Role, Temporal, TemporalSettings};
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
    /// Services of this process that tenants' skills may reach: `host:port`.
    #[arg(skip)]
    pub private_hosts: Vec<String>,
}

/// All that runs.
pub struct Stack {
    pub app: App,
    pub address: SocketAddr,
    pub operator_key: String,
    data_dir: PathBuf,
    where_everything_is: String,
    postgres: Kept,
    temporal: Kept,
    worker: worker::Running,
    stop_api: oneshot::Sender<()>,
    api: tokio::task::JoinHandle<anyhow::Result<()>>,
    _lock: FolderLock,
}

pub async fn dev(args: &DevArgs, file: Option<&Path>) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let stack = Stack::start(args, file, true, stop.asked()).await?;
    println!("{}", stack.where_everything_is());
    println!("ready; press Ctrl-C to stop");
    stop.asked().await;
    println!("stopping");
    stack.stop().await;
    Ok(())
}

/// Where it runs, and with what: known before anything is started.
struct Site {
    data_dir: PathBuf,
    config_file: Option<PathBuf>,
    /// Without the servers' addresses, which are known when they run.
    provided: Table,
    config: Config,
    postgres: PostgresSettings,
    temporal: TemporalSettings,
    lock: FolderLock,
}

impl Site {
    fn take(args: &DevArgs, file: Option<&Path>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&args.data_dir)
            .with_context(|| format!("cannot make {}", args.data_dir.display()))?;
        let data_dir = args.data_dir.canonicalize()?;
        let lock = FolderLock::take(&data_dir)?;
        let provided = provided(args, &data_dir);
        let config = Config::load_over(provided.clone(), file, environment()?)?;
        let install_dir = crate::config::env_var("TSUNAMI_POSTGRES_BIN")
            .and_then(|bin| Path::new(&bin).parent().map(Path::to_owned))
            .unwrap_or_else(|| args.tools_dir.join("postgres"));
        Ok(Self {
            config_file: file.map(Path::to_owned),
            provided,
            config,
            postgres: PostgresSettings {
                install_dir,
                dir: data_dir.join("postgres"),
                ephemeral: false,
            },
            temporal: TemporalSettings {
                program: args.tools_dir.join("temporal/bin/temporal"),
                dir: data_dir.join("temporal"),
            },
            data_dir,
            lock,
        })
    }

    /// The whole configuration, when the servers run.
    fn config(&self, postgres: &Postgres, temporal: &Temporal) -> anyhow::Result<Config> {
        let mut table = self.provided.clone();
        let databases = [("url", APP), ("system_url", SYSTEM), ("owner_url", OWNER)];
        let urls = databases.map(|(setting, role)| (setting, postgres.url(DATABASE, role)));
        provide(&mut table, "database", urls);
        provide(&mut table, "temporal", [("url", temporal.url())]);
        let file = self.config_file.as_deref();
        Ok(Config::load_over(table, file, environment()?)?)
    }

    /// Starts everything but the worker and the API. What it has started is found by [`Site::end_all`], wherever this
    /// ends.
    async fn bring_up(&self, socket: TcpSocket, app: &mut Option<App>) -> anyhow::Result<Up> {
        let (postgres, temporal) = tokio::join!(
            Postgres::start(&self.postgres),
            Temporal::start(&self.temporal)
        );
        let (postgres, temporal) = (postgres?, temporal?);
        let role = |name, create_role| Role { name, create_role };
        let roles = [role(OWNER, true), role(APP, false), role(SYSTEM, false)];
        postgres.create_database(DATABASE, &roles).await?;
        KeyFile::create_if_missing(&self.data_dir.join("vault-keys"))?;
        let config = self.config(&postgres, &temporal)?;
        let mut owner = PgConnection::connect(config.database.owner_url.expose()).await?;
        db::MIGRATOR.run(&mut owner).await?;
        owner.close().await?;
        let app = app.insert(App::new(config).await?).clone();
        let operator_key = operator_key(&app, &self.data_dir.join("operator-key")).await?;
        let listener = serve::listen(socket)?;
        Ok(Up {
            app,
            address: listener.local_addr()?,
            operator_key,
            postgres,
            temporal,
            listener,
        })
    }

    /// Ends whatever runs in the folder after a start that did not come to its end.
    async fn end_all(&self, app: Option<App>) {
        if let Some(app) = app {
            app.gateways().close_all();
            app.cluster().shutdown().await;
        }
        LocalCluster::end_left_behind(&self.config.instances.data_dir).await;
        tokio::join!(
            Temporal::end_left_behind(&self.temporal),
            Postgres::end_left_behind(&self.postgres)
        );
    }
}

/// What the worker and the API stand on.
struct Up {
    app: App,
    address: SocketAddr,
    operator_key: String,
    postgres: Postgres,
    temporal: Temporal,
    listener: TcpListener,
}

impl Up {
    fn where_everything_is(&self, data_dir: &Path) -> String {
        format!(
            "api            {url}  ({url}/openapi.json)\n\
             operator key   {key}\n\
             postgresql     {socket} (log {pg_log})\n\
             temporal       {temporal} (log {t_log})\n\
             instances      {instances}",
            url = url_of(self.address),
            key = data_dir.join("operator-key").display(),
            socket = self.postgres.url(DATABASE, APP),
            pg_log = self.postgres.log().display(),
            temporal = self.temporal.url(),
            t_log = self.temporal.log().display(),
            instances = data_dir.join("instances").display(),
        )
    }
}

fn url_of(address: SocketAddr) -> String {
    format!("http://{address}")
}

impl Stack {
    /// Starts whatever does not run yet, and takes over what a killed run left behind, unless `stop` comes first. Where
    /// not everything comes up, nothing of it is left running.
    pub async fn start(
        args: &DevArgs,
        file: Option<&Path>,
        log: bool,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<Self> {
        let mut site = Site::take(args, file)?;
        if log {
            telemetry::start(&site.config.log)?;
        }
        connections::make_room(site.config.http.connections_max)?;
        let socket = serve::bind(&site.config.http.listen)?;
        if let Some(url) = local_url(socket.local_addr()?) {
            provide(&mut site.provided, "http", [("public_url", url)]);
        }
        let mut app = None;
        let up = tokio::select! {
            up = Box::pin(site.bring_up(socket, &mut app)) => up,
            () = stop => Err(anyhow::anyhow!("it was stopped before everything was up")),
        };
        let up = match up {
            Ok(up) => up,
            Err(error) => {
                site.end_all(app).await;
                return Err(error);
            }
        };
        let where_everything_is = up.where_everything_is(&site.data_dir);
        let worker = worker::start(&up.app);
        let (stop_api, stopped) = oneshot::channel();
        let api = tokio::spawn(serve::serve_on(up.app.clone(), up.listener, async {
            let _ = stopped.await;
        }));
        Ok(Self {
            app: up.app,
            where_everything_is,
            address: up.address,
            operator_key: up.operator_key,
            data_dir: site.data_dir,
            postgres: Kept::keep(up.postgres),
            temporal: Kept::keep(up.temporal),
            worker,
            stop_api,
            api,
            _lock: site.lock,
        })
    }

    pub fn url(&self) -> String {
        url_of(self.address)
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub fn where_everything_is(&self) -> &str {
        &self.where_everything_is
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
fn provided(args: &DevArgs, data_dir: &Path) -> Table {
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
    let mut table = Table::new();
    provide(
        &mut table,
        "skills",
        [("private_network_hosts", args.private_hosts.clone())],
    );
    provide(&mut table, "http", [("listen", args.listen.clone())]);
    let clients = connections::room_for(Config::default().http.connections_max);
    provide(
        &mut table,
        "http",
        [("connections_max", i64::from(clients))],
    );
    let keys = text(&data_dir.join("vault-keys"));
    provide(&mut table, "vault", [("key_file", keys)]);
    let instances = [
        ("data_dir", text(&data_dir.join("instances"))),
        ("tools_dir", text(&args.tools_dir)),
        ("bridge_dir", text(&bridge)),
    ];
    provide(&mut table, "instances", instances);
    let cache = text(&data_dir.join("plugin-cache"));
    provide(&mut table, "plugins", [("cache_dir", cache)]);
    let filter = "warn,tsunami=info".to_owned();
    provide(&mut table, "log", [("filter", filter)]);
    table
}

/// Where a browser of this machine finds it; nothing where it listens on another address alone.
fn local_url(mut address: SocketAddr) -> Option<String> {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let is_local = address.ip().is_loopback();
    is_local.then(|| format!("http://{address}"))
}

fn provide<const N: usize>(
    table: &mut Table,
    section: &str,
    entries: [(&str, impl Into<toml::Value>); N],
) {
    let section = table.entry(section).or_insert_with(|| Table::new().into());
    if let toml::Value::Table(section) = section {
        section.extend(entries.map(|(key, value)| (key.to_owned(), value.into())));
    }
}

/// The operator's key of this folder, made on the first start, or where the database does not know the one that is
/// there, because it was begun anew. Only its owner may read the file.
async fn operator_key(app: &App, path: &Path) -> anyhow::Result<String> {
    if let Ok(key) = std::fs::read_to_string(path)
        && let Some(presented) = tenants::keys::parse(key.trim())
        && tenants::authenticate_operator(app, &presented)
            .await?
            .is_some()
    {
        return Ok(key.trim().to_owned());
    }
    let key = tenants::create_operator_key(app, "development", None).await?;
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
