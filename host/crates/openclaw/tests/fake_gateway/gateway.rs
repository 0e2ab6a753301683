//! A gateway that says what a test tells it to say, within the protocol.

use std::{net::SocketAddr, time::Duration};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};
use tsunami_openclaw::{
    DeviceIdentity, Endpoint, Options,
    bridge::{ExecuteRequest, HttpRequest, PrivateNetwork},
};

pub const TOKEN: &str = "canary-gateway-token";
pub const NONCE: &str = "nonce-1";
pub const CHALLENGE_TIME_MS: u64 = 1_795_435_198_967;
pub const RETRY_MAX: Duration = Duration::from_millis(200);

/// Nothing here takes long; what does, hangs.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .expect("it happens within ten seconds")
}

/// As in production, a hundred times faster.
pub fn options() -> Options {
    Options {
        first_retry: Duration::from_millis(2),
        retry_initial: Duration::from_millis(10),
        retry_max: RETRY_MAX,
        ..Options::default()
    }
}

pub fn hello() -> Value {
    json!({
        "type": "hello-ok",
        "protocol": 4,
        "server": {"version": "2026.9.6", "bootId": "boot-1", "connId": "connection-1"},
        "features": {"methods": ["health", "servicetsunami.execute", "servicetsunami.status"], "events": ["tick"]},
        "auth": {"method": "token", "role": "operator", "scopes": ["operator.read", "operator.write"]},
        "policy": {"maxPayload": 26_214_400, "maxBufferedBytes": 52_428_800, "tickIntervalMs": 30_000}
    })
}

pub struct FakeGateway {
    listener: TcpListener,
    device: DeviceIdentity,
}

impl FakeGateway {
    pub async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    pub async fn start_at(address: SocketAddr) -> Self {
        Self {
            listener: TcpListener::bind(address).await.unwrap(),
            device: DeviceIdentity::from_secret_bytes(&[7; 32]),
        }
    }

    pub async fn stop(self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub fn endpoint(&self) -> Endpoint {
        let address = self.listener.local_addr().unwrap();
        Endpoint {
            url: format!("ws://{address}/"),
            token: TOKEN.into(),
            device: self.device.clone(),
        }
    }

    /// The next client, up to its `connect` request.
    pub async fn accept(&self) -> Visitor {
        within(async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let mut session = Session {
                socket: accept_async(stream).await.unwrap(),
            };
            let challenge = json!({"nonce": NONCE, "ts": CHALLENGE_TIME_MS, "capabilities": []});
            session.event("connect.challenge", challenge).await;
            let connect = session.request().await;
            assert_eq!(connect["method"], "connect");
            Visitor { session, connect }
        })
        .await
    }
}

/// A client that asked to be let in.
pub struct Visitor {
    session: Session,
    pub connect: Value,
}

impl Visitor {
    pub async fn welcome(mut self, hello: Value) -> Session {
        self.session.answer(&self.connect, hello).await;
        self.session
    }

    pub async fn turn_away(mut self, error: Value) {
        self.session.refuse(&self.connect, error).await;
        let _ = self.session.socket.close(None).await;
    }

    pub fn break_off(self) {
        self.session.break_off();
    }
}

/// A client that was let in.
pub struct Session {
    socket: WebSocketStream<TcpStream>,
}

impl Session {
    pub async fn request(&mut self) -> Value {
        let request = within(self.next_text()).await.expect("the client is there");
        let request: Value = serde_json::from_str(&request).unwrap();
        assert_eq!(request["type"], "req");
        assert!(request["id"].is_string());
        request
    }

    pub async fn expect_no_request(&mut self, during: Duration) {
        let request = tokio::time::timeout(during, self.next_text()).await;
        assert!(request.is_err(), "{request:?}");
    }

    async fn next_text(&mut self) -> Option<String> {
        loop {
            match self.socket.next().await?.ok()? {
                Message::Text(text) => return Some(text.to_string()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    pub async fn answer(&mut self, request: &Value, payload: Value) {
        self.text(
            &json!({"type": "res", "id": request["id"], "ok": true, "payload": payload})
                .to_string(),
        )
        .await;
    }

    pub async fn refuse(&mut self, request: &Value, error: Value) {
        self.text(
            &json!({"type": "res", "id": request["id"], "ok": false, "error": error}).to_string(),
        )
        .await;
    }

    pub async fn event(&mut self, name: &str, payload: Value) {
        self.text(&json!({"type": "event", "event": name, "payload": payload}).to_string())
            .await;
    }

    pub async fn text(&mut self, text: &str) {
        within(self.socket.send(Message::text(text))).await.unwrap();
    }

    pub async fn ping_and_wait_for_pong(&mut self) {
        self.socket
            .send(Message::Ping(b"are you there".as_slice().into()))
            .await
            .unwrap();
        let pong = within(self.socket.next()).await.unwrap().unwrap();
        assert_eq!(pong, Message::Pong(b"are you there".as_slice().into()));
    }

    /// Without a WebSocket close, as when a process is killed.
    pub fn break_off(self) {}

    /// Waits until the client hangs up.
    pub async fn ended(mut self) {
        assert_eq!(within(self.next_text()).await, None);
    }
}

pub fn execution(n: usize) -> ExecuteRequest {
    ExecuteRequest {
        call_id: format!("call-{n}"),
        resend: false,
        journal_id: None,
        sent_ago: std::time::Duration::ZERO,
        retry_unknown: false,
        digest: "sha256:00".into(),
        timeout: Duration::from_secs(5),
        max_response_bytes: 1024,
        secrets: vec![],
        private_network: PrivateNetwork::Refuse,
        journal_reply: true,
        request: HttpRequest {
            method: "GET".into(),
            url: "https://example.com/".into(),
            headers: vec![],
            body: None,
        },
    }
}

pub fn execution_reply(request: &Value) -> Value {
    json!({
        "callId": request["params"]["callId"],
        "journalId": "journal-1",
        "replayed": false,
        "durationMs": 1,
        "reply": {"status": 200, "headers": [], "bodyBase64": "e30=", "truncated": false, "digest": "sha256:00"}
    })
}
