//! What is sent to a registry, and to whom it may send the gateway on.
//!
//! The manifest and the token are asked for without following redirects; a blob may be somewhere else, as with most
//! registries, but on the internet: at a name, with a certificate for it. A name and a password go to the registry itself, and
//! to a realm of the same registrable domain (`auth.docker.io` of `registry-1.docker.io`). `oci-client` follows whatever a
//! registry says, and sends the password there.

use crate::oci::{OciError, Pull, collect};
use futures::StreamExt;
use http_auth::ChallengeParser;
use reqwest::{
    Client, RequestBuilder, Response,
    header::WWW_AUTHENTICATE,
    redirect::{Attempt, Policy},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::time::Duration;
use url::{Host, Url};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// From a registry to where it keeps its blobs.
const REDIRECTS_MAX: usize = 5;
/// The answer of a realm.
const TOKEN_BYTES_MAX: usize = 64 << 10;

/// How the gateway shows who is asking.
#[derive(Clone)]
pub(crate) enum Shown {
    Nothing,
    Password(String, SecretString),
    Token(SecretString),
}

impl Shown {
    fn on(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Nothing => request,
            Self::Password(name, password) => {
                request.basic_auth(name, Some(password.expose_secret()))
            }
            Self::Token(token) => request.bearer_auth(token.expose_secret()),
        }
    }
}

/// The clients for one registry.
pub(crate) struct Transport {
    /// `https://ghcr.io/v2/`
    base: Url,
    asks: Client,
    fetches: Client,
}

/// What a registry wants to be shown.
struct Challenge {
    realm: Url,
    service: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<SecretString>,
    access_token: Option<SecretString>,
}

impl Transport {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks registries; only those that are allowed, and with time limits"
    )]
    pub fn new(base: Url) -> reqwest::Result<Self> {
        // One TLS provider a process; where there is one already, it stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
        };
        let home = base.clone();
        let elsewhere = move |attempt: Attempt<'_>| {
            if attempt.previous().len() > REDIRECTS_MAX {
                return attempt.error("it sends on and on");
            }
            match attempt.url().origin() == home.origin() || is_on_the_internet(attempt.url()) {
                true => attempt.follow(),
                false => attempt.error("it sends to what is no name on the internet, over https"),
            }
        };
        Ok(Self {
            base,
            asks: builder().redirect(Policy::none()).build()?,
            fetches: builder().redirect(Policy::custom(elsewhere)).build()?,
        })
    }

    /// Asks for what is at a path below `/v2/`, where it is.
    pub async fn ask(&self, path: &str, accept: &str, shown: &Shown) -> reqwest::Result<Response> {
        let request = self.asks.get(self.at(path)).header("accept", accept);
        shown.on(request).send().await
    }

    /// The same, wherever the registry keeps it.
    pub async fn fetch(&self, path: &str, shown: &Shown) -> reqwest::Result<Response> {
        shown.on(self.fetches.get(self.at(path))).send().await
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// What the registry takes for who the gateway is: the name and the password where it says nothing else, or the token
    /// that its realm gives for them.
    pub async fn introduce(&self, pull: &Pull, shown: Shown) -> Result<Shown, OciError> {
        let asked = self.asks.get(self.base.clone()).send().await;
        let asked = asked.map_err(|e| pull.away(&e))?;
        let Some(challenge) = challenge(&asked).map_err(|why| pull.away(&why))? else {
            return Ok(shown);
        };
        let Challenge { realm, service } = challenge;
        let is_the_registrys = speaks_for(&realm, &self.base);
        let may_be_asked = match shown {
            Shown::Nothing => is_the_registrys || is_on_the_internet(&realm),
            _ => is_the_registrys,
        };
        if !may_be_asked {
            let why = format!("it sends whoever asks to {realm}, which is none of its own");
            return Err(pull.away(&why));
        }
        let scope = format!("repository:{}:pull", pull.repository());
        let mut request = self.asks.get(realm).query(&[("scope", scope)]);
        if let Some(service) = service {
            request = request.query(&[("service", service)]);
        }
        let answer = shown.on(request).send().await.map_err(|e| pull.away(&e))?;
        match answer.status().as_u16() {
            200 => {}
            400..=499 => return Err(pull.unauthorized()),
            status => return Err(pull.away(&format!("its realm answered {status}"))),
        }
        let chunks = answer.bytes_stream();
        let chunks = chunks.map(|chunk| chunk.map_err(|e| pull.away(&e)));
        let body = collect(chunks, TOKEN_BYTES_MAX).await?;
        let token = body.and_then(|body| serde_json::from_slice::<Token>(&body).ok());
        let token = token.and_then(|token| token.token.or(token.access_token));
        token
            .map(Shown::Token)
            .ok_or_else(|| pull.away(&"its realm gave no token"))
    }
}

/// The first challenge that names a realm to have a token from (RFC 6750; the distribution specification's token flow).
fn challenge(response: &Response) -> Result<Option<Challenge>, String> {
    let headers = response.headers().get_all(WWW_AUTHENTICATE).iter();
    for text in headers.filter_map(|header| header.to_str().ok()) {
        for challenge in ChallengeParser::new(text).flatten() {
            if !challenge.scheme.eq_ignore_ascii_case("bearer") {
                continue;
            }
            let param = |name: &str| {
                let mut params = challenge.params.iter();
                let found = params.find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            let realm = param("realm").unwrap_or_default();
            let realm = Url::parse(&realm).map_err(|_| "its realm is no URL".to_owned())?;
            let service = param("service");
            return Ok(Some(Challenge { realm, service }));
        }
    }
    Ok(None)
}

/// At a name, whose certificate is looked at: nothing of a private network has one.
fn is_on_the_internet(url: &Url) -> bool {
    url.scheme() == "https" && matches!(url.host(), Some(Host::Domain(_)))
}

/// Whether what is told there is told the registry.
fn speaks_for(realm: &Url, registry: &Url) -> bool {
    if realm.origin() == registry.origin() {
        return true;
    }
    let (Some(Host::Domain(realm_host)), Some(Host::Domain(host))) =
        (realm.host(), registry.host())
    else {
        return false;
    };
    let domain = psl::domain_str(host);
    realm.scheme() == "https"
        && registry.scheme() == "https"
        && domain.is_some()
        && psl::domain_str(realm_host) == domain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_to_the_registry_and_its_own_domain() {
        for (realm, registry, speaks) in [
            ("https://ghcr.io/token", "https://ghcr.io/v2/", true),
            (
                "https://auth.docker.io/token",
                "https://index.docker.io/v2/",
                true,
            ),
            (
                "https://gitlab.com/jwt/auth",
                "https://registry.gitlab.com/v2/",
                true,
            ),
            (
                "http://127.0.0.1:5000/token",
                "http://127.0.0.1:5000/v2/",
                true,
            ),
            (
                "http://127.0.0.1:5001/token",
                "http://127.0.0.1:5000/v2/",
                false,
            ),
            ("http://ghcr.io/token", "https://ghcr.io/v2/", false),
            ("https://evil.example/token", "https://ghcr.io/v2/", false),
            (
                "https://ghcr.io.evil.example/token",
                "https://ghcr.io/v2/",
                false,
            ),
            // Whose names are given to anybody below a public suffix.
            (
                "https://evil.github.io/token",
                "https://acme.github.io/v2/",
                false,
            ),
            ("https://127.0.0.1/token", "https://ghcr.io/v2/", false),
        ] {
            let url = |text: &str| Url::parse(text).expect("a URL");
            assert_eq!(speaks_for(&url(realm), &url(registry)), speaks, "{realm}");
        }
    }

    #[test]
    fn a_blob_may_be_at_a_name_and_at_no_address() {
        for (url, is) in [
            ("https://storage.example.com/x", true),
            ("http://storage.example.com/x", false),
            ("https://10.0.0.1/x", false),
            ("https://[::1]/x", false),
        ] {
            assert_eq!(
                is_on_the_internet(&Url::parse(url).expect("a URL")),
                is,
                "{url}"
            );
        }
    }
}
