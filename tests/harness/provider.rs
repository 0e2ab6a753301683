//! An OpenID provider to sign in at, and somebody with a browser.

use crate::{ports, repository, tools};
use reqwest::{
    Client, Method, Response, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
    redirect::Policy,
};
use serde_json::Value;
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use url::{Url, form_urlencoded};

pub const CLIENT_ID: &str = "123456789012-story.apps.googleusercontent.com";
pub const CLIENT_SECRET: &str = "CANARYclientCANARY";
/// Where a gateway would be reached that does not listen at all.
pub const PUBLIC_URL: &str = "http://127.0.0.1:9";
pub const SCOPE: &str = "https://www.googleapis.com/auth/gmail.modify";

const TIMEOUT: Duration = Duration::from_secs(30);
/// Pages that a sign-in may have.
const STEPS_MAX: usize = 12;

/// `oidc-provider`, as `scripts/bootstrap oidc` installed it. It ends with the story.
pub struct Provider {
    pub issuer: String,
    http: Client,
    _process: Child,
}

#[expect(
    clippy::disallowed_methods,
    reason = "a browser's client, and a story's"
)]
fn client(cookies: bool) -> Client {
    Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .cookie_store(cookies)
        .timeout(TIMEOUT)
        .build()
        .expect("a client")
}

impl Provider {
    /// For a gateway at [`PUBLIC_URL`].
    pub async fn start() -> Self {
        Self::start_for(PUBLIC_URL).await
    }

    /// For the gateway that is there.
    pub async fn start_for(public_url: &str) -> Self {
        let program = repository().join("tests/providers/oidc.mjs");
        let folder = tools().join("oidc");
        assert!(
            folder.exists(),
            "{} is not there: scripts/bootstrap oidc puts it there",
            folder.display()
        );
        let mut process = Command::new(tools().join("node/bin/node"))
            .arg(program)
            .arg(folder)
            .args([CLIENT_ID, CLIENT_SECRET])
            .arg(format!("{public_url}/api/v1/skill-creds/oauth/callback"))
            .arg(SCOPE)
            .arg(ports::port().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("Node starts");
        let output = BufReader::new(process.stdout.take().expect("its output"));
        let issuer = tokio::time::timeout(TIMEOUT, output.lines().next_line())
            .await
            .expect("it listens in time")
            .expect("its output can be read")
            .expect("it says where it listens");
        Self {
            issuer,
            http: client(false),
            _process: process,
        }
    }

    /// `127.0.0.1:40123`
    pub fn host(&self) -> String {
        self.issuer.trim_start_matches("http://").to_owned()
    }

    /// How often it was asked for something.
    pub async fn asked(&self, what: &str) -> u64 {
        let url = format!("{}/_story/asked", self.issuer);
        let answer = self.http.get(url).send().await.expect("it answers");
        let asked: Value = answer.json().await.expect("JSON");
        asked[what].as_u64().expect("a number")
    }

    /// It answers with this status, and after so many milliseconds, where tokens are had and revoked.
    pub async fn trouble(&self, status: u16, delay: u32) {
        let url = format!(
            "{}/_story/trouble?status={status}&delay={delay}",
            self.issuer
        );
        self.http.get(url).send().await.expect("it answers");
    }

    /// Asks the token endpoint for new tokens, as the client, past the gateway.
    pub async fn refresh(&self, token: &str) -> StatusCode {
        let body = form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("client_id", CLIENT_ID),
            ("client_secret", CLIENT_SECRET),
        ]);
        let request = self.http.post(format!("{}/token", self.issuer));
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        request
            .body(body)
            .send()
            .await
            .expect("it answers")
            .status()
    }
}

fn form(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// Somebody who signs in: follows the provider's pages, fills in its forms, and gives what the browser would bring back
/// to the gateway: the query of the callback. `None` where the provider shows an error and sends nobody back.
pub async fn sign_in(authorization_url: &str) -> Option<String> {
    let browser = client(true);
    let mut at = Url::parse(authorization_url).expect("a URL");
    let mut asked = at.query_pairs();
    // The browser goes no further than to there.
    let back = asked.find_map(|(name, value)| (name == "redirect_uri").then(|| value.into_owned()));
    let back = back.expect("a redirect URI");
    let mut response = go(&browser, Method::GET, &at, None).await;
    for _ in 0..STEPS_MAX {
        if let Some(next) = response.headers().get(LOCATION) {
            let next = next.to_str().expect("a text");
            at = at.join(next).expect("a URL");
            if at.as_str().starts_with(&back) {
                return Some(at.query().unwrap_or_default().to_owned());
            }
            response = go(&browser, Method::GET, &at, None).await;
            continue;
        }
        let page = response.text().await.expect("a page");
        let action = between(&page, "action=\"", "\"")?;
        let prompt = between(&page, "name=\"prompt\" value=\"", "\"")?;
        let fields = match prompt {
            "login" => form(&[("prompt", "login"), ("login", "ada"), ("password", "x")]),
            prompt => form(&[("prompt", prompt)]),
        };
        at = at.join(action).expect("a URL");
        response = go(&browser, Method::POST, &at, Some(fields)).await;
    }
    panic!("the provider's pages do not end");
}

async fn go(browser: &Client, method: Method, at: &Url, body: Option<String>) -> Response {
    let mut request = browser.request(method, at.clone());
    if let Some(body) = body {
        let kind = "application/x-www-form-urlencoded";
        request = request.header(CONTENT_TYPE, kind).body(body);
    }
    request.send().await.expect("the provider answers")
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}
