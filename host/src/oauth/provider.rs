//! What a provider is asked, and what it may answer. It is a stranger: every answer has a size, a type and a
//! meaning, or it is none; and its words are shown only where they hold nothing that must not be seen.

use crate::{
    outbound::{Answer, Outbound, OutboundError},
    vault::VALUE_BYTES_MAX,
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

/// What is shown of a provider's words, in characters.
const SAID_CHARS_MAX: usize = 300;
/// The longest life of a token that is believed: ten years.
const LIFETIME_SECONDS_MAX: u64 = 10 * 365 * 24 * 3600;
/// A secret shorter than this is not looked for in what a provider says: it would be found everywhere.
const SECRET_CHARS_MIN: usize = 4;

/// A provider, as an administrator agreed to it, and the client that is registered there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Where the endpoints were discovered (RFC 8414); none where they are the plugin's.
    pub issuer: Option<String>,
    /// Whether it says with each code from whom it is (RFC 9207).
    pub iss_required: bool,
    pub authorize_url: String,
    pub token_url: String,
    pub revoke_url: Option<String>,
    pub client_authentication: Authentication,
    pub client_id: String,
    /// Keys of the skill's credentials that are the client's id and secret.
    pub client_id_key: String,
    pub client_secret_key: Option<String>,
}

/// How the client says who it is (RFC 6749, 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Authentication {
    Basic,
    Body,
}

/// What a provider gave.
pub struct Tokens {
    pub access_token: Zeroizing<String>,
    pub refresh_token: Option<Zeroizing<String>>,
    pub lifetime: Option<Duration>,
}

/// Why it gave nothing. None holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("{0}")]
    Away(String),
    /// In its own words, without what must not be seen.
    #[error("the provider refuses: {said}")]
    Refused { code: String, said: String },
    #[error("{0}")]
    Unusable(String),
}

impl TokenError {
    /// Whether the grant behind a refresh token is gone for good.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "invalid_grant")
    }
}

impl From<OutboundError> for TokenError {
    fn from(error: OutboundError) -> Self {
        match error {
            OutboundError::Away(_) => Self::Away(error.to_string()),
            other => Self::Unusable(other.to_string()),
        }
    }
}

/// A request of the token endpoint (RFC 6749, 3.2), or of the one that revokes.
struct Form<'a> {
    provider: &'a Provider,
    client_secret: &'a str,
    fields: Vec<(&'a str, &'a str)>,
}

impl Form<'_> {
    async fn post(self, outbound: &Outbound, url: &str) -> Result<Answer, TokenError> {
        let url = Url::parse(url)
            .map_err(|_| TokenError::Unusable("the endpoint is not a URL".to_owned()))?;
        let id = &self.provider.client_id;
        let mut fields = self.fields;
        let basic = self.provider.client_authentication == Authentication::Basic;
        let has_secret = !self.client_secret.is_empty();
        if !(basic && has_secret) {
            fields.push(("client_id", id));
            if has_secret {
                fields.push(("client_secret", self.client_secret));
            }
        }
        let form = Zeroizing::new(
            form_urlencoded::Serializer::new(String::new())
                .extend_pairs(fields)
                .finish(),
        );
        let authorization = (basic && has_secret).then(|| {
            let pair = Zeroizing::new(format!("{}:{}", encoded(id), encoded(self.client_secret)));
            Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())))
        });
        Ok(outbound.post_form(&url, form, authorization).await?)
    }
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Exchanges a code for tokens.
pub async fn exchange(
    outbound: &Outbound,
    provider: &Provider,
    client_secret: &str,
    code: &str,
    verifier: &str,
    redirect_uri: &str,
) -> Result<Tokens, TokenError> {
    let form = Form {
        provider,
        client_secret,
        fields: vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ],
    };
    let answer = form.post(outbound, &provider.token_url).await?;
    tokens(&answer, &[client_secret, code, verifier])
}

/// Renews an access token; the provider may give another refresh token besides.
pub async fn refresh(
    outbound: &Outbound,
    provider: &Provider,
    client_secret: &str,
    refresh_token: &str,
) -> Result<Tokens, TokenError> {
    let form = Form {
        provider,
        client_secret,
        fields: vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
        ],
    };
    let answer = form.post(outbound, &provider.token_url).await?;
    tokens(&answer, &[client_secret, refresh_token])
}

/// Revokes a token (RFC 7009). One that the provider does not know is revoked.
pub async fn revoke(
    outbound: &Outbound,
    provider: &Provider,
    client_secret: &str,
    url: &str,
    token: (&str, &str),
) -> Result<(), TokenError> {
    let (hint, value) = token;
    let form = Form {
        provider,
        client_secret,
        fields: vec![("token", value), ("token_type_hint", hint)],
    };
    let answer = form.post(outbound, url).await?;
    match answer.status {
        200..=299 => Ok(()),
        _ => Err(refusal(&answer, &[client_secret, value])),
    }
}

#[derive(Deserialize)]
struct Reply {
    access_token: Option<Zeroizing<String>>,
    token_type: Option<String>,
    /// A number; of some providers, a text of one.
    expires_in: Option<Value>,
    refresh_token: Option<Zeroizing<String>>,
    error: Option<String>,
    error_description: Option<String>,
}

fn tokens(answer: &Answer, secrets: &[&str]) -> Result<Tokens, TokenError> {
    if !(200..=299).contains(&answer.status) {
        return Err(refusal(answer, secrets));
    }
    let unusable =
        |what: &str| TokenError::Unusable(format!("the provider's answer holds no tokens: {what}"));
    // What serde says of a text repeats it.
    let reply: Reply = serde_json::from_slice(&answer.body).map_err(|_| {
        unusable("it is not JSON, or its fields have other types than RFC 6749 says")
    })?;
    if reply.error.is_some() {
        return Err(said(&reply, secrets));
    }
    let is_bearer = reply
        .token_type
        .is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
    if !is_bearer {
        return Err(unusable("its token_type is not Bearer"));
    }
    let access_token = reply
        .access_token
        .ok_or_else(|| unusable("there is no access_token"))?;
    for token in std::iter::once(&access_token).chain(&reply.refresh_token) {
        if token.is_empty() || token.len() > VALUE_BYTES_MAX {
            return Err(unusable("a token is empty, or too long"));
        }
        if !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(unusable("a token holds characters that none has"));
        }
    }
    if secrets.contains(&access_token.as_str()) {
        return Err(unusable("its access_token is what it was sent"));
    }
    Ok(Tokens {
        access_token,
        refresh_token: reply.refresh_token,
        lifetime: lifetime(reply.expires_in.as_ref())
            .ok_or_else(|| unusable("its expires_in is not a number of seconds"))?,
    })
}

/// `Some(None)` where nothing is said; `None` where what is said means nothing.
fn lifetime(expires_in: Option<&Value>) -> Option<Option<Duration>> {
    let seconds = match expires_in {
        None | Some(Value::Null) => return Some(None),
        Some(Value::Number(number)) => number
            .as_u64()
            .or_else(|| number.as_f64().filter(|n| *n >= 1.0).map(|n| n as u64))?,
        Some(Value::String(text)) => text.parse().ok()?,
        Some(_) => return None,
    };
    (seconds > 0).then(|| Some(Duration::from_secs(seconds.min(LIFETIME_SECONDS_MAX))))
}

fn refusal(answer: &Answer, secrets: &[&str]) -> TokenError {
    if answer.status >= 500 || answer.status == 429 {
        return TokenError::Away(format!("the provider answers {}", answer.status));
    }
    match serde_json::from_slice::<Reply>(&answer.body) {
        Ok(reply) if reply.error.is_some() => said(&reply, secrets),
        _ => TokenError::Unusable(format!(
            "the provider answers {}, and says nothing that RFC 6749 knows",
            answer.status
        )),
    }
}

fn said(reply: &Reply, secrets: &[&str]) -> TokenError {
    let error = reply.error.as_deref().unwrap_or_default();
    let said = in_its_words(error, reply.error_description.as_deref(), secrets);
    // A code is compared, and shown only as part of what is said.
    let code = if said.contains(error) { error } else { "" };
    TokenError::Refused {
        code: code.to_owned(),
        said,
    }
}

/// What a provider says, as it may be shown: of a limited length, without control characters, and not at all where it
/// holds a secret, however spelled.
pub fn in_its_words(error: &str, description: Option<&str>, secrets: &[&str]) -> String {
    let whole = match description {
        Some(description) => format!("{error}: {description}"),
        None => error.to_owned(),
    };
    if secrets.iter().any(|secret| holds(&whole, secret)) {
        return "(its words repeat a secret, and are not shown)".to_owned();
    }
    let shown = whole.chars().map(|c| if c.is_control() { ' ' } else { c });
    shown.take(SAID_CHARS_MAX).collect()
}

fn holds(text: &str, secret: &str) -> bool {
    if secret.chars().count() < SECRET_CHARS_MIN {
        return false;
    }
    let bytes = secret.as_bytes();
    let text = text.to_ascii_lowercase();
    let json = Value::String(secret.to_owned()).to_string();
    [
        secret.to_owned(),
        encoded(secret),
        encoded(secret).replace('+', "%20"),
        json.trim_matches('"').to_owned(),
        BASE64_STANDARD_NO_PAD.encode(bytes),
        BASE64_STANDARD.encode(bytes),
        BASE64_URL_SAFE.encode(bytes),
        BASE64_URL_SAFE_NO_PAD.encode(bytes),
        hex::encode(bytes),
    ]
    .iter()
    .any(|form| text.contains(&form.to_ascii_lowercase()))
}

/// What a provider says of itself (RFC 8414; OpenID Connect Discovery 1.0).
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    revocation_endpoint: Option<String>,
    #[serde(default)]
    code_challenge_methods_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// The endpoints of an issuer in the place of those that a plugin names.
///
/// # Errors
/// Says why they cannot be had, or not be used.
pub async fn discover(
    outbound: &Outbound,
    issuer: &str,
    provider: &Provider,
) -> Result<Provider, String> {
    let url = Url::parse(issuer).map_err(|e| format!("is not a URL: {e}"))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or a fragment, which an issuer has not".to_owned());
    }
    outbound
        .check(&url)
        .map_err(|e| format!("is refused: {e}"))?;
    let mut last = String::new();
    for place in well_known(&url) {
        match outbound.get(&place).await {
            Ok(answer) if answer.status == 200 => {
                let metadata: Metadata = serde_json::from_slice(&answer.body).map_err(|e| {
                    format!("describes itself in a way that RFC 8414 does not know: {e}")
                })?;
                return taken(outbound, issuer, metadata, provider);
            }
            Ok(answer) => last = format!("answers {} at {}", answer.status, place.path()),
            Err(error) => last = format!("does not describe itself: {error}"),
        }
    }
    Err(last)
}

/// RFC 8414, 3.1, and what OpenID Connect has had before.
fn well_known(issuer: &Url) -> [Url; 2] {
    let path = issuer.path().trim_end_matches('/');
    let at = |path: String| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url
    };
    [
        at(format!("/.well-known/oauth-authorization-server{path}")),
        at(format!("{path}/.well-known/openid-configuration")),
    ]
}

fn taken(
    outbound: &Outbound,
    issuer: &str,
    metadata: Metadata,
    provider: &Provider,
) -> Result<Provider, String> {
    if metadata.issuer != issuer {
        return Err(
            "describes itself under another name; give the issuer exactly as it names itself"
                .to_owned(),
        );
    }
    let methods = &metadata.code_challenge_methods_supported;
    if !methods.iter().any(|method| method == "S256") {
        return Err("does not take PKCE with S256, without which codes can be stolen".to_owned());
    }
    for endpoint in [&metadata.authorization_endpoint, &metadata.token_endpoint]
        .into_iter()
        .chain(&metadata.revocation_endpoint)
    {
        let url = Url::parse(endpoint).map_err(|_| "names an endpoint that is not a URL")?;
        outbound
            .check(&url)
            .map_err(|e| format!("names an endpoint that is refused: {e}"))?;
    }
    let takes = |method: &str| match &metadata.token_endpoint_auth_methods_supported {
        Some(methods) => methods.iter().any(|m| m == method),
        None => method == "client_secret_basic",
    };
    let client_authentication = match (takes("client_secret_basic"), takes("client_secret_post")) {
        (true, false) => Authentication::Basic,
        (false, true) => Authentication::Body,
        _ => provider.client_authentication,
    };
    Ok(Provider {
        issuer: Some(metadata.issuer),
        iss_required: metadata.authorization_response_iss_parameter_supported,
        authorize_url: metadata.authorization_endpoint,
        token_url: metadata.token_endpoint,
        revoke_url: metadata.revocation_endpoint,
        client_authentication,
        ..provider.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECRET: &str = "s3cret/of the client";

    fn answered(status: u16, body: impl ToString) -> Result<Tokens, TokenError> {
        let body = Zeroizing::new(body.to_string().into_bytes());
        tokens(&Answer { status, body }, &[SECRET])
    }

    fn why(status: u16, body: impl ToString) -> TokenError {
        match answered(status, body) {
            Ok(_) => panic!("it was taken"),
            Err(error) => error,
        }
    }

    fn good() -> Value {
        json!({ "access_token": "at", "token_type": "bearer", "expires_in": 3600, "refresh_token": "rt", "more": [1] })
    }

    #[test]
    fn a_good_answer_is_taken() {
        let tokens = answered(200, good()).unwrap();
        assert_eq!(tokens.access_token.as_str(), "at");
        assert_eq!(tokens.refresh_token.unwrap().as_str(), "rt");
        assert_eq!(tokens.lifetime, Some(Duration::from_secs(3600)));
        for (given, seconds) in [
            (json!("60"), 60),
            (json!(59.9), 59),
            (json!(u64::MAX), LIFETIME_SECONDS_MAX),
        ] {
            let mut body = good();
            body["expires_in"] = given;
            let tokens = answered(200, body).unwrap();
            assert_eq!(tokens.lifetime, Some(Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn what_holds_no_tokens_is_refused_and_repeated_nowhere() {
        let changed = |name: &str, value: Value| {
            let mut body = good();
            body[name] = value;
            body.to_string()
        };
        for body in [
            "<html>canary</html>".to_owned(),
            "[]".to_owned(),
            "\"canary\"".to_owned(),
            String::new(),
            changed("access_token", json!(["canary"])),
            changed("access_token", json!({ "canary": 1 })),
            changed("access_token", json!("")),
            changed("access_token", json!("can\nary")),
            changed("access_token", json!("canary".repeat(VALUE_BYTES_MAX))),
            changed("access_token", json!(SECRET)),
            changed("access_token", Value::Null),
            changed("refresh_token", json!("can ary\u{7f}")),
            changed("refresh_token", json!(7)),
            changed("token_type", json!("mac canary")),
            changed("token_type", Value::Null),
            changed("expires_in", json!(-1)),
            changed("expires_in", json!(0)),
            changed("expires_in", json!("canary")),
            changed("expires_in", json!([1])),
        ] {
            let error = why(200, &body);
            assert!(matches!(error, TokenError::Unusable(_)), "{body}: {error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_refusal_is_shown_in_the_providers_words_unless_they_repeat_a_secret() {
        let refused =
            json!({ "error": "invalid_grant", "error_description": "It is\u{7} <b>over</b>" });
        for status in [400, 401, 403, 200] {
            let error = why(status, &refused);
            assert!(error.is_final());
            assert!(
                error
                    .to_string()
                    .ends_with("invalid_grant: It is  <b>over</b>"),
                "{error}"
            );
        }
        let long = json!({ "error": "e", "error_description": "x".repeat(5000) });
        assert!(why(400, long).to_string().len() < 400);
        for form in [
            SECRET.to_owned(),
            encoded(SECRET),
            SECRET.replace(' ', "%20").replace('/', "%2f"),
            BASE64_STANDARD.encode(SECRET),
            hex::encode(SECRET).to_uppercase(),
        ] {
            for echo in [
                json!({ "error": "e", "error_description": format!("bad {form}!") }),
                json!({ "error": format!("bad {form}") }),
            ] {
                let error = format!("{:?}", why(400, echo));
                assert!(!error.contains(&form), "{error}");
            }
        }
    }

    #[test]
    fn what_is_away_is_told_from_what_refuses() {
        assert!(matches!(why(503, "x"), TokenError::Away(_)));
        assert!(matches!(why(429, good()), TokenError::Away(_)));
        assert!(matches!(why(302, good()), TokenError::Unusable(_)));
        assert!(matches!(why(400, "<html>"), TokenError::Unusable(_)));
    }

    #[test]
    fn an_issuer_with_a_path_is_asked_where_the_standards_say() {
        let places = well_known(&Url::parse("https://idp.example/realms/a").unwrap());
        assert_eq!(
            places.map(|url| url.to_string()),
            [
                "https://idp.example/.well-known/oauth-authorization-server/realms/a",
                "https://idp.example/realms/a/.well-known/openid-configuration"
            ]
        );
    }

    #[test]
    fn what_an_issuer_says_of_itself_is_held_against_the_rules() {
        let outbound = Outbound::new(&[]).unwrap();
        let provider = Provider {
            issuer: None,
            iss_required: false,
            authorize_url: "https://plugin.example/a".into(),
            token_url: "https://plugin.example/t".into(),
            revoke_url: None,
            client_authentication: Authentication::Body,
            client_id: String::new(),
            client_id_key: "client_id".into(),
            client_secret_key: None,
        };
        let good = json!({
            "issuer": "https://idp.example", "authorization_endpoint": "https://idp.example/a",
            "token_endpoint": "https://idp.example/t", "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
        });
        let take = |body: &Value| {
            let metadata = serde_json::from_value(body.clone()).unwrap();
            taken(&outbound, "https://idp.example", metadata, &provider)
        };
        let found = take(&good).unwrap();
        assert!(found.iss_required);
        assert_eq!(found.client_authentication, Authentication::Basic);
        for (name, value, told) in [
            ("issuer", json!("https://idp.example/"), "another name"),
            ("code_challenge_methods_supported", json!(["plain"]), "PKCE"),
            ("code_challenge_methods_supported", json!([]), "PKCE"),
            ("token_endpoint", json!("http://idp.example/t"), "refused"),
            ("token_endpoint", json!("https://10.0.0.1/t"), "refused"),
            (
                "revocation_endpoint",
                json!("https://localhost.:x/"),
                "not a URL",
            ),
        ] {
            let mut body = good.clone();
            body[name] = value;
            let why = take(&body).unwrap_err();
            assert!(why.contains(told), "{name}: {why}");
        }
    }
}
