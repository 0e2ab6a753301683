//! Clients' connections: so many at once, and none that brings no request for long.
//!
//! Where all places are taken, a further client is let in, and the connection that has waited longest for a request is
//! closed in its place: one that sent half a head, or sits idle. So whoever opens thousands and says nothing pushes out
//! their own. A connection with a request under way is never closed for another.

use crate::config::HttpConfig;
use anyhow::Context as _;
use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    http::Request,
    response::Response,
    serve::Listener,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
};
use tower::Service;

/// Files that the process holds beside its clients' connections: those to instances (2000), components in memory
/// (512), those to the database and to outside services.
const FILES_BESIDE: u64 = 3072;

/// Serves until `stop`, then lets requests that are under way finish. As `axum::serve` does, which waits for a request's
/// head without an end and takes connections while there are files.
pub async fn serve(
    router: Router,
    http: &HttpConfig,
    mut listener: TcpListener,
    stop: impl Future<Output = ()>,
) {
    let mut server = Builder::new(TokioExecutor::new()).http1_only();
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(http.head_timeout_seconds.into()));
    let connections = Connections::new(http.connections_max);
    let (ending, end) = watch::channel(());
    let mut stop = pin!(stop);
    loop {
        let next = async {
            // It waits out a process or a system that has no file left.
            let (stream, _) = Listener::accept(&mut listener).await;
            (stream, connections.place().await)
        };
        let (stream, place) = tokio::select! {
            next = next => next,
            () = &mut stop => break,
        };
        let waiting = Waiting::new(connections.idle.clone());
        let closed = waiting.closed.clone();
        let router = router.clone();
        let service = TowerToHyperService::new(Watched { router, waiting });
        let (server, mut end) = (server.clone(), end.clone());
        tokio::spawn(async move {
            let _place = place;
            let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
            // How it ends is the client's affair. What it has to say goes out before it is closed for another.
            tokio::select! {
                biased;
                _ = connection.as_mut() => return,
                () = closed.notified() => return,
                _ = end.changed() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }
    drop((listener, end));
    let _ = ending.send(());
    ending.closed().await;
}

/// Sees to it that the process may hold as many files as it needs for `connections_max` clients.
pub fn make_room(connections_max: u32) -> anyhow::Result<()> {
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE)
        .context("cannot read how many files the process may hold")?;
    match raised(now, most, connections_max)? {
        None => Ok(()),
        Some(files) => setrlimit(Resource::RLIMIT_NOFILE, files, most)
            .with_context(|| format!("cannot raise the limit on open files from {now} to {files}")),
    }
}

/// As many of `wanted` clients as the system lets the process hold files for; at least one.
pub fn room_for(wanted: u32) -> u32 {
    let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, most)| most);
    let room = most.saturating_sub(FILES_BESIDE);
    u32::try_from(room).unwrap_or(u32::MAX).clamp(1, wanted)
}

/// What the limit on files must become, where it is too low.
fn raised(now: u64, most: u64, connections_max: u32) -> anyhow::Result<Option<u64>> {
    let needed = u64::from(connections_max) + FILES_BESIDE;
    anyhow::ensure!(
        needed <= most,
        "setting `http.connections_max` is {connections_max}, for which the process must be able to hold {needed} files, and the system allows it {most}. Allow more (`ulimit -Hn`, LimitNOFILE of a service), or set `http.connections_max` to {} (TSUNAMI_HTTP__CONNECTIONS_MAX)",
        most.saturating_sub(FILES_BESIDE).max(1),
    );
    Ok((now < needed).then_some(needed))
}

struct Connections {
    places: Arc<Semaphore>,
    idle: Arc<Idle>,
}

impl Connections {
    fn new(connections_max: u32) -> Self {
        let places = usize::try_from(connections_max).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            idle: Arc::default(),
        }
    }

    /// A place for one that was accepted, at the cost of an idle one where there is none left. Where every connection
    /// has a request under way, further ones wait.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(place) = self.places.clone().try_acquire_owned() {
                return Some(place);
            }
            let free = self.places.clone().acquire_owned();
            if self.idle.close_oldest() {
                return free.await.ok();
            }
            tokio::select! {
                place = free => return place.ok(),
                () = self.idle.came.notified() => {}
            }
        }
    }
}

/// The connections without a request, the one that has waited longest first.
#[derive(Default)]
struct Idle {
    queue: Mutex<Queue>,
    came: Notify,
}

#[derive(Default)]
struct Queue {
    next: u64,
    waiting: BTreeMap<u64, Arc<Notify>>,
}

impl Idle {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_oldest(&self) -> bool {
        let oldest = self.queue().waiting.pop_first();
        oldest.is_some_and(|(_, closed)| {
            closed.notify_one();
            true
        })
    }

    fn enter(&self, closed: Arc<Notify>) -> u64 {
        let mut queue = self.queue();
        let place = queue.next;
        queue.next += 1;
        queue.waiting.insert(place, closed);
        drop(queue);
        self.came.notify_one();
        place
    }

    /// Whether it was there still, and is not about to be closed.
    fn leave(&self, place: u64) -> bool {
        self.queue().waiting.remove(&place).is_some()
    }
}

/// One connection: without a request it stands in the queue.
struct Waiting {
    idle: Arc<Idle>,
    closed: Arc<Notify>,
    at: Mutex<Option<u64>>,
}

impl Waiting {
    fn new(idle: Arc<Idle>) -> Arc<Self> {
        let waiting = Self {
            idle,
            closed: Arc::default(),
            at: Mutex::default(),
        };
        waiting.wait();
        Arc::new(waiting)
    }

    fn at(&self) -> MutexGuard<'_, Option<u64>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) {
        *self.at() = Some(self.idle.enter(self.closed.clone()));
    }

    /// The request's time, or nothing where the connection is closed already for another: then it must not be begun.
    fn serve(self: &Arc<Self>) -> Option<Serving> {
        let place = self.at().take()?;
        let begun = self.idle.leave(place);
        begun.then(|| Serving(self.clone()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(place) = self.at().take() {
            self.idle.leave(place);
        }
    }
}

/// Lasts from a request's head to the last byte of its answer.
struct Serving(Arc<Waiting>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.wait();
    }
}

/// The router, as one connection asks it.
#[derive(Clone)]
struct Watched {
    router: Router,
    waiting: Arc<Waiting>,
}

/// The connection was closed for another client just when its request came.
#[derive(Debug, thiserror::Error)]
#[error("closed for another client")]
struct ClosedForAnother;

type Answer = Pin<Box<dyn Future<Output = Result<Response, ClosedForAnother>> + Send>>;

impl<B> Service<Request<B>> for Watched
where
    Router: Service<Request<B>, Response = Response, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response;
    type Error = ClosedForAnother;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClosedForAnother>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answer {
        let Some(serving) = self.waiting.serve() else {
            return Box::pin(async { Err(ClosedForAnother) });
        };
        let answer = self.router.call(request);
        Box::pin(async move {
            let response = answer.await.unwrap_or_else(|never| match never {});
            Ok(response.map(|body| {
                Body::new(Answering {
                    body,
                    _serving: serving,
                })
            }))
        })
    }
}

/// An answer's body: while it is sent the connection is in use.
struct Answering {
    body: Body,
    _serving: Serving,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::net::SocketAddr;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::timeout,
    };

    const SOON: Duration = Duration::from_secs(10);
    const LONG_SECONDS: u32 = 3600;
    const HALF_A_HEAD: &str = "GET /quick HTTP/1.1\r\nhost:";
    const QUICK: &str = "GET /quick HTTP/1.1\r\nhost: a\r\n\r\n";
    const SLOW: &str = "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n";

    /// What a story knows of `/slow`.
    #[derive(Clone, Default)]
    struct Slow {
        begun: Arc<Notify>,
        go: Arc<Notify>,
    }

    /// Serves `/quick`, and `/slow` when it is told to.
    async fn serving(connections_max: u32, head_timeout_seconds: u32) -> (SocketAddr, Slow) {
        let http = HttpConfig {
            connections_max,
            head_timeout_seconds,
            ..HttpConfig::default()
        };
        let slow = Slow::default();
        let told = slow.clone();
        let router = Router::new()
            .route("/quick", get(|| async { "done" }))
            .route(
                "/slow",
                get(move || async move {
                    told.begun.notify_one();
                    told.go.notified().await;
                    "done"
                }),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            serve(router, &http, listener, std::future::pending()).await;
        });
        (address, slow)
    }

    async fn saying(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// Whether the answer comes.
    async fn is_served(stream: &mut TcpStream) -> bool {
        let mut said = [0; 12];
        let read = timeout(SOON, stream.read_exact(&mut said)).await;
        matches!(read, Ok(Ok(_))) && said == *b"HTTP/1.1 200"
    }

    async fn is_closed(mut stream: TcpStream) -> bool {
        let mut rest = Vec::new();
        let read = timeout(SOON, stream.read_to_end(&mut rest)).await;
        read.is_ok()
    }

    #[tokio::test]
    async fn half_a_head_and_an_idle_connection_are_closed_in_time() {
        let (address, _) = serving(10, 1).await;
        let half = saying(address, HALF_A_HEAD).await;
        let silent = saying(address, "").await;
        let mut idle = saying(address, QUICK).await;
        assert!(is_served(&mut idle).await);
        let preface = saying(address, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        for (what, stream) in [
            ("half", half),
            ("silent", silent),
            ("idle", idle),
            ("HTTP/2", preface),
        ] {
            assert!(is_closed(stream).await, "{what}");
        }
    }

    #[tokio::test]
    async fn who_opens_many_and_says_nothing_keeps_nobody_out() {
        let (address, slow) = serving(4, LONG_SECONDS).await;
        let mut busy = saying(address, SLOW).await;
        slow.begun.notified().await;
        let mut flood = Vec::new();
        for _ in 0..40 {
            flood.push(saying(address, HALF_A_HEAD).await);
        }
        assert!(is_served(&mut saying(address, QUICK).await).await);
        let last = flood.split_off(flood.len() - 2);
        for stream in flood {
            assert!(is_closed(stream).await, "the oldest make room");
        }
        drop(last);
        slow.go.notify_one();
        assert!(
            is_served(&mut busy).await,
            "a request under way is not cut off"
        );
    }

    #[tokio::test]
    async fn where_every_connection_has_a_request_a_further_one_waits() {
        let (address, slow) = serving(2, LONG_SECONDS).await;
        let mut busy = [saying(address, SLOW).await, saying(address, SLOW).await];
        let mut next = saying(address, QUICK).await;
        let mut byte = [0];
        let early = timeout(Duration::from_millis(300), next.peek(&mut byte)).await;
        assert!(early.is_err(), "no place yet");
        slow.go.notify_one();
        assert!(is_served(&mut next).await);
        slow.go.notify_one();
        for stream in &mut busy {
            // The first to be served is idle then, and was closed for `next` after its answer.
            assert!(is_served(stream).await);
        }
    }

    #[test]
    fn the_limit_on_files_is_raised_as_far_as_it_may_be() {
        let needed = 8192 + FILES_BESIDE;
        assert_eq!(raised(1024, 1 << 20, 8192).unwrap(), Some(needed));
        assert_eq!(raised(needed, needed, 8192).unwrap(), None);
        let told = raised(1024, 4096, 8192).unwrap_err().to_string();
        assert!(told.contains("to 1024 (TSUNAMI_HTTP"), "{told}");
    }
}
