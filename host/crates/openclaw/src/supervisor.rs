//! Keeps a client connected: connects, hands the connection to its task, waits for its end, tries again.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    backoff::{Backoff, jittered},
    client::{Endpoint, Options},
    connection::Connection,
    handshake::{self, ConnectError},
    state::{Connected, Outage, Problem, State},
};

/// A connection that lasted this long was a good one: the next attempt comes soon.
const GOOD_CONNECTION: Duration = Duration::from_secs(5);
/// Pace of attempts while the bridge is about to approve our device, which it does within 1 s.
const APPROVAL_PACE: Duration = Duration::from_secs(1);
/// Longest that a gateway's own wish to wait is followed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Runs until the last client is gone. Everything it started ends with it.
pub(crate) async fn supervise(
    endpoint: Endpoint,
    options: Options,
    states: watch::Sender<State>,
    wanted: Arc<Notify>,
    mut gone: mpsc::Receiver<Infallible>,
) {
    let backoff = Backoff::new(
        options.first_retry,
        options.retry_initial,
        options.retry_max,
    );
    let supervisor = Supervisor {
        endpoint,
        options,
        states,
        wanted,
        backoff,
        connections: JoinSet::new(),
        unapproved_since: None,
    };
    tokio::select! {
        _ = gone.recv() => {}
        never = supervisor.run() => match never {},
    }
}

struct Supervisor {
    endpoint: Endpoint,
    options: Options,
    states: watch::Sender<State>,
    /// Notified by each call that waits for a connection.
    wanted: Arc<Notify>,
    backoff: Backoff,
    /// The current connection, and older ones that finish what is in flight.
    connections: JoinSet<()>,
    unapproved_since: Option<Instant>,
}

impl Supervisor {
    async fn run(mut self) -> Infallible {
        loop {
            let outage = match self.connect().await {
                Ok((connected, retired)) => self.serve(connected, retired).await,
                Err(error) => self.outage(error),
            };
            self.log(&outage);
            self.states.send_replace(State::Down(outage.clone()));
            self.pause(&outage).await;
        }
    }

    /// Until the next attempt is due; less long if a call waits for it, unless trying again cannot help.
    async fn pause(&self, outage: &Outage) {
        let wanted = async {
            sleep(jittered(self.options.retry_initial)).await;
            self.wanted.notified().await;
        };
        tokio::select! {
            () = sleep(outage.retry_after) => {}
            () = wanted, if !outage.problem.is_lasting() => {}
        }
    }

    /// A problem that stays the same is not news.
    fn log(
        &self,
        Outage {
            problem,
            retry_after,
        }: &Outage,
    ) {
        let gateway = &self.endpoint.url;
        if matches!(&*self.states.borrow(), State::Down(before) if before.problem == *problem) {
            tracing::debug!(%gateway, %problem, ?retry_after, "gateway still not connected");
        } else {
            tracing::warn!(%gateway, %problem, ?retry_after, "gateway not connected");
        }
    }

    async fn connect(&mut self) -> Result<(Connected, oneshot::Receiver<Problem>), ConnectError> {
        let attempt = handshake::connect(&self.endpoint, &self.options.required_method);
        let (socket, hello) = timeout(self.options.connect_timeout, Box::pin(attempt))
            .await
            .map_err(|_| self.too_slow())??;
        let (connection, link, retired) = Connection::new(socket, &hello);
        self.connections.spawn(connection.run());
        Ok((Connected { hello, link }, retired))
    }

    fn too_slow(&self) -> Problem {
        Problem::Unreachable(format!(
            "no connection within {:?}",
            self.options.connect_timeout
        ))
    }

    /// Publishes the connection and waits until it takes no more calls.
    async fn serve(&mut self, connected: Connected, retired: oneshot::Receiver<Problem>) -> Outage {
        tracing::info!(gateway = %self.endpoint.url, version = %connected.hello.server.version, boot_id = %connected.hello.server.boot_id, "gateway connected");
        self.unapproved_since = None;
        let since = Instant::now();
        self.states.send_replace(State::Ready(connected));
        let problem = retired
            .await
            .unwrap_or_else(|_| Problem::Lost("the connection's task ended".into()));
        while self.connections.try_join_next().is_some() {}
        if since.elapsed() >= GOOD_CONNECTION {
            self.backoff.reset();
        }
        Outage {
            problem,
            retry_after: self.backoff.next(),
        }
    }

    fn outage(
        &mut self,
        ConnectError {
            problem,
            retry_after,
        }: ConnectError,
    ) -> Outage {
        let problem = self.judge_approval(problem);
        let wait = match &problem {
            Problem::NotApproved { overdue: false, .. } => {
                APPROVAL_PACE.min(self.options.retry_max)
            }
            lasting if lasting.is_lasting() => jittered(self.options.retry_max),
            _ => self.backoff.next(),
        };
        let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        Outage {
            problem,
            retry_after: wait.max(asked),
        }
    }

    /// A device that waits for long is one that nobody is about to approve.
    fn judge_approval(&mut self, problem: Problem) -> Problem {
        let Problem::NotApproved {
            device_id,
            request_id,
            ..
        } = problem
        else {
            return problem;
        };
        let since = *self.unapproved_since.get_or_insert_with(Instant::now);
        Problem::NotApproved {
            device_id,
            request_id,
            overdue: since.elapsed() >= self.options.approval_wait,
        }
    }
}
