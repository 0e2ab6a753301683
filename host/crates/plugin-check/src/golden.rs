//! Exchanges that an author recorded: what a call asks for, the replies that it gets, and what it comes to.

use crate::{
    adapter::{STEPS_MAX, invocation},
    report::Findings,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt};
use tsunami_plugin_host::{
    Plugin,
    adapter::{Body, Failure, Manifest, Method, Reply, Request, Step},
    types::Part,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Value>,
    pub exchanges: Vec<Exchange>,
    pub expect: Expected,
}

impl Golden {
    /// Of a call with these parameters, as long as nothing is known of it.
    pub fn begin(file: String, action: &str, params: Value) -> Self {
        Self {
            file,
            action: action.to_owned(),
            params,
            settings: None,
            exchanges: Vec::new(),
            expect: Expected::Output(Value::Null),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    pub request: Wanted,
    pub reply: GoldenReply,
}

/// What the request must be; what is left out may be anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// `POST`
    pub method: String,
    /// With the query; a credential as `{key}`.
    pub url: String,
    /// By names in lower case; those that are left out may be anything.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// A body that is no JSON; of a form, its fields as `name=value` in lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenReply {
    pub status: u16,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// How the call ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    let differences = play(plugin, golden, None).differences(golden);
    let told: Vec<String> = differences.iter().map(Difference::line).collect();
    if told.is_empty() {
        Ok(())
    } else {
        Err(told.join("; "))
    }
}

/// What a plugin did with the parameters and the replies of a recorded call.
#[derive(Clone, Debug)]
pub struct Played {
    /// What it asked for, and what it was given.
    pub exchanges: Vec<Exchange>,
    pub end: End,
}

/// How it came to its end.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    Ended(Expected),
    /// No reply was recorded to this request.
    AsksFor(Box<Wanted>),
    /// The call itself failed: a trap, a limit.
    Failed(String),
}

/// Something that went otherwise than it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `exchanges/0/request/json/channel`
    pub place: String,
    pub wanted: String,
    pub got: String,
}

impl Difference {
    fn line(&self) -> String {
        format!("{} is {}, not {}", self.place, self.got, self.wanted)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n    - {}\n    + {}",
            self.place, self.wanted, self.got
        )
    }
}

/// Makes a recorded call. Where its replies run out, `otherwise` is given, to a bounded number of requests; without
/// it the call ends there.
pub fn play(plugin: &Plugin, golden: &Golden, otherwise: Option<&GoldenReply>) -> Played {
    let mut call = invocation(&golden.action, &golden.params);
    if let Some(settings) = &golden.settings {
        call.settings = settings.to_string();
    }
    let mut exchanges: Vec<Exchange> = Vec::new();
    let mut replies: Vec<Reply> = Vec::new();
    loop {
        let end = match plugin.next(&call, &replies).map(|called| called.value) {
            Err(error) => End::Failed(error.to_string()),
            Ok(Ok(Step::Perform(request))) => {
                let request = Wanted::of(&request);
                let recorded = golden.exchanges.get(exchanges.len()).map(|e| &e.reply);
                let reply = recorded.or_else(|| otherwise.filter(|_| exchanges.len() < STEPS_MAX));
                match reply {
                    None => End::AsksFor(Box::new(request)),
                    Some(reply) => {
                        replies.push(reply.to_reply());
                        let reply = reply.clone();
                        exchanges.push(Exchange { request, reply });
                        continue;
                    }
                }
            }
            Ok(answer) => End::Ended(Expected::of(answer)),
        };
        return Played { exchanges, end };
    }
}

impl Played {
    /// What went otherwise than the recording says.
    pub fn differences(&self, golden: &Golden) -> Vec<Difference> {
        let mut found = Vec::new();
        for (index, (wanted, seen)) in golden.exchanges.iter().zip(&self.exchanges).enumerate() {
            let place = format!("exchanges/{index}/request");
            wanted
                .request
                .differences(&seen.request, &place, &mut found);
        }
        let asked = self.exchanges.len();
        if let Some(unasked) = golden.exchanges.get(asked) {
            let wanted = &unasked.request;
            found.push(Difference {
                place: format!("exchanges/{asked}/request"),
                wanted: format!("{} {}", wanted.method, wanted.url),
                got: self.end.to_string(),
            });
        } else {
            self.end.differences(&golden.expect, &mut found);
        }
        found
    }
}

impl End {
    fn differences(&self, wanted: &Expected, found: &mut Vec<Difference>) {
        match (self, wanted) {
            (Self::Ended(Expected::Output(output)), Expected::Output(wanted)) => {
                json_differences(wanted, output, "expect/output", found);
            }
            (Self::Ended(end), wanted) if end == wanted => {}
            (end, wanted) => found.push(Difference {
                place: "expect".into(),
                wanted: End::Ended(wanted.clone()).to_string(),
                got: end.to_string(),
            }),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(Expected::Output(output)) => write!(f, "an end with the output {output}"),
            Self::Ended(Expected::Refused(code)) => write!(f, "a refusal `{code}`"),
            Self::Ended(Expected::InvalidParams) => f.write_str("parameters that cannot be used"),
            Self::Ended(Expected::UnexpectedReply) => f.write_str("a reply that is not understood"),
            Self::AsksFor(request) => {
                write!(f, "a further request, {} {}", request.method, request.url)
            }
            Self::Failed(why) => write!(f, "a failed call: {why}"),
        }
    }
}

impl Wanted {
    fn of(request: &Request) -> Self {
        let text = match &request.body {
            None => String::new(),
            Some(Body::Content(content)) => shown(&content.parts),
            Some(Body::Form(fields)) => {
                let lines = fields
                    .iter()
                    .map(|f| format!("{}={}\n", f.name, shown(&f.parts)));
                lines.collect()
            }
        };
        let json = serde_json::from_str(&text).ok();
        let headers = request.headers.iter();
        Self {
            method: method_name(request.method).into(),
            url: url_of(request),
            headers: headers
                .map(|header| (header.name.to_lowercase(), shown(&header.value)))
                .collect(),
            body: (json.is_none() && !text.is_empty()).then_some(text),
            json,
        }
    }

    fn differences(&self, seen: &Self, place: &str, found: &mut Vec<Difference>) {
        let mut text = |field: String, wanted: &str, got: &str| {
            if wanted != got {
                let (place, wanted, got) = (format!("{place}/{field}"), wanted.into(), got.into());
                found.push(Difference { place, wanted, got });
            }
        };
        text("method".into(), &self.method, &seen.method);
        text("url".into(), &self.url, &seen.url);
        for (name, wanted) in &self.headers {
            let got = seen.headers.get(&name.to_lowercase());
            text(
                format!("headers/{name}"),
                wanted,
                got.map_or("nothing", String::as_str),
            );
        }
        if let Some(wanted) = &self.body {
            // A recording may spell out a body of JSON as text.
            let json = seen.json.as_ref().map(Value::to_string);
            let same = json.is_some() && serde_json::from_str(wanted).ok() == seen.json;
            if !same {
                text(
                    "body".into(),
                    wanted,
                    seen.body.as_deref().or(json.as_deref()).unwrap_or(""),
                );
            }
        }
        if let Some(wanted) = &self.json {
            let got = seen.json.clone();
            let got = got.unwrap_or_else(|| json!(seen.body.clone().unwrap_or_default()));
            json_differences(wanted, &got, &format!("{place}/json"), found);
        }
    }
}

/// The innermost places where two values are not the same.
fn json_differences(wanted: &Value, got: &Value, place: &str, found: &mut Vec<Difference>) {
    match (wanted, got) {
        (Value::Object(wanted), Value::Object(got)) => {
            let more = got.keys().filter(|name| !wanted.contains_key(*name));
            for name in wanted.keys().chain(more) {
                let place = format!("{place}/{name}");
                value_differences(wanted.get(name), got.get(name), &place, found);
            }
        }
        (Value::Array(wanted), Value::Array(got)) => {
            for index in 0..wanted.len().max(got.len()) {
                let place = format!("{place}/{index}");
                value_differences(wanted.get(index), got.get(index), &place, found);
            }
        }
        (wanted, got) if wanted == got => {}
        (wanted, got) => found.push(Difference {
            place: place.to_owned(),
            wanted: wanted.to_string(),
            got: got.to_string(),
        }),
    }
}

fn value_differences(
    wanted: Option<&Value>,
    got: Option<&Value>,
    place: &str,
    found: &mut Vec<Difference>,
) {
    if let (Some(wanted), Some(got)) = (wanted, got) {
        return json_differences(wanted, got, place, found);
    }
    let text = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
    found.push(Difference {
        place: place.to_owned(),
        wanted: text(wanted),
        got: text(got),
    });
}

impl GoldenReply {
    /// What stands in a recording until its author puts in what the service answers.
    pub fn blank() -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            json: Some(json!({})),
            body: None,
        }
    }

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
    /// Of an answer that is no request. An output that is no JSON is told as the text that it is.
    fn of(answer: Result<Step, Failure>) -> Self {
        match answer {
            Ok(Step::Finish(outcome)) => {
                let output = serde_json::from_str(&outcome.output);
                Self::Output(output.unwrap_or(Value::String(outcome.output)))
            }
            Ok(Step::Perform(_)) => unreachable!("a request is no end"),
            Err(Failure::Refused(refusal)) => Self::Refused(refusal.code),
            Err(Failure::InvalidParams(_)) => Self::InvalidParams,
            Err(Failure::UnexpectedReply(_)) => Self::UnexpectedReply,
        }
    }
}

fn url_of(request: &Request) -> String {
    let mut url = shown(&request.url);
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

/// A text with its credentials as `{key}`.
fn shown(parts: &[Part]) -> String {
    let text = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Part::Credential(key) => format!("{{{key}}}"),
        Part::Basic(_) => "{basic}".to_owned(),
    };
    parts.iter().map(text).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_shown_by_its_key() {
        let parts = [Part::Text("Bearer ".into()), Part::Credential("key".into())];
        assert_eq!(shown(&parts), "Bearer {key}");
    }

    fn wanted(value: Value) -> Wanted {
        serde_json::from_value(value).expect("it is a request")
    }

    fn told(wanted: &Wanted, seen: &Wanted) -> Vec<String> {
        let mut found = Vec::new();
        wanted.differences(seen, "request", &mut found);
        found.iter().map(Difference::line).collect()
    }

    #[test]
    fn a_difference_is_told_where_it_is_and_nowhere_else() {
        let seen = wanted(json!({
            "method": "POST", "url": "https://x.example/a", "headers": { "authorization": "Bearer {key}" },
            "json": { "channel": "#a", "blocks": [1, 2], "more": true },
        }));
        let other = wanted(json!({
            "method": "POST", "url": "https://x.example/b", "headers": { "Authorization": "Bearer {token}" },
            "json": { "channel": "#a", "blocks": [1, 3, 4] },
        }));
        assert_eq!(
            told(&other, &seen),
            [
                "request/url is https://x.example/a, not https://x.example/b",
                "request/headers/Authorization is Bearer {key}, not Bearer {token}",
                "request/json/blocks/1 is 2, not 3",
                "request/json/blocks/2 is nothing, not 4",
                "request/json/more is true, not nothing",
            ]
        );
        assert_eq!(told(&seen, &seen), Vec::<String>::new());
    }

    #[test]
    fn what_a_recording_leaves_out_may_be_anything() {
        let open = wanted(json!({ "method": "GET", "url": "https://x.example/a" }));
        let seen = wanted(json!({
            "method": "GET", "url": "https://x.example/a", "headers": { "accept": "*/*" }, "body": "x",
        }));
        assert_eq!(told(&open, &seen), Vec::<String>::new());
        let spelt_out = Wanted {
            body: Some("{ \"a\": 1 }".into()),
            ..open.clone()
        };
        let same = Wanted {
            json: Some(json!({ "a": 1 })),
            ..open.clone()
        };
        assert_eq!(told(&spelt_out, &same), Vec::<String>::new());
        let other = Wanted {
            json: Some(json!({ "a": 2 })),
            ..open
        };
        assert_eq!(
            told(&spelt_out, &other),
            ["request/body is {\"a\":2}, not { \"a\": 1 }"]
        );
    }
}
