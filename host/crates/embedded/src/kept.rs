//! Sees to it that a server runs.

use crate::{EmbeddedError, Postgres, Temporal};
use std::{path::Path, time::Duration};
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};
use tsunami_process::Process;

/// The pause before a server that ended by itself is started again; it doubles each time.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// After this long, an end is not the same trouble as the one before.
const STEADY: Duration = Duration::from_secs(60);

/// What can be kept.
pub trait Server: Send + 'static {
    const NAME: &'static str;

    fn process(&self) -> &Process;

    fn log(&self) -> &Path;

    /// Where it ended: starts it again, where its clients look for it. The new process is noted before the first wait, so
    /// that [`Server::stop`] ends it wherever this is given up.
    fn start_again(&mut self) -> impl Future<Output = Result<(), EmbeddedError>> + Send;

    fn stop(self) -> impl Future<Output = ()> + Send;
}

/// A server that is started again whenever it ends by itself. Dropping this leaves it running and looked after by nobody.
#[derive(Debug)]
pub struct Kept {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Kept {
    /// Keeps a server that runs.
    pub fn keep(server: impl Server) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(keep(server, stopped));
        Self { stop, task }
    }

    /// Ends the server in good order, for good.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

async fn keep<S: Server>(mut server: S, mut stopped: oneshot::Receiver<()>) {
    let for_good = tokio::select! {
        asked = &mut stopped => asked.is_ok(),
        never = keep_running(&mut server) => match never {},
    };
    if for_good {
        server.stop().await;
    }
}

async fn keep_running<S: Server>(server: &mut S) -> std::convert::Infallible {
    let (name, mut pause) = (S::NAME, PAUSE_FIRST);
    loop {
        let began = Instant::now();
        let how = server.process().wait().await;
        let log = server.log().display().to_string();
        tracing::error!(%how, log, pause_ms = pause.as_millis(), "{name} is gone; starting it again. Nothing that was accepted is lost");
        if began.elapsed() >= STEADY {
            pause = PAUSE_FIRST;
        }
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            match server.start_again().await {
                Ok(()) => break tracing::warn!(pid = server.process().pid(), "{name} is back"),
                Err(error) => {
                    tracing::error!(%error, pause_ms = pause.as_millis(), "{name} does not start; trying again");
                }
            }
        }
    }
}

impl Server for Postgres {
    const NAME: &'static str = "PostgreSQL";

    fn process(&self) -> &Process {
        Self::process(self)
    }

    fn log(&self) -> &Path {
        Self::log(self)
    }

    fn start_again(&mut self) -> impl Future<Output = Result<(), EmbeddedError>> + Send {
        Self::start_again(self)
    }

    fn stop(self) -> impl Future<Output = ()> + Send {
        Self::stop(self)
    }
}

impl Server for Temporal {
    const NAME: &'static str = "Temporal";

    fn process(&self) -> &Process {
        Self::process(self)
    }

    fn log(&self) -> &Path {
        Self::log(self)
    }

    fn start_again(&mut self) -> impl Future<Output = Result<(), EmbeddedError>> + Send {
        Self::start_again(self)
    }

    fn stop(self) -> impl Future<Output = ()> + Send {
        Self::stop(self)
    }
}
