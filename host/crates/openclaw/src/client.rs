//! A client of one gateway, for as long as anybody needs it: one connection, kept by a background task.

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use secrecy::SecretString;
use serde::Serialize;
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

use crate::{
    connection::{Command, Link, Ticket},
    device::DeviceIdentity,
    error::{CallError, NotSent},
    frame::{self, Answer, MAX_PAYLOAD_BYTES},
    secret_buffer::SecretBuffer,
    state::{Connected, Hello, Outage, State},
    supervisor,
};

/// Calls of one client at once; more wait for their turn. A gateway was seen to take 500 on one socket.
pub const MAX_CALLS_IN_FLIGHT: usize = 512;

/// A gateway and who we are to it.
#[derive(Clone)]
pub struct Endpoint {
    /// `ws://host:port/` or `wss://host:port/`.
    pub url: String,
    /// The gateway's shared token.
    pub token: SecretString,
    /// Our device. Off the gateway's own machine it has to be approved there.
    pub device: DeviceIdentity,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.url)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// A client's time limits. The defaults fit a gateway in the same cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// For one attempt, from TCP to `hello-ok`. The gateway itself gives up after 15 s.
    pub connect_timeout: Duration,
    /// How long a call waits for a connection that is expected to come back.
    pub connect_wait: Duration,
    /// Before the first attempt after a loss.
    pub first_retry: Duration,
    /// Before the second attempt; doubles from there. While calls wait it stays at this pace.
    pub retry_initial: Duration,
    /// Longest wait between attempts; also the pace while somebody has to change something.
    pub retry_max: Duration,
    /// How long a device that is not approved counts as about to be: the bridge approves within 1 s.
    pub approval_wait: Duration,
    /// A method without which the gateway is of no use to us.
    pub required_method: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            connect_wait: Duration::from_secs(10),
            first_retry: Duration::from_millis(100),
            retry_initial: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
            approval_wait: Duration::from_secs(60),
            required_method: crate::bridge::EXECUTE.into(),
        }
    }
}

/// A handle to one gateway. Clones share the connection; the last one that is dropped closes it.
///
/// Calls are safe to cancel: a call whose future is dropped before it was sent is never sent.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    states: watch::Receiver<State>,
    next_id: AtomicU64,
    calls: Semaphore,
    /// Slots of the bridge, see [`crate::bridge`].
    executions: Semaphore,
    connect_wait: Duration,
    /// Tells the supervisor that a call waits for a connection.
    wanted: Arc<Notify>,
    /// Its end tells the supervisor that the last client is gone.
    _alive: mpsc::Sender<Infallible>,
}

impl Client {
    /// A client that begins to connect at once. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(endpoint: Endpoint, options: Options) -> Self {
        let (states_sender, states) = watch::channel(State::Connecting);
        let (alive, gone) = mpsc::channel(1);
        let connect_wait = options.connect_wait;
        let wanted = Arc::new(Notify::new());
        tokio::spawn(supervisor::supervise(
            endpoint,
            options,
            states_sender,
            Arc::clone(&wanted),
            gone,
        ));
        Self {
            shared: Arc::new(Shared {
                states,
                next_id: AtomicU64::new(1),
                calls: Semaphore::new(MAX_CALLS_IN_FLIGHT),
                executions: Semaphore::new(crate::bridge::MAX_CONCURRENT_EXECUTIONS),
                connect_wait,
                wanted,
                _alive: alive,
            }),
        }
    }

    /// Where the client stands now.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.states.borrow().clone()
    }

    /// Where the client stands, to be waited on. It outlives the client and ends with it.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<State> {
        self.shared.states.clone()
    }

    /// What the gateway said of itself, while it is connected.
    #[must_use]
    pub fn hello(&self) -> Option<Arc<Hello>> {
        match &*self.shared.states.borrow() {
            State::Ready(connected) => Some(Arc::clone(&connected.hello)),
            State::Connecting | State::Down(_) => None,
        }
    }

    /// Waits until calls go through, whatever the problem is meanwhile.
    ///
    /// # Errors
    /// `CallError::NotConnected` with the last problem once the deadline is over.
    pub async fn wait_ready(&self, deadline: Duration) -> Result<Arc<Hello>, CallError> {
        let connected = self.connected(Instant::now() + deadline, |_| true).await?;
        Ok(connected.hello)
    }

    /// Calls a method of the gateway. `deadline` is for everything: a connection, a turn, the answer.
    ///
    /// # Errors
    /// See [`CallError`]; what became of the call differs by variant.
    pub async fn call(
        &self,
        method: &str,
        params: impl Serialize,
        deadline: Duration,
    ) -> Result<Answer, CallError> {
        self.call_sized(method, &params, 0, deadline).await
    }

    /// As [`Self::call`], with about how many bytes the parameters take.
    pub(crate) async fn call_sized<P: Serialize + ?Sized>(
        &self,
        method: &str,
        params: &P,
        size_hint: usize,
        deadline: Duration,
    ) -> Result<Answer, CallError> {
        let until = Instant::now() + deadline;
        let _turn = turn(&self.shared.calls, until).await?;
        loop {
            let connected = self
                .connected(
                    until.min(Instant::now() + self.shared.connect_wait),
                    |outage| !outage.problem.is_lasting(),
                )
                .await?;
            let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
            let frame = frame::request(id, method, params, size_hint)
                .map_err(|_| CallError::NotSent(NotSent::NotJson))?;
            fits(&frame, connected.hello.policy.max_payload)?;
            match attempt(&connected.link, id, frame, until).await {
                Attempt::Answered(text) => return Answer::read(text),
                Attempt::Unsent => {} // on the next connection, if there is one in time
                Attempt::NoTurn => return Err(CallError::NotSent(NotSent::NoTurn)),
                Attempt::Lost => return Err(CallError::Lost),
                Attempt::TimedOut => return Err(CallError::TimedOut { after: deadline }),
            }
        }
    }

    /// A slot of the bridge, for one execution.
    pub(crate) async fn execution_slot(
        &self,
    ) -> Result<tokio::sync::SemaphorePermit<'_>, CallError> {
        turn(
            &self.shared.executions,
            Instant::now() + self.shared.connect_wait,
        )
        .await
    }

    /// The connection, waiting for one until then as long as `worth_waiting`.
    async fn connected(
        &self,
        until: Instant,
        worth_waiting: impl Fn(&Outage) -> bool,
    ) -> Result<Connected, CallError> {
        if let State::Ready(connected) = &*self.shared.states.borrow()
            && connected.link.is_open()
        {
            return Ok(connected.clone());
        }
        let mut states = self.shared.states.clone();
        loop {
            let reached = match &*states.borrow_and_update() {
                State::Ready(connected) if connected.link.is_open() => return Ok(connected.clone()),
                State::Down(outage) if !worth_waiting(outage) => return Err(not_connected(outage)),
                State::Ready(_) | State::Connecting => None,
                State::Down(outage) => Some(not_connected(outage)),
            };
            self.shared.wanted.notify_one();
            if !matches!(timeout_at(until, states.changed()).await, Ok(Ok(()))) {
                return Err(reached.unwrap_or_else(still_connecting));
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("state", &self.state())
            .finish()
    }
}

fn not_connected(outage: &Outage) -> CallError {
    CallError::NotConnected {
        reason: outage.problem.to_string(),
        retry_after: outage.retry_after,
    }
}

fn still_connecting() -> CallError {
    CallError::NotConnected {
        reason: "the connection is being made".into(),
        retry_after: Duration::from_secs(1),
    }
}

async fn turn(
    turns: &Semaphore,
    until: Instant,
) -> Result<tokio::sync::SemaphorePermit<'_>, CallError> {
    match timeout_at(until, turns.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(CallError::NotSent(NotSent::NoTurn)),
    }
}

fn fits(frame: &SecretBuffer, gateway_max: usize) -> Result<(), CallError> {
    let max = gateway_max.min(MAX_PAYLOAD_BYTES);
    if frame.len() <= max {
        return Ok(());
    }
    Err(CallError::NotSent(NotSent::TooLarge {
        bytes: frame.len(),
        max,
    }))
}

enum Attempt {
    Answered(tokio_tungstenite::tungstenite::Utf8Bytes),
    Unsent,
    NoTurn,
    Lost,
    TimedOut,
}

/// Withdraws the call if its future is dropped before the writer took it.
struct Caller(Arc<Ticket>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

async fn attempt(link: &Link, id: u64, frame: SecretBuffer, until: Instant) -> Attempt {
    let caller = Caller(Arc::default());
    let (answer, on_answer) = oneshot::channel();
    let command = Command {
        id,
        frame,
        ticket: Arc::clone(&caller.0),
        answer,
    };
    let exchange = async {
        if link.send(command).await {
            on_answer.await.ok()
        } else {
            None
        }
    };
    match (timeout_at(until, exchange).await, caller) {
        (Ok(Some(text)), _) => Attempt::Answered(text),
        (Ok(None), caller) if caller.0.withdraw() => Attempt::Unsent,
        (Ok(None), _) => Attempt::Lost,
        (Err(_), caller) if caller.0.withdraw() => Attempt::NoTurn,
        (Err(_), _) => Attempt::TimedOut,
    }
}
