use crate::{
    DeviceIdentity,
    connection::{ConnectError, Hello, Socket, connect},
    frame::{GatewayError, Incoming, Request, Response},
};
use futures::{SinkExt, StreamExt};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_tungstenite::tungstenite::Message;

const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// While a known device waits to be let in.
const PAIRING_PAUSE: Duration = Duration::from_millis(500);
/// Frames that wait for the socket; a full queue makes callers wait.
const OUTGOING_MAX: usize = 256;

/// Where a gateway is, and how it knows us.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `ws://host:port`
    pub url: String,
    pub token: SecretString,
    pub device: DeviceIdentity,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Methods without which the gateway is of no use.
    pub methods_needed: Vec<String>,
    /// How long a call waits for a connection before it is given up.
    pub connect_wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { methods_needed: vec!["servicetsunami.execute".into(), "servicetsunami.status".into()], connect_wait: Duration::from_secs(5) }
    }
}

/// How the connection stands.
#[derive(Clone, Debug)]
pub enum State {
    Connecting { reason: String },
    Ready(Arc<Hello>),
    Closed,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("the instance is not connected: {0}")]
    NotConnected(String),
    #[error("the connection was lost before the answer came")]
    Lost,
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("the gateway refused: {} ({})", .0.code, .0.message)]
    Refused(RefusedCall),
    #[error("the call cannot be written as JSON")]
    Unwritable,
}

/// The gateway's refusal.
#[derive(Debug, Clone)]
pub struct RefusedCall {
    pub code: String,
    pub details_code: String,
    pub message: String,
    pub details: Value,
    pub retryable: bool,
    pub retry_after: Option<Duration>,
}

impl CallError {
    /// Whether the gateway may have acted on the call.
    pub fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Lost | Self::TimedOut(_))
    }
}

/// A connection that is kept up; cheap to clone, closed with the last clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    _closes: Arc<oneshot::Sender<()>>,
}

type Answer = Result<Value, CallError>;

struct Shared {
    options: Options,
    state: watch::Sender<State>,
    outgoing: Mutex<Option<mpsc::Sender<(String, String)>>>,
    waiting: Mutex<HashMap<String, oneshot::Sender<Answer>>>,
    next_id: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Starts connecting in the background.
    pub fn new(endpoint: Endpoint, options: Options) -> Self {
        let (closes, closed) = oneshot::channel();
        let shared = Arc::new(Shared {
            options,
            state: watch::Sender::new(State::Connecting { reason: "not tried yet".into() }),
            outgoing: Mutex::new(None),
            waiting: Mutex::new(HashMap::new()),
            next_id: AtomicU64::new(1),
        });
        let keeper = shared.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = keeper.keep_connected(&endpoint) => {}
                _ = closed => {}
            }
            keeper.state.send_replace(State::Closed);
            keeper.end_waiting();
        });
        Self { shared, _closes: Arc::new(closes) }
    }

    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    pub fn hello(&self) -> Option<Arc<Hello>> {
        match &*self.shared.state.borrow() {
            State::Ready(hello) => Some(hello.clone()),
            _ => None,
        }
    }

    /// Waits until calls can be made.
    pub async fn wait_ready(&self, at_most: Duration) -> Result<Arc<Hello>, CallError> {
        let mut state = self.state();
        let ready = tokio::time::timeout(at_most, state.wait_for(|state| !matches!(state, State::Connecting { .. }))).await;
        match ready.ok().and_then(Result::ok).as_deref() {
            Some(State::Ready(hello)) => Ok(hello.clone()),
            Some(_) => Err(CallError::NotConnected("the client was closed".into())),
            None => Err(CallError::NotConnected(self.why_not())),
        }
    }

    fn why_not(&self) -> String {
        match &*self.shared.state.borrow() {
            State::Connecting { reason } => reason.clone(),
            State::Closed => "the client was closed".into(),
            State::Ready(_) => "the connection is being replaced".into(),
        }
    }

    /// Calls a method. `deadline` covers the answer; a connection is waited for besides, for
    /// [`Options::connect_wait`].
    pub async fn call(&self, method: &str, params: impl Serialize, deadline: Duration) -> Answer {
        self.wait_ready(self.shared.options.connect_wait).await?;
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed).to_string();
        let text = serde_json::to_string(&Request::new(&id, method, params)).map_err(|_| CallError::Unwritable)?;
        let (answer, answered) = oneshot::channel();
        locked(&self.shared.waiting).insert(id.clone(), answer);
        let _forget = Forget { shared: &self.shared, id: &id };
        let sender = locked(&self.shared.outgoing).clone().ok_or_else(|| CallError::NotConnected(self.why_not()))?;
        if sender.send((id.clone(), text)).await.is_err() {
            return Err(CallError::NotConnected("the connection was lost".into()));
        }
        match tokio::time::timeout(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(CallError::Lost),
            Err(_) => Err(CallError::TimedOut(deadline)),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?})", &*self.shared.state.borrow())
    }
}

/// A caller that goes away leaves nothing behind.
struct Forget<'a> {
    shared: &'a Shared,
    id: &'a str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        locked(&self.shared.waiting).remove(self.id);
    }
}

impl Shared {
    async fn keep_connected(&self, endpoint: &Endpoint) {
        let mut pause = RECONNECT_FIRST;
        loop {
            match connect(endpoint, &self.options.methods_needed).await {
                Ok((socket, hello)) => {
                    pause = RECONNECT_FIRST;
                    let reason = self.serve(socket, hello).await;
                    tracing::info!(url = endpoint.url, reason, "instance: connection ended");
                    self.state.send_replace(State::Connecting { reason });
                }
                Err(error) => {
                    self.state.send_replace(State::Connecting { reason: error.to_string() });
                    pause = if matches!(error, ConnectError::NotPaired) { PAIRING_PAUSE } else { (pause * 2).min(RECONNECT_MAX) };
                }
            }
            tokio::time::sleep(jittered(pause)).await;
        }
    }

    /// Carries frames until the connection ends; says why it did.
    async fn serve(&self, mut socket: Socket, hello: Hello) -> String {
        let silence_max = hello.tick_interval * 2;
        let (sender, mut outgoing) = mpsc::channel(OUTGOING_MAX);
        *locked(&self.outgoing) = Some(sender);
        self.state.send_replace(State::Ready(Arc::new(hello)));
        let mut heard = Instant::now();
        let mut draining = false;
        let reason = loop {
            tokio::select! {
                frame = outgoing.recv(), if !draining => {
                    let Some((id, text)) = frame else { break "closed by us".to_owned() };
                    // Given up meanwhile: not sent, so that nothing happens that nobody hears of.
                    if !locked(&self.waiting).contains_key(&id) {
                        continue;
                    }
                    if let Err(error) = socket.send(Message::text(text)).await {
                        break error.to_string();
                    }
                }
                message = socket.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => {
                            if self.receive(&text) {
                                // Calls under way still get their answers; new ones wait for the next connection.
                                draining = true;
                                *locked(&self.outgoing) = None;
                                self.state.send_replace(State::Connecting { reason: "the gateway is stopping".into() });
                                outgoing.close();
                                while let Ok((id, _)) = outgoing.try_recv() {
                                    self.answer(&id, Err(CallError::NotConnected("the gateway is stopping".into())));
                                }
                            }
                        }
                        Some(Ok(Message::Close(frame))) => break format!("closed by the gateway: {:?}", frame.map(|f| u16::from(f.code))),
                        Some(Ok(_)) => {}
                        Some(Err(error)) => break error.to_string(),
                        None => break "closed by the gateway".to_owned(),
                    }
                }
                () = tokio::time::sleep_until(heard + silence_max) => break format!("nothing was heard for {} s", silence_max.as_secs()),
            }
        };
        *locked(&self.outgoing) = None;
        outgoing.close();
        while let Ok((id, _)) = outgoing.try_recv() {
            self.answer(&id, Err(CallError::NotConnected("the connection was lost".into())));
        }
        self.end_waiting();
        reason
    }

    /// Takes a frame; says whether the gateway is about to stop.
    fn receive(&self, text: &str) -> bool {
        match serde_json::from_str(text) {
            Ok(Incoming::Res(response)) => {
                let id = response.id.clone();
                self.answer(&id, outcome(response));
                false
            }
            Ok(Incoming::Event(event)) => event.event == "shutdown",
            Ok(Incoming::Other) | Err(_) => false,
        }
    }

    /// A late or a second answer finds nobody, and is dropped.
    fn answer(&self, id: &str, answer: Answer) {
        if let Some(waiting) = locked(&self.waiting).remove(id) {
            let _ = waiting.send(answer);
        }
    }

    fn end_waiting(&self) {
        locked(&self.waiting).clear();
    }
}

fn outcome(response: Response) -> Answer {
    if response.ok {
        return Ok(response.payload);
    }
    let error: GatewayError = response.error.unwrap_or_default();
    Err(CallError::Refused(RefusedCall {
        details_code: error.details_code().to_owned(),
        code: error.code,
        message: error.message,
        details: error.details,
        retryable: error.retryable,
        retry_after: error.retry_after_ms.map(Duration::from_millis),
    }))
}

/// Up to a quarter more, so that many clients do not come back at one instant.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0; 1];
    let _ = getrandom::fill(&mut byte);
    pause + pause.mul_f64(f64::from(byte[0]) / 1024.0)
}
