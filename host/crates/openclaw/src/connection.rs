//! One connection that stands: many calls in flight over one socket, answers in any order.
//!
//! One task drives it, a reader and a writer side by side, so that a large request never keeps answers
//! waiting. A call's answer goes straight from the reader to the task that waits for it, unread.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};
use tokio_tungstenite::tungstenite::{
    self, Bytes, Message, Utf8Bytes,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use crate::{
    frame::{Kind, kind},
    handshake::Socket,
    secret_buffer::SecretBuffer,
    state::{Hello, Problem},
};

/// Calls that wait for the writer. Beyond it callers wait in turn, so that memory stays bounded.
const QUEUE_LENGTH: usize = 256;
/// Requests that share one flush of the socket.
const BATCH_LENGTH: usize = 64;
/// Missed ticks after which a silent gateway counts as gone.
const TICKS_MISSED_MAX: u32 = 2;

/// A frame as a message, without a copy and without a second check of its UTF-8.
pub(crate) fn text_message(frame: SecretBuffer) -> Message {
    Message::Frame(Frame::message(
        Bytes::from_owner(frame),
        OpCode::Data(Data::Text),
        true,
    ))
}

/// Decides, once, between a caller that gives up and the writer that begins to send.
#[derive(Default)]
pub(crate) struct Ticket(AtomicU8);

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Ticket {
    /// The writer's side: whether the call may be sent.
    fn take(&self) -> bool {
        self.0
            .compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The caller's side: whether the call was not sent, and now never will be.
    pub(crate) fn withdraw(&self) -> bool {
        match self
            .0
            .compare_exchange(WAITING, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => true,
            Err(found) => found == WITHDRAWN,
        }
    }
}

/// A call on its way to the writer.
pub(crate) struct Command {
    pub(crate) id: u64,
    pub(crate) frame: SecretBuffer,
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) answer: oneshot::Sender<Utf8Bytes>,
}

/// The callers' end of a connection.
#[derive(Clone)]
pub(crate) struct Link {
    commands: mpsc::Sender<Command>,
}

impl Link {
    pub(crate) fn is_open(&self) -> bool {
        !self.commands.is_closed()
    }

    /// Queues a call. False if the connection takes no more calls.
    pub(crate) async fn send(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("open", &self.is_open())
            .finish()
    }
}

/// The driving end of a connection.
pub(crate) struct Connection {
    socket: Socket,
    commands: mpsc::Receiver<Command>,
    silence_max: Duration,
    /// Told once, as soon as the connection takes no more calls; it may go on to finish those in flight.
    retired: oneshot::Sender<Problem>,
}

impl Connection {
    pub(crate) fn new(socket: Socket, hello: &Hello) -> (Self, Link, oneshot::Receiver<Problem>) {
        let (sender, commands) = mpsc::channel(QUEUE_LENGTH);
        let (retired, on_retired) = oneshot::channel();
        let silence_max = Duration::from_millis(hello.policy.tick_interval_ms) * TICKS_MISSED_MAX;
        (
            Self {
                socket,
                commands,
                silence_max,
                retired,
            },
            Link { commands: sender },
            on_retired,
        )
    }

    /// Drives the connection to its end. Calls that have no answer by then learn it by the end of their
    /// channel, and from their ticket whether they were sent.
    pub(crate) async fn run(self) {
        let (sink, stream) = self.socket.split();
        let shared = Shared::default();
        let mut retired = Some(self.retired);
        let mut reader = Reader {
            stream,
            silence_max: self.silence_max,
            shared: &shared,
            retired: &mut retired,
        };
        let mut writer = Writer {
            sink,
            commands: self.commands,
            shared: &shared,
        };
        let problem = tokio::select! {
            problem = reader.run() => problem,
            problem = writer.run() => problem,
        };
        if let Some(retired) = retired {
            let _ = retired.send(problem);
        }
    }
}

#[derive(Default)]
struct Shared {
    /// Calls that were sent, by id. Never locked across an await.
    in_flight: Mutex<HashMap<u64, oneshot::Sender<Utf8Bytes>>>,
    draining: Notify,
}

impl Shared {
    fn in_flight(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Utf8Bytes>>> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

struct Reader<'a> {
    stream: SplitStream<Socket>,
    silence_max: Duration,
    shared: &'a Shared,
    /// Empty once the gateway announced its end.
    retired: &'a mut Option<oneshot::Sender<Problem>>,
}

impl Reader<'_> {
    async fn run(&mut self) -> Problem {
        loop {
            let message = match timeout(self.silence_max, self.stream.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return Problem::Lost(error.to_string()),
                Ok(None) => return Problem::Lost("closed by the gateway".into()),
                Err(_) => {
                    return Problem::Lost(format!(
                        "the gateway was silent for {:?}",
                        self.silence_max
                    ));
                }
            };
            match message {
                Message::Text(text) => self.route(text),
                Message::Close(Some(close)) => {
                    return Problem::Lost(format!(
                        "closed by the gateway with code {}",
                        u16::from(close.code)
                    ));
                }
                // Pings are answered by the WebSocket layer.
                _ => {}
            }
            if self.is_drained() {
                return Problem::Stopping;
            }
        }
    }

    fn route(&mut self, text: Utf8Bytes) {
        match kind(&text) {
            Kind::Answer(id) => self.deliver(id, text),
            Kind::Event(event) if event == "shutdown" => self.retire(),
            Kind::Event(event) if event == "tick" => self.forget_the_withdrawn(),
            Kind::Event(_) | Kind::Other => {}
        }
    }

    /// A second answer to a call, and one to a call that gave up, find nobody.
    fn deliver(&self, id: u64, text: Utf8Bytes) {
        let waiting = self.shared.in_flight().remove(&id);
        if let Some(waiting) = waiting {
            let _ = waiting.send(text);
        }
    }

    /// The gateway finishes what is in flight and takes nothing new.
    fn retire(&mut self) {
        if let Some(retired) = self.retired.take() {
            self.shared.draining.notify_one();
            let _ = retired.send(Problem::Stopping);
        }
    }

    fn forget_the_withdrawn(&self) {
        self.shared
            .in_flight()
            .retain(|_, waiting| !waiting.is_closed());
    }

    fn is_drained(&self) -> bool {
        self.retired.is_none() && self.shared.in_flight().is_empty()
    }
}

struct Writer<'a> {
    sink: SplitSink<Socket, Message>,
    commands: mpsc::Receiver<Command>,
    shared: &'a Shared,
}

impl Writer<'_> {
    async fn run(&mut self) -> Problem {
        match self.send_all().await {
            Ok(problem) => problem,
            Err(error) => Problem::Lost(error.to_string()),
        }
    }

    async fn send_all(&mut self) -> Result<Problem, tungstenite::Error> {
        loop {
            let command = tokio::select! {
                biased;
                () = self.shared.draining.notified() => return self.refuse_all().await,
                command = self.commands.recv() => command,
            };
            // Every client is gone: nobody is left to wait for an answer.
            let Some(command) = command else {
                return Ok(Problem::Lost("no longer needed".into()));
            };
            self.send_batch(command).await?;
        }
    }

    /// Calls that come at once go out together.
    async fn send_batch(&mut self, first: Command) -> Result<(), tungstenite::Error> {
        self.feed(first).await?;
        for _ in 1..BATCH_LENGTH {
            let Ok(next) = self.commands.try_recv() else {
                break;
            };
            self.feed(next).await?;
        }
        self.sink.flush().await
    }

    async fn feed(&mut self, command: Command) -> Result<(), tungstenite::Error> {
        if !command.ticket.take() {
            return Ok(());
        }
        self.shared.in_flight().insert(command.id, command.answer);
        self.sink.feed(text_message(command.frame)).await
    }

    /// What is still queued goes back to its callers, unsent; the reader ends the connection.
    async fn refuse_all(&mut self) -> Result<Problem, tungstenite::Error> {
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
        std::future::pending().await
    }
}
