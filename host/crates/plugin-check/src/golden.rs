//! Exchanges that an author recorded: what a call asks for, the replies that it gets, and what it comes to.

use crate::{
    adapter::{invocation, shown},
    report::Findings,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tsunami_plugin_host::{
    Plugin,
    adapter::{Body, Failure, Manifest, Method, Reply, Request, Step},
};

/// A call, its replies, and its end; one JSON file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// `golden/send_message.json`; where a finding points.
    #[serde(skip)]
    pub file: String,
    pub action: String,
    pub params: Value,
    #[serde(default)]
    pub settings: Option<Value>,
    pub exchanges: Vec<Exchange>,
    pub expect: Expected,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    pub request: Wanted,
    pub reply: GoldenReply,
}

/// What the request must be; what is left out may be anything.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// `POST`
    pub method: String,
    /// With the query; a credential as `{key}`.
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenReply {
    pub status: u16,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// How the call ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Expected {
    /// With this output.
    Output(Value),
    /// Refused by the service with this code.
    Refused(String),
    /// The parameters cannot be used.
    InvalidParams,
    /// The reply is not understood.
    UnexpectedReply,
}

pub(crate) fn examine(
    plugin: &Plugin,
    manifest: &Manifest,
    golden: &[Golden],
    findings: &mut Findings,
) {
    for one in golden {
        if let Err(problem) = replay(plugin, one) {
            findings.error(
                &one.file,
                problem,
                "mend the plugin, or record the exchange anew",
            );
        }
    }
    let uncovered: Vec<&str> = manifest
        .actions
        .iter()
        .map(|action| action.name.as_str())
        .filter(|name| golden.iter().all(|one| one.action != *name))
        .collect();
    if !golden.is_empty() && !uncovered.is_empty() {
        findings.note(
            "golden",
            format!("no exchange is recorded for {}", uncovered.join(", ")),
            "record one for each action",
        );
    }
}

/// Runs a recorded call; what went otherwise, where something did.
pub(crate) fn replay(plugin: &Plugin, golden: &Golden) -> Result<(), String> {
    let mut call = invocation(&golden.action, &golden.params);
    if let Some(settings) = &golden.settings {
        call.settings = settings.to_string();
    }
    let mut replies: Vec<Reply> = Vec::new();
    for (index, exchange) in golden.exchanges.iter().enumerate() {
        let answer = plugin
            .next(&call, &replies)
            .map_err(|e| e.to_string())?
            .value;
        match answer {
            Ok(Step::Perform(request)) => {
                exchange
                    .request
                    .compare(&request)
                    .map_err(|why| format!("request {index}: {why}"))?;
            }
            other => {
                return Err(format!(
                    "request {index} is not asked for; it answers {other:?}"
                ));
            }
        }
        replies.push(exchange.reply.to_reply());
    }
    let answer = plugin
        .next(&call, &replies)
        .map_err(|e| e.to_string())?
        .value;
    golden.expect.compare(answer)
}

impl Wanted {
    fn compare(&self, request: &Request) -> Result<(), String> {
        let method = method_name(request.method);
        if method != self.method {
            return Err(format!("the method is {method}, not {}", self.method));
        }
        let url = url_of(request);
        if url != self.url {
            return Err(format!("the URL is {url}, not {}", self.url));
        }
        let body = match &request.body {
            Some(Body::Content(content)) => shown(&content.parts),
            _ => String::new(),
        };
        if let Some(wanted) = &self.body
            && *wanted != body
        {
            return Err(format!("the body is {body}"));
        }
        if let Some(wanted) = &self.json
            && serde_json::from_str::<Value>(&body).ok().as_ref() != Some(wanted)
        {
            return Err(format!("the body is {body}, not {wanted}"));
        }
        Ok(())
    }
}

impl GoldenReply {
    fn to_reply(&self) -> Reply {
        let body = match (&self.json, &self.body) {
            (Some(json), _) => json.to_string(),
            (None, Some(text)) => text.clone(),
            (None, None) => String::new(),
        };
        Reply {
            status: self.status,
            headers: self.headers.clone(),
            body: body.into_bytes(),
        }
    }
}

impl Expected {
    fn compare(&self, answer: Result<Step, Failure>) -> Result<(), String> {
        match (self, answer) {
            (Self::Output(wanted), Ok(Step::Finish(outcome))) => {
                let output: Value = serde_json::from_str(&outcome.output)
                    .map_err(|e| format!("the output is no JSON: {e}"))?;
                if output == *wanted {
                    Ok(())
                } else {
                    Err(format!("the output is {output}, not {wanted}"))
                }
            }
            (Self::Refused(wanted), Err(Failure::Refused(refusal))) if refusal.code == *wanted => {
                Ok(())
            }
            (Self::InvalidParams, Err(Failure::InvalidParams(_))) => Ok(()),
            (Self::UnexpectedReply, Err(Failure::UnexpectedReply(_))) => Ok(()),
            (wanted, other) => Err(format!("it ends with {other:?}, not with {wanted:?}")),
        }
    }
}

fn url_of(request: &Request) -> String {
    let mut url = shown(&request.url).replace("%7B", "{").replace("%7D", "}");
    for (index, field) in request.query.iter().enumerate() {
        let joiner = if index == 0 && !url.contains('?') {
            '?'
        } else {
            '&'
        };
        let value: String =
            url::form_urlencoded::byte_serialize(shown(&field.value).as_bytes()).collect();
        url.push_str(&format!("{joiner}{}={value}", field.name));
    }
    url
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Patch => "PATCH",
        Method::Delete => "DELETE",
    }
}
