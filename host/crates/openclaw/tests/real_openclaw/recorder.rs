//! An HTTP service on loopback that remembers every request that arrived, whole.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

/// Paths: `/hold` never answers, `/redirect` redirects, `/echo` gives back head and body, all others `{}`.
pub struct Recorder {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    count: watch::Receiver<usize>,
    _server: JoinSet<()>,
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (counter, count) = watch::channel(0);
        let mut server = JoinSet::new();
        let memory = Arc::clone(&seen);
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&memory), counter.clone()));
            }
        });
        Self {
            address,
            seen,
            count,
            _server: server,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests whose path begins with this.
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|seen| path_of(&seen.head).starts_with(path))
            .cloned()
            .collect()
    }

    /// Waits until so many requests for this path arrived.
    pub async fn arrived(&self, path: &str, number: usize) {
        let mut count = self.count.clone();
        while self.seen(path).len() < number {
            count.changed().await.unwrap();
        }
    }
}

async fn serve(stream: TcpStream, memory: Arc<Mutex<Vec<Seen>>>, counter: watch::Sender<usize>) {
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::new(stream);
    while let Some(seen) = read_request(&mut stream).await {
        memory.lock().unwrap().push(seen.clone());
        counter.send_modify(|count| *count += 1);
        let answer = match path_of(&seen.head) {
            path if path.starts_with("/hold") => std::future::pending().await,
            path if path.starts_with("/redirect") => {
                response("302 Found\r\nlocation: /elsewhere", b"")
            }
            path if path.starts_with("/echo") => {
                response("200 OK", &[seen.head.as_bytes(), &seen.body].concat())
            }
            _ => response("200 OK", b"{}"),
        };
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut seen = Seen::default();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        seen.head.push_str(&line);
    }
    let length = seen.head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length:")
            .map(|value| value.trim().parse().unwrap())
    });
    seen.body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut seen.body).await.ok()?;
    Some(seen)
}

fn path_of(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or("")
}

fn response(status: &str, body: &[u8]) -> Vec<u8> {
    [
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .as_bytes(),
        body,
    ]
    .concat()
}
