//! A client of the API, for the commands.

use crate::config::env_var;
use anyhow::{Context, bail};
use reqwest::{
    Method, RequestBuilder, StatusCode,
    header::{CONTENT_TYPE, IF_MATCH},
    redirect::Policy,
};
use serde_json::Value;
use std::time::Duration;

/// The largest answer that is read, in bytes: a component, which may have 24 MiB, or a page of a list.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Entries of a list that are read.
const ENTRIES_MAX: usize = 1_000_000;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(130);

/// The gateway, as somebody.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    key: String,
}

impl Api {
    /// The gateway that the environment names, as whoever the key there belongs to.
    pub fn from_environment() -> anyhow::Result<Self> {
        let url = env_var("TSUNAMI_URL").unwrap_or_else(|| "http://127.0.0.1:8480".into());
        let key = env_var("TSUNAMI_API_KEY").with_context(|| {
            format!("set TSUNAMI_API_KEY to an API key (and TSUNAMI_URL, unless the gateway is at {url})")
        })?;
        Self::new(&url, &key)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one client of the command line"
    )]
    pub fn new(url: &str, key: &str) -> anyhow::Result<Self> {
        let parsed = reqwest::Url::parse(url);
        if !parsed.is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host()) {
            bail!(
                "TSUNAMI_URL is `{url}`; it begins with http:// or https://, as in http://127.0.0.1:8480"
            );
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            // The gateway answers where it is; whoever sends elsewhere would have the body, a credential maybe.
            .redirect(Policy::none())
            .timeout(REQUEST_TIMEOUT)
            .build()?;
        Ok(Self {
            http,
            base: format!("{}/api/v1", url.trim_end_matches('/')),
            key: key.to_owned(),
        })
    }

    /// The same gateway, as somebody else.
    pub fn with_key(&self, key: &str) -> Self {
        Self {
            key: key.to_owned(),
            ..self.clone()
        }
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, None).await
    }
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, Some(body)).await
    }
    /// The same, made once however often it is asked for under this key.
    pub async fn post_once(&self, path: &str, body: &Value, key: &str) -> anyhow::Result<Value> {
        let (status, answer) = self.try_post_once(path, body, key).await?;
        Self::answered(status, answer)
    }
    /// The same, whatever is answered.
    pub async fn try_post_once(
        &self,
        path: &str,
        body: &Value,
        key: &str,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let url = format!("{}{path}", self.base);
        let request = self.http.post(url).bearer_auth(&self.key);
        let request = request.header("idempotency-key", key).json(body);
        let response = request.send().await.with_context(|| {
            format!(
                "the gateway at {} did not answer, and may have acted all the same; ask again with `--key {key}`, which acts once",
                self.base
            )
        })?;
        read(response).await
    }
    pub async fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::PATCH, path, Some(body)).await
    }
    /// The same, only where nobody changed it since this version.
    pub async fn patch_version(
        &self,
        path: &str,
        body: &Value,
        version: &str,
    ) -> anyhow::Result<Value> {
        let request = self
            .prepare(Method::PATCH, path, Some(body))
            .header(IF_MATCH, format!("\"{version}\""));
        answer(self.sent(request).await?).await
    }
    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::PUT, path, Some(body)).await
    }
    pub async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::DELETE, path, None).await
    }

    /// Every entry of a list, page by page.
    pub async fn all(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let joiner = if path.contains('?') { '&' } else { '?' };
            let page = self
                .get(&format!("{path}{joiner}limit=200{cursor}"))
                .await?;
            let entries = page["items"].as_array().cloned().unwrap_or_default();
            if entries.iter().any(|entry| !entry.is_object()) {
                bail!(
                    "{} answers with a list that is none of the gateway's",
                    self.base
                );
            }
            items.extend(entries);
            let next = page["next_cursor"].as_str();
            match next.map(|next| format!("&cursor={next}")) {
                None => return Ok(items),
                Some(next) if next == cursor || items.len() > ENTRIES_MAX => {
                    bail!("{} answers with a list that does not end", self.base)
                }
                Some(next) => cursor = next,
            }
        }
    }

    pub async fn upload(
        &self,
        path: &str,
        content_type: &str,
        bytes: Vec<u8>,
    ) -> anyhow::Result<Value> {
        let request = self
            .http
            .post(format!("{}{path}", self.base))
            .bearer_auth(&self.key)
            .header(CONTENT_TYPE, content_type)
            .body(bytes);
        answer(
            request
                .send()
                .await
                .with_context(|| format!("the gateway at {} does not answer", self.base))?,
        )
        .await
    }

    /// Bytes, as they are.
    pub async fn download(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let response = self.request(Method::GET, path, None).await?;
        if response.status().is_success() {
            return bytes_of(response).await;
        }
        answer(response).await?;
        bail!("the gateway sent nothing to write")
    }

    /// The answer, whatever it is.
    pub async fn try_post(&self, path: &str, body: &Value) -> anyhow::Result<(StatusCode, Value)> {
        let response = self.request(Method::POST, path, Some(body)).await?;
        read(response).await
    }

    /// What was asked for, or why not.
    pub fn answered(status: StatusCode, body: Value) -> anyhow::Result<Value> {
        if status.is_success() {
            return Ok(body);
        }
        refused(status, &body)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        answer(self.request(method, path, body).await?).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<reqwest::Response> {
        self.sent(self.prepare(method, path, body)).await
    }

    fn prepare(&self, method: Method, path: &str, body: Option<&Value>) -> RequestBuilder {
        let request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.key);
        match body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    async fn sent(&self, request: RequestBuilder) -> anyhow::Result<reqwest::Response> {
        request.send().await.with_context(|| {
            format!(
                "the gateway at {} does not answer; is it running?",
                self.base
            )
        })
    }
}

/// The query of a list: `?status=pending`; nothing of what is not asked for.
pub fn query<const N: usize>(filters: [(&str, Option<String>); N]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in filters {
        if let Some(value) = value {
            query.append_pair(name, &value);
        }
    }
    match query.finish() {
        empty if empty.is_empty() => empty,
        filters => format!("?{filters}"),
    }
}

async fn answer(response: reqwest::Response) -> anyhow::Result<Value> {
    let (status, body) = read(response).await?;
    Api::answered(status, body)
}

async fn read(response: reqwest::Response) -> anyhow::Result<(StatusCode, Value)> {
    let status = response.status();
    let text = String::from_utf8_lossy(&bytes_of(response).await?).into_owned();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok((status, body))
}

/// What was answered, up to [`ANSWER_BYTES_MAX`].
async fn bytes_of(mut response: reqwest::Response) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            bail!(
                "the answer has more than {ANSWER_BYTES_MAX} bytes, which no answer of the gateway has"
            );
        }
    }
    Ok(bytes)
}

fn refused(status: StatusCode, body: &Value) -> anyhow::Result<Value> {
    let detail = body["detail"]
        .as_str()
        .unwrap_or("the gateway gave no reason");
    let places: Vec<String> = body["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|e| {
            format!(
                "\n  {}: {}",
                e["pointer"].as_str().unwrap_or(""),
                e["message"].as_str().unwrap_or("")
            )
        })
        .collect();
    let code = body["code"]
        .as_str()
        .unwrap_or(if status == StatusCode::UNAUTHORIZED {
            "unauthorized"
        } else {
            "error"
        });
    bail!(
        "{detail}{} [{code}, request {}]",
        places.concat(),
        body["request_id"].as_str().unwrap_or("-")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_is_told_how_one_looks() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for wrong in ["127.0.0.1:9", "localhost:8480", "", "ftp://a", "http://"] {
            let error = Api::new(wrong, "k").err().expect(wrong).to_string();
            assert!(
                error.contains("TSUNAMI_URL") && error.contains("http://127.0.0.1:8480"),
                "{error}"
            );
        }
        assert!(Api::new("https://gateway.example.com/", "k").is_ok());
    }
}
