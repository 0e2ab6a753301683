//! Stands where an outside service would: notes what arrives, and answers as it is told.

use crate::ports;
use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::any,
};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

const BODY_BYTES_MAX: usize = 16 << 20;

/// One request, as it arrived.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub method: String,
    pub path: String,
    pub authorization: String,
    /// All of them, with lower-case names.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Arrival {
    /// The body's field `text`.
    pub fn message(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["text"].as_str().unwrap_or_default().to_owned()
    }

    /// All of it, to search.
    pub fn whole(&self) -> String {
        format!("{} {:?}\n{}", self.path, self.headers, self.body)
    }
}

type Reply = (u16, Vec<(&'static str, String)>, String);

#[derive(Default)]
struct Notes {
    arrivals: Vec<Arrival>,
    answered: usize,
    /// Answers for the next requests; Slack's usual one where there is none.
    replies: VecDeque<Reply>,
}

#[derive(Clone)]
pub struct Recorder {
    pub url: String,
    notes: Arc<Mutex<Notes>>,
    open: watch::Sender<bool>,
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = ports::listen();
        let recorder = Self {
            url: format!("http://{}/api", listener.local_addr().expect("an address")),
            notes: Arc::default(),
            open: watch::Sender::new(true),
        };
        let app = Router::new()
            .fallback(any(record))
            .with_state(recorder.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        recorder
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn arrivals(&self) -> Vec<Arrival> {
        self.notes().arrivals.clone()
    }

    /// How often a message with this text arrived.
    pub fn count(&self, text: &str) -> usize {
        let notes = self.notes();
        notes
            .arrivals
            .iter()
            .filter(|a| a.message() == text)
            .count()
    }

    /// How many requests were answered to the end.
    pub fn answered(&self) -> usize {
        self.notes().answered
    }

    /// What the next request is answered with.
    pub fn answer_next(&self, status: u16, headers: Vec<(&'static str, String)>, body: String) {
        self.notes().replies.push_back((status, headers, body));
    }

    /// What [`Recorder::answer_next`] said and nobody asked for.
    pub fn forget_replies(&self) {
        self.notes().replies.clear();
    }

    /// From now on requests are noted, and answered only when [`Recorder::release`] is called.
    pub fn hold(&self) {
        self.open.send_replace(false);
    }

    pub fn release(&self) {
        self.open.send_replace(true);
    }
}

async fn record(State(recorder): State<Recorder>, request: Request) -> Response {
    let authorization = request.headers().get("authorization");
    let mut arrival = Arrival {
        method: request.method().to_string(),
        path: request.uri().to_string(),
        authorization: authorization
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes());
                (name.to_string(), value.into_owned())
            })
            .collect(),
        body: String::new(),
    };
    let body = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await;
    arrival.body = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
    let reply = {
        let mut notes = recorder.notes();
        notes.arrivals.push(arrival);
        notes.replies.pop_front()
    };
    let mut open = recorder.open.subscribe();
    let _ = open.wait_for(|open| *open).await;
    recorder.notes().answered += 1;
    let (status, headers, body) = reply.unwrap_or_else(|| {
        let body = json!({ "ok": true, "channel": "C0FINANCE", "ts": "1700000000.000100", "channels": [], "messages": [] });
        (200, vec![], body.to_string())
    });
    let mut response = (
        axum::http::StatusCode::from_u16(status).unwrap_or_default(),
        body,
    )
        .into_response();
    for (name, value) in headers {
        let value = value.parse().expect("a header's value");
        response.headers_mut().insert(name, value);
    }
    response
}
