//! From what a plugin asks for to what leaves: credentials put in, the place checked, and the same request with
//! references, whose digest the journal keeps.

use crate::{outbound, vault::Opened};
use base64::{Engine, prelude::BASE64_STANDARD};
use memchr::memmem::Finder;
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tsunami_openclaw::bridge::{HttpRequest, PrivateNetwork};
use tsunami_plugin_host::{
    adapter::{self, Manifest, Method},
    host_allowed,
    types::{Operand, Part},
};
use url::Url;
use zeroize::Zeroizing;

/// Headers that the instance sets, or that would change where a request goes.
const HEADERS_RESERVED: [&str; 6] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "proxy-authorization",
];
/// Headers of one request.
const HEADERS_MAX: usize = 64;
/// Fields of one `multipart/form-data` body.
const FORM_FIELDS_MAX: usize = 64;

/// Where requests of this call may go, and with what.
pub struct Place<'a> {
    pub manifest: &'a Manifest,
    pub settings: &'a Value,
    /// `host` or `host:port` on a private network that the operator allows.
    pub private_hosts: &'a [String],
    pub credentials: &'a [Opened],
    /// Of other actions of the skill. They are put into nothing; a service that shows one knows it from another call.
    pub kept_back: &'a [Opened],
}

/// A request that may leave.
pub struct Rendered {
    pub request: HttpRequest,
    /// Over the request with references in the place of credentials; SHA-256 in hexadecimal.
    pub digest: String,
    /// As it may be shown.
    pub shown: Value,
    /// Everything that must not come back.
    pub secrets: Vec<Zeroizing<String>>,
    pub private_network: PrivateNetwork,
}

/// How a credential is written where it stands.
#[derive(Clone, Copy)]
enum Encoding {
    Percent,
    Json,
    Plain,
}

/// A text twice: as it leaves, and as it may be shown.
#[derive(Default)]
struct Text {
    real: Zeroizing<String>,
    shown: String,
}

impl Text {
    fn plain(text: &str) -> Self {
        Self {
            real: Zeroizing::new(text.to_owned()),
            shown: text.to_owned(),
        }
    }
}

/// A body likewise. Bytes that are no text are shown by their length and SHA-256.
#[derive(Default)]
struct Content {
    content_type: String,
    real: Zeroizing<Vec<u8>>,
    shown: String,
}

impl Content {
    fn push(&mut self, text: &Text) {
        self.real.extend_from_slice(text.real.as_bytes());
        self.shown.push_str(&text.shown);
    }
    fn push_plain(&mut self, text: &str) {
        self.real.extend_from_slice(text.as_bytes());
        self.shown.push_str(text);
    }
    fn push_bytes(&mut self, bytes: &[u8]) {
        self.real.extend_from_slice(bytes);
        let digest = hex::encode(Sha256::digest(bytes));
        self.shown
            .push_str(&format!("{{{{{} bytes, sha256 {digest}}}}}", bytes.len()));
    }
}

pub fn render(wanted: &adapter::Request, place: &Place<'_>) -> Result<Rendered, String> {
    let known = place.credentials.iter().chain(place.kept_back);
    let mut pen = Pen {
        credentials: place.credentials,
        // All of them, whatever this request names: the service may know them from an earlier one.
        secrets: known.map(|opened| opened.value.clone()).collect(),
    };
    let url = pen.url(wanted)?;
    let private_network = place.check(&url)?;
    let mut headers = Vec::new();
    for field in &wanted.headers {
        headers.push((field.name.clone(), pen.header(field)?));
    }
    let body = wanted
        .body
        .as_ref()
        .map(|body| pen.body(body))
        .transpose()?;
    if let Some(body) = &body {
        headers.push(("content-type".to_owned(), Text::plain(&body.content_type)));
    }
    if headers.len() > HEADERS_MAX {
        return Err(format!(
            "the plugin sets {} headers; a request may have {HEADERS_MAX}",
            headers.len()
        ));
    }
    let shown = json!({
        "method": method(wanted.method),
        "url": url.shown,
        "headers": headers.iter().map(|(name, value)| json!([name, value.shown])).collect::<Vec<_>>(),
        "body": body.as_ref().map(|body| body.shown.clone()),
    });
    Ok(Rendered {
        digest: hex::encode(Sha256::digest(shown.to_string())),
        request: HttpRequest {
            method: method(wanted.method).to_owned(),
            url: secret(url.real),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name, secret(value.real)))
                .collect(),
            body: body.map(|mut body| std::mem::take(&mut *body.real).into()),
        },
        shown,
        secrets: pen.secrets,
        private_network,
    })
}

fn secret(mut text: Zeroizing<String>) -> SecretString {
    std::mem::take(&mut *text).into()
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Patch => "PATCH",
        Method::Delete => "DELETE",
    }
}

struct Pen<'a> {
    credentials: &'a [Opened],
    secrets: Vec<Zeroizing<String>>,
}

impl Pen<'_> {
    fn value(&self, key: &str) -> Result<Zeroizing<String>, String> {
        let opened = self
            .credentials
            .iter()
            .find(|c| c.key == key)
            .ok_or_else(|| {
                format!(
                    "the plugin asks for the credential `{key}`, which its action does not name"
                )
            })?;
        Ok(opened.value.clone())
    }

    fn text(&mut self, parts: &[Part], encoding: Encoding) -> Result<Text, String> {
        let mut text = Text::default();
        for part in parts {
            match part {
                Part::Text(literal) => {
                    text.real.push_str(literal);
                    text.shown.push_str(literal);
                }
                Part::Bytes(_) => {
                    return Err("the plugin puts bytes where only text may stand".to_owned());
                }
                Part::Credential(key) => {
                    let value = self.value(key)?;
                    text.real.push_str(&encode(&value, encoding));
                    text.shown.push_str(&format!("{{{{{key}}}}}"));
                }
                Part::Basic(auth) => {
                    let (user, user_shown) = self.operand(&auth.username)?;
                    let (password, password_shown) = self.operand(&auth.password)?;
                    let pair = Zeroizing::new(format!("{}:{}", user.as_str(), password.as_str()));
                    let encoded = Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()));
                    text.real.push_str(&encoded);
                    self.secrets.push(encoded);
                    text.shown
                        .push_str(&format!("{{{{basic {user_shown}:{password_shown}}}}}"));
                }
            }
        }
        Ok(text)
    }

    fn operand(&mut self, operand: &Operand) -> Result<(Zeroizing<String>, String), String> {
        match operand {
            Operand::Text(text) => Ok((Zeroizing::new(text.clone()), text.clone())),
            Operand::Credential(key) => Ok((self.value(key)?, key.clone())),
        }
    }

    fn url(&mut self, wanted: &adapter::Request) -> Result<Text, String> {
        let mut url = self.text(&wanted.url, Encoding::Percent)?;
        for field in &wanted.query {
            let joiner = if url.shown.contains('?') { '&' } else { '?' };
            let name = percent(&field.name);
            // Literal text of a query is data too, and is encoded as such.
            let parts: Vec<Part> = field
                .value
                .iter()
                .map(|part| match part {
                    Part::Text(text) => Part::Text(percent(text)),
                    other => other.clone(),
                })
                .collect();
            let value = self.text(&parts, Encoding::Percent)?;
            url.real.push_str(&format!("{joiner}{name}="));
            url.real.push_str(&value.real);
            url.shown
                .push_str(&format!("{joiner}{name}={}", value.shown));
        }
        Ok(url)
    }

    fn header(&mut self, field: &adapter::Field) -> Result<Text, String> {
        let name = field.name.to_ascii_lowercase();
        let token = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        if !token || HEADERS_RESERVED.contains(&name.as_str()) {
            return Err(format!(
                "the plugin sets the header `{}`, which it may not",
                field.name.escape_default()
            ));
        }
        let value = self.text(&field.value, Encoding::Plain)?;
        if value.real.chars().any(|c| c.is_control() && c != '\t') {
            return Err(format!(
                "the value of the header `{}` holds a control character; if it is a credential, store it anew without line breaks",
                field.name
            ));
        }
        Ok(value)
    }

    fn body(&mut self, body: &adapter::Body) -> Result<Content, String> {
        match body {
            adapter::Body::Content(content) => {
                let mut out = Content {
                    content_type: content_type(&content.content_type)?.to_owned(),
                    ..Content::default()
                };
                self.parts(&content.parts, encoding_of(&content.content_type), &mut out)?;
                Ok(out)
            }
            adapter::Body::Form(fields) => self.form(fields),
        }
    }

    fn parts(
        &mut self,
        parts: &[Part],
        encoding: Encoding,
        out: &mut Content,
    ) -> Result<(), String> {
        for part in parts {
            match part {
                Part::Bytes(bytes) => out.push_bytes(bytes),
                part => out.push(&self.text(std::slice::from_ref(part), encoding)?),
            }
        }
        Ok(())
    }

    /// `multipart/form-data` (RFC 7578). The boundary follows from the content, so that a request that is made again
    /// is the same, and stands nowhere in it.
    fn form(&mut self, fields: &[adapter::FormField]) -> Result<Content, String> {
        if fields.len() > FORM_FIELDS_MAX {
            return Err(format!(
                "the plugin fills in {} form fields; a request may have {FORM_FIELDS_MAX}",
                fields.len()
            ));
        }
        let mut written = Vec::new();
        let mut digest = Sha256::new();
        for field in fields {
            let mut head = format!(
                "Content-Disposition: form-data; name=\"{}\"",
                quoted(&field.name)
            );
            if let Some(name) = &field.file_name {
                head.push_str(&format!("; filename=\"{}\"", quoted(name)));
            }
            if let Some(kind) = &field.content_type {
                head.push_str(&format!("\r\nContent-Type: {}", content_type(kind)?));
            }
            let mut content = Content::default();
            self.parts(&field.parts, Encoding::Plain, &mut content)?;
            digest.update(head.as_bytes());
            digest.update(content.shown.as_bytes());
            written.push((head, content));
        }
        let mut boundary = format!("tsunami-{}", &hex::encode(digest.finalize())[..32]);
        while written
            .iter()
            .any(|(_, content)| contains(&content.real, boundary.as_bytes()))
        {
            boundary.push('-');
        }
        let mut out = Content {
            content_type: format!("multipart/form-data; boundary={boundary}"),
            ..Content::default()
        };
        for (head, content) in &written {
            out.push_plain(&format!("--{boundary}\r\n{head}\r\n\r\n"));
            out.real.extend_from_slice(&content.real);
            out.shown.push_str(&content.shown);
            out.push_plain("\r\n");
        }
        out.push_plain(&format!("--{boundary}--\r\n"));
        Ok(out)
    }
}

fn content_type(text: &str) -> Result<&str, String> {
    match text.chars().any(char::is_control) || !text.contains('/') {
        true => Err(format!(
            "the plugin sets the content type `{}`, which is none",
            text.escape_default()
        )),
        false => Ok(text),
    }
}

fn encoding_of(content_type: &str) -> Encoding {
    let kind = content_type.split(';').next().unwrap_or_default();
    match kind.trim().to_ascii_lowercase().as_str() {
        "application/x-www-form-urlencoded" => Encoding::Percent,
        kind if kind == "application/json" || kind.ends_with("+json") => Encoding::Json,
        _ => Encoding::Plain,
    }
}

/// A name within quotation marks in a form's header, escaped as the HTML standard has it for `multipart/form-data`.
fn quoted(name: &str) -> String {
    name.replace('\r', "%0D")
        .replace('\n', "%0A")
        .replace('"', "%22")
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}

fn encode(value: &str, encoding: Encoding) -> Zeroizing<String> {
    Zeroizing::new(match encoding {
        Encoding::Percent => percent(value),
        Encoding::Json => {
            let quoted = Zeroizing::new(Value::from(value).to_string());
            quoted[1..quoted.len() - 1].to_owned()
        }
        Encoding::Plain => value.to_owned(),
    })
}

fn is_url_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c)
}

/// Everything but the unreserved characters of RFC 3986.
fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

impl Place<'_> {
    /// Whether the request may go where it is going; and whether that is on a private network.
    fn check(&self, url: &Text) -> Result<PrivateNetwork, String> {
        // URL parsers agree about RFC 3986; about a backslash or a line break, they do not.
        if let Some(odd) = url.real.chars().find(|c| !is_url_character(*c)) {
            return Err(format!(
                "the plugin's URL holds {odd:?}, which RFC 3986 does not allow there; it has to be percent-encoded"
            ));
        }
        // A credential must not decide where a request goes: with and without them it is the same host.
        let plain = Url::parse(&url.shown.replace("{{", "x").replace("}}", "x"))
            .map_err(|e| format!("the plugin's URL {} is not one: {e}", url.shown))?;
        let real = Url::parse(&url.real)
            .map_err(|_| "the URL is not one once the credentials are in it".to_owned())?;
        if (plain.scheme(), plain.host_str(), plain.port())
            != (real.scheme(), real.host_str(), real.port())
        {
            return Err("a credential stands in the host part of the plugin's URL".to_owned());
        }
        if !real.username().is_empty() || real.password().is_some() {
            return Err("the plugin's URL holds user info".to_owned());
        }
        let host = real
            .host_str()
            .ok_or("the plugin's URL names no host")?
            .to_ascii_lowercase();
        let at = match real.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        let declared = real.port().is_none()
            && self
                .manifest
                .hosts
                .iter()
                .any(|pattern| host_allowed(pattern, &host));
        if !declared && !self.set_hosts().contains(&at) {
            return Err(format!(
                "the plugin asks for a request to {at}, which it did not declare"
            ));
        }
        let private = outbound::is_listed(self.private_hosts, &real);
        if real.scheme() != "https" && !(real.scheme() == "http" && private) {
            return Err(format!(
                "the plugin asks for {} to {at}; only https is allowed (an operator may allow a private host by skills.private_network_hosts)",
                real.scheme()
            ));
        }
        Ok(if private {
            PrivateNetwork::Allow
        } else {
            PrivateNetwork::Refuse
        })
    }

    /// Hosts, with their ports, of the settings that the manifest points at.
    fn set_hosts(&self) -> Vec<String> {
        let values = self
            .manifest
            .host_settings
            .iter()
            .filter_map(|pointer| self.settings.pointer(pointer)?.as_str());
        values
            .filter_map(|text| Url::parse(text).ok())
            .filter_map(|url| {
                let host = url.host_str()?.to_ascii_lowercase();
                Some(
                    url.port()
                        .map_or_else(|| host.clone(), |port| format!("{host}:{port}")),
                )
            })
            .collect()
    }
}

/// Takes secrets out of what came back, once more: the instance has done it already.
pub struct Mask(Vec<Finder<'static>>);

impl Mask {
    /// What shorter texts than this would take out is not worth it.
    const SECRET_BYTES_MIN: usize = 4;

    pub fn of(secrets: &[Zeroizing<String>]) -> Self {
        let mut looked_for: Vec<Vec<u8>> = Vec::new();
        let long = |secret: &&Zeroizing<String>| secret.len() >= Self::SECRET_BYTES_MIN;
        for form in secrets.iter().filter(long).flat_map(|s| forms(s)) {
            if !looked_for.contains(&form) {
                looked_for.push(form);
            }
        }
        let finder = |form: Vec<u8>| Finder::new(&form).into_owned();
        Self(looked_for.into_iter().map(finder).collect())
    }

    pub fn apply(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for form in &self.0 {
            if form.find(&bytes).is_some() {
                bytes = replaced(&bytes, form);
            }
        }
        bytes
    }
}

fn forms(secret: &str) -> [Vec<u8>; 10] {
    let unit = |unit: u16| [unit.to_le_bytes(), unit.to_be_bytes()];
    let wide = |at: usize| {
        secret
            .encode_utf16()
            .flat_map(move |u| unit(u)[at])
            .collect()
    };
    // As somebody has UTF-16 who takes it for something else.
    let apart = |before: &str, after: &str| {
        let mut all = String::with_capacity(2 * secret.len());
        for c in secret.chars() {
            all.push_str(before);
            all.push(c);
            all.push_str(after);
        }
        encode(&all, Encoding::Json).to_string().into_bytes()
    };
    [
        secret.as_bytes().to_vec(),
        percent(secret).into_bytes(),
        encode(secret, Encoding::Json).to_string().into_bytes(),
        BASE64_STANDARD.encode(secret).into_bytes(),
        hex::encode(secret).into_bytes(),
        hex::encode_upper(secret).into_bytes(),
        wide(0),
        wide(1),
        apart("", "\0"),
        apart("\0", ""),
    ]
}

fn replaced(bytes: &[u8], secret: &Finder<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = 0;
    for at in secret.find_iter(bytes) {
        out.extend_from_slice(&bytes[rest..at]);
        out.extend_from_slice(b"[redacted]");
        rest = at + secret.needle().len();
    }
    out.extend_from_slice(&bytes[rest..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use tsunami_plugin_host::types::BasicAuth;

    fn manifest() -> Manifest {
        Manifest {
            skill: "s".into(),
            about: tsunami_plugin_host::types::About {
                title: "S".into(),
                summary: "S".into(),
                version: "1.0.0".into(),
                licence: "MIT".into(),
                categories: vec!["test".into()],
                homepage: None,
                readme: String::new(),
            },
            actions: vec![],
            hosts: vec!["api.example.com".into(), "*.tenant.example".into()],
            host_settings: vec!["/base_url".into()],
            settings_schema: "{}".into(),
        }
    }

    fn opened() -> Vec<Opened> {
        vec![Opened {
            key: "token".into(),
            value: Zeroizing::new("s3cret/\"+é".into()),
            mask: "token:****".into(),
        }]
    }

    fn text(t: &str) -> Vec<Part> {
        vec![Part::Text(t.into())]
    }

    fn get(url: Vec<Part>) -> adapter::Request {
        adapter::Request {
            method: Method::Get,
            url,
            query: vec![],
            headers: vec![],
            body: None,
        }
    }

    fn rendered(
        request: &adapter::Request,
        settings: &Value,
        private: &[String],
    ) -> Result<Rendered, String> {
        render(
            request,
            &Place {
                manifest: &manifest(),
                settings,
                private_hosts: private,
                credentials: &opened(),
                kept_back: &[],
            },
        )
    }

    fn allowed(url: &str) -> bool {
        rendered(&get(text(url)), &json!({}), &[]).is_ok()
    }

    #[test]
    fn a_request_goes_to_declared_hosts_only() {
        assert!(allowed("https://api.example.com/x"));
        assert!(allowed("https://acme.tenant.example/x"));
        for url in [
            "http://api.example.com/",
            "https://api.example.com:8443/",
            "https://api.example.com.evil.example/",
            "https://evil.example/api.example.com",
            "https://api.example.com@evil.example/",
            "https://user:pass@api.example.com/",
            "https://a.b.tenant.example/",
            "https://api.example.com\\@evil.example/",
            "https://аpi.example.com/",
            "//api.example.com/",
            "/relative",
            "file:///etc/passwd",
            "https://127.0.0.1/",
        ] {
            assert!(!allowed(url), "{url}");
        }
    }

    #[test]
    fn a_setting_may_name_another_host_and_the_operator_a_private_one() {
        let settings = json!({ "base_url": "http://127.0.0.1:9000/api" });
        let request = get(text("http://127.0.0.1:9000/api/x"));
        assert!(
            rendered(&request, &settings, &[]).is_err(),
            "the operator did not allow it"
        );
        let private = ["127.0.0.1:9000".to_owned()];
        assert_eq!(
            rendered(&request, &settings, &private)
                .unwrap()
                .private_network,
            PrivateNetwork::Allow
        );
        assert!(
            rendered(&get(text("http://127.0.0.1:9001/")), &settings, &private).is_err(),
            "another port"
        );
        let public = rendered(&get(text("https://api.example.com/")), &settings, &private).unwrap();
        assert_eq!(public.private_network, PrivateNetwork::Refuse);
    }

    #[test]
    fn a_credential_is_encoded_for_where_it_stands() {
        let mut request = get(vec![
            Part::Text("https://api.example.com/bot".into()),
            Part::Credential("token".into()),
        ]);
        request.query = vec![adapter::Field {
            name: "q".into(),
            value: vec![Part::Text("a&b=".into()), Part::Credential("token".into())],
        }];
        request.body = Some(adapter::Body::Content(adapter::Content {
            content_type: "application/json".into(),
            parts: vec![
                Part::Text("{\"t\":\"".into()),
                Part::Credential("token".into()),
                Part::Text("\"}".into()),
            ],
        }));
        let out = rendered(&request, &json!({}), &[]).unwrap();
        assert_eq!(
            out.request.url.expose_secret(),
            "https://api.example.com/bots3cret%2F%22%2B%C3%A9?q=a%26b%3Ds3cret%2F%22%2B%C3%A9"
        );
        let body = out.request.body.unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(body.expose_secret()).unwrap()["t"],
            "s3cret/\"+é"
        );
        assert!(!out.shown.to_string().contains("s3cret"));
        assert_eq!(out.secrets.len(), 1);
    }

    #[test]
    fn a_form_carries_files_as_they_are_and_nothing_in_it_ends_a_part() {
        let field = |name: &str, file: Option<&str>, parts| adapter::FormField {
            name: name.into(),
            file_name: file.map(Into::into),
            content_type: file.map(|_| "application/octet-stream".into()),
            parts,
        };
        let fields = vec![
            field("a\"\r\nx: y", None, text("1\r\n--")),
            field("f", Some("b.bin"), vec![Part::Bytes(vec![0, 255, 13, 10])]),
        ];
        let mut request = get(text("https://api.example.com/"));
        request.body = Some(adapter::Body::Form(fields));
        let (first, again) = (
            rendered(&request, &json!({}), &[]).unwrap(),
            rendered(&request, &json!({}), &[]).unwrap(),
        );
        assert_eq!(first.digest, again.digest);
        let kind = first.request.headers[0].1.expose_secret().to_owned();
        let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap();
        let body = first.request.body.unwrap();
        let expected = [
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"a%22%0D%0Ax: y\"\r\n\r\n1\r\n--\r\n").into_bytes(),
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"f\"; filename=\"b.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n").into_bytes(),
            vec![0, 255, 13, 10],
            format!("\r\n--{boundary}--\r\n").into_bytes(),
        ]
        .concat();
        assert_eq!(body.expose_secret(), expected);
        assert!(
            first.shown["body"]
                .as_str()
                .unwrap()
                .contains("4 bytes, sha256")
        );
    }

    #[test]
    fn bytes_stand_in_bodies_only() {
        let mut request = get(text("https://api.example.com/"));
        request.headers = vec![adapter::Field {
            name: "x".into(),
            value: vec![Part::Bytes(b"a".to_vec())],
        }];
        assert!(rendered(&request, &json!({}), &[]).is_err());
    }

    #[test]
    fn basic_authentication_is_a_secret_too() {
        let auth = BasicAuth {
            username: Operand::Text("x".into()),
            password: Operand::Credential("token".into()),
        };
        let mut request = get(text("https://api.example.com/"));
        request.headers = vec![adapter::Field {
            name: "Authorization".into(),
            value: vec![Part::Text("Basic ".into()), Part::Basic(auth)],
        }];
        let out = rendered(&request, &json!({}), &[]).unwrap();
        let encoded = BASE64_STANDARD.encode("x:s3cret/\"+é");
        assert_eq!(
            out.request.headers[0].1.expose_secret(),
            format!("Basic {encoded}")
        );
        assert!(out.secrets.iter().any(|s| s.as_str() == encoded));
        assert!(!out.shown.to_string().contains(&encoded));
    }

    #[test]
    fn what_a_plugin_may_not_ask_for_is_refused() {
        let header = |name: &str, value: &str| {
            let mut request = get(text("https://api.example.com/"));
            request.headers = vec![adapter::Field {
                name: name.into(),
                value: text(value),
            }];
            rendered(&request, &json!({}), &[]).is_err()
        };
        assert!(header("x", "a\r\nhost: evil.example"));
        assert!(header("Host", "evil.example"));
        assert!(header("x y", "z"));
        assert!(
            rendered(
                &get(vec![
                    Part::Text("https://api.example.com/".into()),
                    Part::Credential("other".into())
                ]),
                &json!({}),
                &[]
            )
            .is_err()
        );
        assert!(
            rendered(
                &get(vec![
                    Part::Text("https://".into()),
                    Part::Credential("token".into()),
                    Part::Text(".example.com/".into())
                ]),
                &json!({}),
                &[]
            )
            .is_err()
        );
    }

    #[test]
    fn a_credential_is_looked_for_in_replies_to_requests_that_do_not_name_it() {
        let earlier = [Opened {
            key: "of_another_action".into(),
            value: Zeroizing::new("stored there before".into()),
            mask: String::new(),
        }];
        let place = Place {
            manifest: &manifest(),
            settings: &json!({}),
            private_hosts: &[],
            credentials: &opened(),
            kept_back: &earlier,
        };
        let out = render(&get(text("https://api.example.com/")), &place).unwrap();
        let secrets: Vec<_> = out.secrets.iter().map(|s| s.as_str()).collect();
        assert_eq!(secrets, ["s3cret/\"+é", "stored there before"]);
        let named = get(vec![
            Part::Text("https://api.example.com/".into()),
            Part::Credential("of_another_action".into()),
        ]);
        assert!(render(&named, &place).is_err(), "it is put into nothing");
    }

    #[test]
    fn the_digest_does_not_depend_on_the_credential() {
        let request = get(vec![
            Part::Text("https://api.example.com/".into()),
            Part::Credential("token".into()),
        ]);
        let first = rendered(&request, &json!({}), &[]).unwrap();
        let other = vec![Opened {
            key: "token".into(),
            value: Zeroizing::new("rotated".into()),
            mask: String::new(),
        }];
        let second = render(
            &request,
            &Place {
                manifest: &manifest(),
                settings: &json!({}),
                private_hosts: &[],
                credentials: &other,
                kept_back: &[],
            },
        )
        .unwrap();
        assert_eq!(first.digest, second.digest);
    }

    #[test]
    fn an_echoed_credential_is_masked_in_every_form() {
        let secrets = [Zeroizing::new("s3cret/\"+é".to_owned())];
        let echo = format!(
            "s3cret/\"+é {} {}",
            percent("s3cret/\"+é"),
            BASE64_STANDARD.encode("s3cret/\"+é")
        );
        assert_eq!(
            Mask::of(&secrets).apply(echo.into_bytes()),
            b"[redacted] [redacted] [redacted]"
        );
        let binary = [&[255, 0][..], "s3cret/\"+é".as_bytes(), &[254]].concat();
        assert_eq!(
            Mask::of(&secrets).apply(binary),
            [&[255, 0][..], b"[redacted]", &[254]].concat()
        );
        let utf16: Vec<u16> = "s3cret/\"+é".encode_utf16().collect();
        for wide in [
            utf16
                .iter()
                .flat_map(|unit| unit.to_le_bytes())
                .collect::<Vec<u8>>(),
            utf16.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
            serde_json::to_vec("s.3.c.r.e.t./.\".+.é.".replace('.', "\0").as_str()).unwrap(),
        ] {
            let masked = String::from_utf8(Mask::of(&secrets).apply(wide)).unwrap();
            assert_eq!(masked.trim_matches('"'), "[redacted]");
        }
    }
}
