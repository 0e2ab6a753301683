//! From nothing to a usable connection: TCP, TLS, WebSocket, challenge, `connect`, `hello-ok`, checks.

use std::{sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{self, Message, Utf8Bytes, protocol::WebSocketConfig},
};

use crate::{
    client::Endpoint,
    connection::text_message,
    device::{ConnectClaim, DeviceIdentity},
    error::{CallError, Refusal},
    frame::{self, Answer, Kind, MAX_PAYLOAD_BYTES},
    state::{Hello, Incompatible, Problem},
};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const PROTOCOL: u32 = 4;
/// From the gateway's closed lists of client ids, modes and roles.
const CLIENT_ID: &str = "gateway-client";
const CLIENT_MODE: &str = "backend";
const ROLE: &str = "operator";
const PLATFORM: &str = "linux";
/// All that calls need; less is refused, more is not asked for.
pub const SCOPES_WANTED: [&str; 2] = ["operator.read", "operator.write"];
/// The id of the `connect` request; calls count from one.
const CONNECT_ID: u64 = 0;

/// Why an attempt to connect came to nothing, and how long the gateway wants us to wait, if it said.
#[derive(Debug)]
pub(crate) struct ConnectError {
    pub(crate) problem: Problem,
    pub(crate) retry_after: Option<Duration>,
}

impl From<Problem> for ConnectError {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            retry_after: None,
        }
    }
}

/// Connects and checks that the gateway grants our scopes and has `required_method`.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    required_method: &str,
) -> Result<(Socket, Arc<Hello>), ConnectError> {
    let mut socket = open(&endpoint.url).await?;
    let challenge = challenge(&mut socket).await?;
    let request = connect_request(endpoint, &challenge);
    socket
        .send(text_message(request))
        .await
        .map_err(|error| lost(&error))?;
    let answer = connect_answer(&mut socket).await?;
    let hello: Hello = match Answer::read(answer) {
        Ok(answer) => answer.parse().map_err(|error| not_this_protocol(&error))?,
        Err(CallError::Refused(refusal)) => return Err(turned_away(*refusal, &endpoint.device)),
        Err(error) => return Err(not_this_protocol(&error).into()),
    };
    check(&hello, required_method)?;
    Ok((socket, Arc::new(hello)))
}

async fn open(url: &str) -> Result<Socket, Problem> {
    // Names this program's TLS implementation. Somebody may have done so before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_PAYLOAD_BYTES))
        .max_frame_size(Some(MAX_PAYLOAD_BYTES));
    let no_delay = true;
    match connect_async_with_config(url, Some(config), no_delay).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) if response.status() == 403 => {
            Err(Problem::Incompatible(Incompatible::Proxy))
        }
        Err(error) => Err(Problem::Unreachable(error.to_string())),
    }
}

#[derive(Deserialize)]
struct ChallengeFrame {
    payload: Challenge,
}

#[derive(Deserialize)]
struct Challenge {
    nonce: String,
    ts: u64,
}

async fn challenge(socket: &mut Socket) -> Result<Challenge, Problem> {
    loop {
        let text = next_text(socket).await?;
        if matches!(frame::kind(&text), Kind::Event(event) if event == "connect.challenge") {
            let frame: ChallengeFrame = serde_json::from_str(&text).map_err(|error| {
                not_this_protocol(&CallError::protocol("the challenge", &error))
            })?;
            return Ok(frame.payload);
        }
    }
}

async fn connect_answer(socket: &mut Socket) -> Result<Utf8Bytes, Problem> {
    loop {
        let text = next_text(socket).await?;
        if frame::kind(&text) == Kind::Answer(CONNECT_ID) {
            return Ok(text);
        }
    }
}

async fn next_text(socket: &mut Socket) -> Result<Utf8Bytes, Problem> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return Ok(text),
            Some(Ok(Message::Close(Some(close)))) => {
                return Err(Problem::Lost(format!(
                    "closed by the gateway with code {}",
                    u16::from(close.code)
                )));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(lost(&error)),
            None => return Err(Problem::Lost("closed by the gateway".into())),
        }
    }
}

fn lost(error: &tungstenite::Error) -> Problem {
    Problem::Lost(error.to_string())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectParams<'a> {
    min_protocol: u32,
    max_protocol: u32,
    client: ClientInfo,
    role: &'a str,
    scopes: &'a [&'a str],
    device: DeviceProof<'a>,
    auth: Auth<'a>,
}

#[derive(Serialize)]
struct ClientInfo {
    id: &'static str,
    version: &'static str,
    platform: &'static str,
    mode: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceProof<'a> {
    id: &'a str,
    public_key: String,
    signature: String,
    signed_at: u64,
    nonce: &'a str,
}

#[derive(Serialize)]
struct Auth<'a> {
    token: &'a str,
}

fn connect_request(
    endpoint: &Endpoint,
    challenge: &Challenge,
) -> crate::secret_buffer::SecretBuffer {
    let params = ConnectParams {
        min_protocol: PROTOCOL,
        max_protocol: PROTOCOL,
        client: ClientInfo {
            id: CLIENT_ID,
            version: env!("CARGO_PKG_VERSION"),
            platform: PLATFORM,
            mode: CLIENT_MODE,
        },
        role: ROLE,
        scopes: &SCOPES_WANTED,
        device: proof(&endpoint.device, &endpoint.token, challenge),
        auth: Auth {
            token: endpoint.token.expose_secret(),
        },
    };
    frame::request(CONNECT_ID, "connect", &params, 0).expect("strings and numbers have a JSON form")
}

fn proof<'a>(
    device: &'a DeviceIdentity,
    token: &SecretString,
    challenge: &'a Challenge,
) -> DeviceProof<'a> {
    let claim = ConnectClaim {
        client_id: CLIENT_ID,
        client_mode: CLIENT_MODE,
        role: ROLE,
        scopes: &SCOPES_WANTED,
        signed_at_ms: challenge.ts,
        token,
        nonce: &challenge.nonce,
        platform: PLATFORM,
    };
    DeviceProof {
        id: device.id(),
        public_key: device.public_key(),
        signature: device.sign(&claim),
        signed_at: challenge.ts,
        nonce: &challenge.nonce,
    }
}

fn check(hello: &Hello, required_method: &str) -> Result<(), Problem> {
    if hello.protocol != PROTOCOL {
        return Err(Problem::Incompatible(Incompatible::Protocol));
    }
    // A gateway lets a client in that it grants nothing: the scopes are what counts.
    if let Some(missing) = SCOPES_WANTED
        .iter()
        .find(|scope| !hello.auth.scopes.iter().any(|granted| granted == *scope))
    {
        return Err(Problem::Incompatible(Incompatible::Scope(
            (*missing).into(),
        )));
    }
    // A gateway that refused to load a plugin is ready all the same.
    if !hello
        .features
        .methods
        .iter()
        .any(|method| method == required_method)
    {
        return Err(Problem::Incompatible(Incompatible::Method(
            required_method.into(),
        )));
    }
    Ok(())
}

fn not_this_protocol(error: &CallError) -> Problem {
    Problem::Rejected {
        code: "UNEXPECTED_ANSWER".into(),
        message: error.to_string(),
    }
}

/// Branches on codes only; messages are the gateway's to change.
fn turned_away(refusal: Refusal, device: &DeviceIdentity) -> ConnectError {
    let retry_after = refusal.retry_after;
    let problem = if refusal.is("PAIRING_REQUIRED") {
        Problem::NotApproved {
            device_id: device.id().into(),
            request_id: pairing_request(&refusal),
            overdue: false,
        }
    } else if refusal.is("AUTH_RATE_LIMITED") {
        Problem::LockedOut
    } else if refusal.is("PROTOCOL_MISMATCH") {
        Problem::Incompatible(Incompatible::Protocol)
    } else if refusal.is("UNAVAILABLE") {
        Problem::Starting(refusal.message)
    } else {
        Problem::Rejected {
            code: refusal.details_code.unwrap_or(refusal.code),
            message: refusal.message,
        }
    };
    ConnectError {
        problem,
        retry_after,
    }
}

fn pairing_request(refusal: &Refusal) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Pairing {
        request_id: String,
    }
    let details = refusal
        .details
        .as_deref()
        .and_then(|details| serde_json::from_str::<Pairing>(details.get()).ok());
    details.map_or_else(|| "<request id>".into(), |pairing| pairing.request_id)
}
