//! One connection: the handshake, and frames both ways until it ends.

use crate::{
    Endpoint, SCOPES,
    frame::{Incoming, Request, Response},
};
use futures::{SinkExt, StreamExt};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

/// The gateway closes the socket on more, in bytes.
const FRAME_BYTES_MAX: usize = 25 << 20;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
const CLIENT_ID: &str = "gateway-client";
const CLIENT_MODE: &str = "backend";
const ROLE: &str = "operator";
const PLATFORM: &str = "linux";

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What the gateway said of itself.
#[derive(Clone, Debug)]
pub struct Hello {
    pub version: String,
    /// A process of the gateway.
    pub boot_id: String,
    pub scopes: Vec<String>,
    pub methods: Vec<String>,
    pub tick_interval: Duration,
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the gateway cannot be reached: {0}")]
    Unreachable(String),
    /// The bridge approves a known device within a second.
    #[error("the gateway has not let this device in yet")]
    NotPaired,
    #[error("the gateway refuses: {0}")]
    Refused(String),
    #[error("the gateway is not fit for use: {0}")]
    Unfit(String),
}

fn unreachable(error: impl std::fmt::Display) -> ConnectError {
    ConnectError::Unreachable(error.to_string())
}

/// Connects and shakes hands.
pub async fn connect(endpoint: &Endpoint, methods_needed: &[String]) -> Result<(Socket, Hello), ConnectError> {
    tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(endpoint, methods_needed))
        .await
        .map_err(|_| ConnectError::Unreachable(format!("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())))?
}

async fn handshake(endpoint: &Endpoint, methods_needed: &[String]) -> Result<(Socket, Hello), ConnectError> {
    let config = WebSocketConfig::default().max_message_size(Some(FRAME_BYTES_MAX)).max_frame_size(Some(FRAME_BYTES_MAX));
    let (mut socket, _) = connect_async_with_config(&endpoint.url, Some(config), true).await.map_err(unreachable)?;
    let challenge = next_event(&mut socket, "connect.challenge").await?;
    let text = serde_json::to_string(&Request::new("connect", "connect", connect_params(endpoint, &challenge))).map_err(unreachable)?;
    socket.send(Message::text(text)).await.map_err(unreachable)?;
    let response = next_response(&mut socket).await?;
    let hello = check(response, methods_needed)?;
    Ok((socket, hello))
}

fn connect_params(endpoint: &Endpoint, challenge: &Value) -> Value {
    let (nonce, at) = (challenge["nonce"].as_str().unwrap_or_default(), challenge["ts"].as_i64().unwrap_or_default());
    let token = endpoint.token.expose_secret();
    let device = &endpoint.device;
    let signed = format!("v3|{}|{CLIENT_ID}|{CLIENT_MODE}|{ROLE}|{}|{at}|{token}|{nonce}|{PLATFORM}|", device.id(), SCOPES.join(","));
    json!({
        "minProtocol": 4, "maxProtocol": 4,
        "client": { "id": CLIENT_ID, "version": env!("CARGO_PKG_VERSION"), "platform": PLATFORM, "mode": CLIENT_MODE },
        "role": ROLE, "scopes": SCOPES, "caps": [], "commands": [], "permissions": {}, "locale": "en-US",
        "userAgent": concat!("tsunami/", env!("CARGO_PKG_VERSION")),
        "auth": { "token": token },
        "device": { "id": device.id(), "publicKey": device.public_key(), "signature": device.sign(&signed), "signedAt": at, "nonce": nonce },
    })
}

fn check(response: Response, methods_needed: &[String]) -> Result<Hello, ConnectError> {
    if !response.ok {
        let error = response.error.unwrap_or_default();
        if error.code == "NOT_PAIRED" && error.details_code() == "PAIRING_REQUIRED" {
            return Err(ConnectError::NotPaired);
        }
        return Err(ConnectError::Refused(format!("{} {}", error.code, error.details_code())));
    }
    let payload = response.payload;
    let texts = |list: &Value| list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let hello = Hello {
        version: payload["server"]["version"].as_str().unwrap_or_default().to_owned(),
        boot_id: payload["server"]["bootId"].as_str().unwrap_or_default().to_owned(),
        scopes: texts(&payload["auth"]["scopes"]),
        methods: texts(&payload["features"]["methods"]),
        tick_interval: Duration::from_millis(payload["policy"]["tickIntervalMs"].as_u64().unwrap_or(30_000)),
    };
    if let Some(missing) = SCOPES.iter().find(|scope| !hello.scopes.iter().any(|granted| granted == *scope)) {
        return Err(ConnectError::Unfit(format!("it did not grant the scope {missing}; pair the control plane's device with it")));
    }
    if let Some(missing) = methods_needed.iter().find(|method| !hello.methods.contains(method)) {
        return Err(ConnectError::Unfit(format!("it has no method {missing}; its log says why it did not load the bridge plugin")));
    }
    Ok(hello)
}

async fn next_event(socket: &mut Socket, name: &str) -> Result<Value, ConnectError> {
    loop {
        match next_frame(socket).await? {
            Incoming::Event(event) if event.event == name => return Ok(event.payload),
            _ => {}
        }
    }
}

async fn next_response(socket: &mut Socket) -> Result<Response, ConnectError> {
    loop {
        if let Incoming::Res(response) = next_frame(socket).await? {
            return Ok(response);
        }
    }
}

async fn next_frame(socket: &mut Socket) -> Result<Incoming, ConnectError> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).map_err(|_| ConnectError::Refused("it does not speak protocol 4".into())),
            Some(Ok(Message::Close(frame))) => return Err(unreachable(format!("closed: {:?}", frame.map(|f| f.code)))),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(unreachable(error)),
            None => return Err(unreachable("closed")),
        }
    }
}
