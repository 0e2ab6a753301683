//! `serve`, `worker`, `migrate`: the roles against configured servers.

use crate::{
    app::App, config::Config, db, instances, marketplace::revocations, problem::Problem, routes,
    telemetry, tenants, worker,
};
use sqlx::{Connection, PgConnection};
use std::{future::IntoFuture, net::SocketAddr};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
};
use tsunami_process::FolderLock;

/// Connections that wait to be accepted; beyond it the system breaks them. (The system may allow fewer: somaxconn.)
const CONNECTIONS_WAITING_MAX: u32 = 4096;

/// Until somebody asks the process to end: Ctrl-C or SIGTERM.
pub async fn asked_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = terminate.recv() => Ok(()),
    }
}

pub async fn serve(config: Config) -> anyhow::Result<()> {
    telemetry::start(&config.log)?;
    let app = App::new(config).await?;
    let listener = listen(&app).await?;
    println!("serving http://{}", listener.local_addr()?);
    serve_on(app, listener, async {
        asked_to_stop().await.unwrap_or_default()
    })
    .await
}

pub async fn listen(app: &App) -> anyhow::Result<TcpListener> {
    let address = &app.config().http.listen;
    bind(address).map_err(|e| anyhow::anyhow!("cannot listen on {address}: {e}. Choose another with the setting http.listen (TSUNAMI_HTTP__LISTEN)."))
}

fn bind(address: &str) -> anyhow::Result<TcpListener> {
    let address: SocketAddr = address.parse()?;
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // As `TcpListener::bind` does: a restart must not wait for the old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket.listen(CONNECTIONS_WAITING_MAX)?)
}

/// Serves until `stop`, then lets requests that are under way finish.
pub async fn serve_on(
    app: App,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let live = tokio::spawn(app.live().clone().run(app.db().clone()));
    let revocations = tokio::spawn(revocations::watch(app.clone()));
    let served = axum::serve(listener, routes::router(app))
        .with_graceful_shutdown(stop)
        .into_future()
        .await;
    live.abort();
    revocations.abort();
    Ok(served?)
}

pub async fn worker(config: Config) -> anyhow::Result<()> {
    telemetry::start(&config.log)?;
    let app = App::new(config).await?;
    // Two workers with one folder would both start its instances.
    let _lock = FolderLock::take(&app.config().instances.data_dir)?;
    instances::resume_all(&app)
        .await
        .map_err(|p: Problem| anyhow::anyhow!("{p}"))?;
    let running = worker::start(&app);
    println!("working on the task queue {}", worker::TASK_QUEUE);
    asked_to_stop().await?;
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

pub async fn operator_key(config: Config, name: &str) -> anyhow::Result<()> {
    let app = App::new(config).await?;
    println!("{}", tenants::create_operator_key(&app, name).await?);
    Ok(())
}
