//! `serve`, `worker`, `migrate`: the roles against configured servers.

use crate::{
    app::App, config::Config, connections, db, marketplace::revocations, routes, telemetry, worker,
};
use anyhow::Context;
use sqlx::{Connection, PgConnection};
use std::net::SocketAddr;
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{Signal, SignalKind, signal},
};
use tsunami_process::FolderLock;

/// Connections that wait to be accepted; beyond it the system breaks them. (The system may allow fewer: somaxconn.)
const CONNECTIONS_WAITING_MAX: u32 = 4096;

/// Whether somebody asked the process to end: Ctrl-C or SIGTERM. Made before anything is started, for until then the
/// signal itself ends the process, and what it started would be left running.
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    pub fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Until the next such signal.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Said where the schema is older than the program.
pub const MIGRATE: &str = "the database's schema is missing, or older than this program; run `tsunami migrate` as its owner (setting database.owner_url)";

/// Against an older schema each request would fail in its own way. A database that is away is waited for.
async fn require_schema(app: &App) -> anyhow::Result<()> {
    match db::is_migrated(app.db()).await {
        Ok(is_migrated) => anyhow::ensure!(is_migrated, MIGRATE),
        Err(error) => tracing::warn!(%error, "the database is not reached yet"),
    }
    Ok(())
}

pub async fn serve(config: Config) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    telemetry::start(&config.log)?;
    connections::make_room(config.http.connections_max)?;
    let app = App::new(config).await?;
    require_schema(&app).await?;
    let listener = listen(bind(&app.config().http.listen)?)?;
    println!("serving http://{}", listener.local_addr()?);
    serve_on(app, listener, async move { stop.asked().await }).await
}

/// Takes the API's address. Nobody gets in yet: a client is refused, and does not wait for what may never come.
pub fn bind(address: &str) -> anyhow::Result<TcpSocket> {
    let bound = || -> anyhow::Result<TcpSocket> {
        let address: SocketAddr = address.parse()?;
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        // As `TcpListener::bind` does: a restart must not wait for the old connections to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    };
    bound().with_context(|| cannot_listen(address))
}

/// Opens the address that was taken.
pub fn listen(socket: TcpSocket) -> anyhow::Result<TcpListener> {
    let address = socket.local_addr()?.to_string();
    socket
        .listen(CONNECTIONS_WAITING_MAX)
        .with_context(|| cannot_listen(&address))
}

fn cannot_listen(address: &str) -> String {
    format!(
        "cannot listen on {address}; end the program that does, or choose another address with the setting http.listen (TSUNAMI_HTTP__LISTEN; `dev` and `demo`: --listen)"
    )
}

/// Serves until `stop`, then lets requests that are under way finish.
pub async fn serve_on(
    app: App,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let live = tokio::spawn(app.live().clone().run(app.db().clone()));
    let views = app.live().clone();
    let stop = async move {
        stop.await;
        views.end(); // They have no end of their own that could be waited for.
    };
    let revocations = tokio::spawn(revocations::watch(app.clone()));
    // Made into a service once: as it is, a router is copied for each connection.
    let router = routes::router(app.clone()).with_state::<()>(());
    connections::serve(router, &app.config().http, listener, stop).await;
    live.abort();
    revocations.abort();
    Ok(())
}

pub async fn worker(config: Config) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    telemetry::start(&config.log)?;
    let app = App::new(config).await?;
    require_schema(&app).await?;
    // Two workers with one folder would both start its instances.
    let _lock = FolderLock::take(&app.config().instances.data_dir)?;
    let running = worker::start(&app);
    println!("working on the task queue {}", worker::TASK_QUEUE);
    stop.asked().await;
    running.stop().await;
    app.cluster().shutdown().await;
    Ok(())
}

pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    let url = config.database.owner_url.expose();
    anyhow::ensure!(
        !url.is_empty(),
        "setting database.owner_url is not set: migrations run as the owner of the tables"
    );
    let mut connection = PgConnection::connect(url).await?;
    db::MIGRATOR.run(&mut connection).await?;
    println!(
        "the schema is up to date ({} migrations)",
        db::MIGRATOR.iter().count()
    );
    Ok(())
}
