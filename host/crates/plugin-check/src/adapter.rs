//! A skill adapter, called as the gateway would call it, and worse.

use crate::{Facts, REPETITIONS, report::Findings, schema, violations};
use serde_json::{Map, Value, json};
use std::time::Instant;
use tsunami_plugin_host::{
    Plugin, PluginError, Schema,
    adapter::{Action, Body, Failure, Invocation, Manifest, Reply, Request, Step},
    host_allowed,
    types::{Operand, Part},
};
use url::Url;

/// Requests that one call may come to before the check gives up on it.
pub(crate) const STEPS_MAX: usize = 32;
/// The time of all calls: 2026-01-01T00:00:00Z.
const NOW_MS: u64 = 1_767_225_600_000;
const KEY: &str = "0190a000-0000-7000-8000-000000000000";

pub fn examine(plugin: &Plugin, manifest: &Manifest, facts: &mut Facts, findings: &mut Findings) {
    if let Some(settings) = schema(&manifest.settings_schema)
        && let Some(wrong) = violations(&settings, &json!({}))
    {
        let note = format!("the skill does not work without settings: {wrong}");
        findings.note(
            "manifest/settings-schema",
            note,
            "give defaults, where there are sensible ones",
        );
    }
    for action in &manifest.actions {
        if facts.is_spent() {
            return;
        }
        let params = schema(&action.params_schema);
        let mut told = Told {
            manifest,
            action,
            facts,
            findings,
        };
        told.examples(plugin, params.as_ref());
        told.harmful(plugin);
        told.style();
    }
    unknown(plugin, facts, findings);
}

/// A call with nothing to it that the plugin knows.
fn unknown(plugin: &Plugin, facts: &mut Facts, findings: &mut Findings) {
    let began = Instant::now();
    let answer = plugin.next(&invocation("no_such_action", &json!({})), &[]);
    facts.took(began.elapsed());
    if !matches!(answer, Ok(called) if called.value.is_err()) {
        findings.error(
            "next",
            "an action that it does not have is not refused",
            "answer with invalid-params",
        );
    }
}

pub(crate) fn invocation(action: &str, params: &Value) -> Invocation {
    Invocation {
        action: action.to_owned(),
        params: params.to_string(),
        settings: "{}".to_owned(),
        idempotency_key: KEY.to_owned(),
        now: NOW_MS,
    }
}

struct Told<'a> {
    manifest: &'a Manifest,
    action: &'a Action,
    facts: &'a mut Facts,
    findings: &'a mut Findings,
}

type Answer = Result<Result<Step, Failure>, PluginError>;

impl Told<'_> {
    fn place(&self, rest: &str) -> String {
        format!("actions/{}{rest}", self.action.name)
    }

    fn call(&mut self, plugin: &Plugin, params: &Value, replies: &[Reply]) -> Answer {
        let began = Instant::now();
        let answer = plugin.next(&invocation(&self.action.name, params), replies);
        self.facts.took(began.elapsed());
        answer.map(|called| called.value)
    }

    /// The same, and a trap is a finding. Nothing where no more calls are to be made.
    fn call_safely(
        &mut self,
        plugin: &Plugin,
        params: &Value,
        replies: &[Reply],
        what: &str,
    ) -> Option<Result<Step, Failure>> {
        if self.facts.is_spent() {
            return None;
        }
        match self.call(plugin, params, replies) {
            Ok(answer) => Some(answer),
            Err(error) => {
                let place = self.place("");
                self.findings.error(
                    &place,
                    format!("{what}: {error}"),
                    "answer with a failure that says what is wrong",
                );
                None
            }
        }
    }

    fn examples(&mut self, plugin: &Plugin, params_schema: Option<&Schema>) {
        for (index, example) in self.action.examples.iter().enumerate() {
            if self.facts.is_spent() {
                return;
            }
            let place = self.place(&format!("/examples/{index}"));
            let Ok(params) = serde_json::from_str::<Value>(&example.params) else {
                continue;
            };
            if let Some(wrong) = params_schema.and_then(|s| violations(s, &params)) {
                self.findings.error(
                    &place,
                    format!("it does not pass the action's own schema: {wrong}"),
                    "mend the example or the schema",
                );
            }
            self.pointers(&params, &place);
            let Some(first) = self.call_safely(plugin, &params, &[], "the example failed") else {
                continue;
            };
            for _ in 1..REPETITIONS {
                if self.call(plugin, &params, &[]).ok().as_ref() != Some(&first) {
                    self.findings.error(
                        &place,
                        "the same call does not give the same answer",
                        "take nothing but the arguments: no clock, no randomness, no state",
                    );
                    break;
                }
            }
            match first {
                Err(failure) => {
                    self.findings.error(
                        &place,
                        format!("the example is refused: {failure:?}"),
                        "an example shows what works",
                    );
                }
                Ok(Step::Finish(_)) => {}
                Ok(Step::Perform(request)) => {
                    self.request(&request, &place);
                    self.replies(plugin, &params, &place);
                }
            }
        }
    }

    /// A scope that no example has a value for restricts nothing that anybody can see.
    fn pointers(&mut self, params: &Value, place: &str) {
        for scope in &self.action.scopes {
            if params.pointer(&scope.pointer).is_none() {
                self.findings.note(
                    place,
                    format!(
                        "the scope `{}` points at nothing in it ({})",
                        scope.name, scope.pointer
                    ),
                    "where the parameter is optional, a call without it is not restricted",
                );
            }
        }
    }

    /// Where a request goes, and with what.
    fn request(&mut self, request: &Request, place: &str) {
        for key in credentials_of(request) {
            if !self.action.credentials.contains(&key) {
                self.findings.error(
                    place,
                    format!("the request names the credential `{key}`, which the action does not"),
                    "name it in the action's credentials",
                );
            }
        }
        let text = shown(&request.url);
        let Ok(url) = Url::parse(&text) else {
            self.findings.error(
                place,
                format!("`{text}` is no URL"),
                "scheme, host and path",
            );
            return;
        };
        let host = url.host_str().unwrap_or_default();
        let declared = self
            .manifest
            .hosts
            .iter()
            .any(|pattern| host_allowed(pattern, host));
        if url.scheme() != "https" || !declared || url.port().is_some() {
            self.findings.error(
                place,
                format!("the request goes to {text}, which the manifest does not declare"),
                "name the host in the manifest, and use https",
            );
        }
        if let Some(Part::Credential(_) | Part::Basic(_)) = request.url.first() {
            self.findings.error(
                place,
                "a credential stands in the host part of the URL",
                "credentials go into the path, the query, a header or the body",
            );
        }
        for field in &request.headers {
            if shown(&field.value)
                .chars()
                .any(|c| c.is_control() && c != '\t')
            {
                self.findings.error(
                    place,
                    format!("the header `{}` holds a control character", field.name),
                    "refuse such a parameter",
                );
            }
        }
    }

    /// What services answer when they are not well, and when they refuse.
    fn replies(&mut self, plugin: &Plugin, params: &Value, place: &str) {
        for (status, headers, body) in strange_replies() {
            let reply = Reply {
                status,
                headers,
                body: body.clone(),
            };
            let what = format!("a reply with status {status} and {} bytes", body.len());
            let Some(answer) = self.call_safely(plugin, params, &[reply], &what) else {
                continue;
            };
            match (status, answer) {
                (429, Err(Failure::Refused(refusal))) if refusal.retry_after_ms.is_none() => {
                    self.findings.warning(
                        place,
                        "a 429 is refused without saying when to come again",
                        "set retry-after-ms, from Retry-After where it is there",
                    );
                }
                (429, Ok(Step::Finish(_))) => {
                    self.findings.error(
                        place,
                        "a 429 is taken for a success",
                        "look at the status",
                    );
                }
                (401, Err(Failure::Refused(refusal))) if !refusal.credential_rejected => {
                    self.findings.warning(
                        place,
                        "a 401 does not mark the credential as rejected",
                        "set credential-rejected, so that the tenant is told to renew it",
                    );
                }
                (401 | 500 | 502, Ok(Step::Finish(_))) => {
                    self.findings.error(
                        place,
                        format!("a reply with status {status} is taken for a success"),
                        "look at the status",
                    );
                }
                _ => {}
            }
        }
        // One that never finishes.
        let nothing = || Reply {
            status: 200,
            headers: vec![],
            body: b"{}".to_vec(),
        };
        let mut replies = vec![nothing()];
        while let Some(Ok(Step::Perform(request))) =
            self.call_safely(plugin, params, &replies, "a reply of an empty object")
        {
            self.request(&request, place);
            replies.push(nothing());
            if replies.len() > STEPS_MAX {
                self.findings.error(
                    place,
                    format!("it asks for more than {STEPS_MAX} requests"),
                    "finish, and offer pages instead",
                );
                break;
            }
        }
    }

    /// Parameters that mean harm: each text of each example replaced, one after the other.
    fn harmful(&mut self, plugin: &Plugin) {
        let long = "A".repeat(100_000);
        let texts = [
            "",
            "\0",
            "a\r\nHost: evil.example",
            "../../admin",
            "https://evil.example/",
            "@evil.example/",
            "?x=1#y",
            "{{token}}",
            "\u{202e}ä€🦀",
            &long,
        ];
        for example in &self.action.examples {
            let Ok(params) = serde_json::from_str::<Value>(&example.params) else {
                continue;
            };
            let places = text_places(&params);
            for pointer in &places {
                if self.facts.is_spent() {
                    return;
                }
                for text in texts {
                    let mut changed = params.clone();
                    if let Some(value) = changed.pointer_mut(pointer) {
                        *value = json!(text);
                    }
                    let what = format!(
                        "{pointer} set to {:?}",
                        text.chars().take(30).collect::<String>()
                    );
                    let place = self.place("");
                    if let Some(Ok(Step::Perform(request))) =
                        self.call_safely(plugin, &changed, &[], &what)
                    {
                        self.same_place(&request, &what, &place);
                    }
                }
            }
            for wrong in [
                json!(null),
                json!([]),
                json!("text"),
                Value::Object(Map::new()),
                deep(),
            ] {
                self.call_safely(plugin, &wrong, &[], "parameters of another kind");
            }
        }
    }

    /// A parameter must not say where a request goes.
    fn same_place(&mut self, request: &Request, what: &str, place: &str) {
        let text = shown(&request.url);
        let host = Url::parse(&text)
            .ok()
            .and_then(|url| url.host_str().map(str::to_owned));
        let declared = host.is_some_and(|host| {
            self.manifest
                .hosts
                .iter()
                .any(|pattern| host_allowed(pattern, &host))
        });
        if !declared {
            self.findings.error(
                place,
                format!(
                    "with {what} the request goes to {}",
                    text.chars().take(200).collect::<String>()
                ),
                "percent-encode what comes from parameters; the SDK's `path` does",
            );
        }
        let path = text.split(['?', '#']).next().unwrap_or_default();
        if path
            .split('/')
            .any(|segment| segment == ".." || segment == ".")
        {
            self.findings.error(
                place,
                format!(
                    "with {what} the request's path climbs: {}",
                    path.chars().take(200).collect::<String>()
                ),
                "percent-encode what comes from parameters; the SDK's `path` does",
            );
        }
    }

    fn style(&mut self) {
        let place = self.place("");
        if self.action.summary.is_empty() {
            self.findings.warning(
                &place,
                "it has no summary",
                "say in one sentence what it does; models choose by it",
            );
        }
        let params: Value = serde_json::from_str(&self.action.params_schema).unwrap_or_default();
        if params["additionalProperties"] != json!(false)
            && params["unevaluatedProperties"] != json!(false)
        {
            self.findings.warning(
                &place,
                "its parameters may hold anything beside what is described",
                "set additionalProperties to false: a misspelt parameter is then refused",
            );
        }
        for (name, property) in params["properties"].as_object().into_iter().flatten() {
            let is_text =
                property["type"] == "string" || property["type"] == json!(["string", "null"]);
            let is_bounded = ["maxLength", "pattern", "enum", "const", "format"]
                .iter()
                .any(|k| property.get(k).is_some());
            if is_text && !is_bounded {
                self.findings.note(
                    &place,
                    format!("the text `{name}` has no bound"),
                    "set maxLength",
                );
            }
        }
    }
}

/// Status, headers and body.
type StrangeReply = (u16, Vec<(String, String)>, Vec<u8>);

fn strange_replies() -> Vec<StrangeReply> {
    let header = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    vec![
        (200, vec![], vec![]),
        (
            200,
            header("content-type", "text/html"),
            b"<html>maintenance</html>".to_vec(),
        ),
        (200, vec![], b"null".to_vec()),
        (200, vec![], b"[]".to_vec()),
        (200, vec![], b"{\"ok\": true, \"items\": 7}".to_vec()),
        (200, vec![], vec![0xff, 0xfe, 0]),
        (302, header("location", "https://evil.example/"), vec![]),
        (400, vec![], b"{\"message\": null}".to_vec()),
        (
            401,
            header("content-type", "application/json"),
            b"{\"message\": \"Bad credentials\"}".to_vec(),
        ),
        (404, vec![], vec![]),
        (429, header("retry-after", "7"), b"{}".to_vec()),
        (429, header("retry-after", "soon"), b"slow down".to_vec()),
        (500, vec![], b"oops".to_vec()),
        (
            502,
            header("content-type", "text/html"),
            b"<html>Bad gateway</html>".to_vec(),
        ),
        (65_535, vec![], b"{".to_vec()),
    ]
}

fn deep() -> Value {
    (0..100).fold(json!({}), |inner, _| json!({ "a": inner }))
}

/// JSON Pointers to every text of a value.
fn text_places(value: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::String(_) => found.push(at.to_owned()),
            Value::Array(all) => {
                for (index, inner) in all.iter().enumerate() {
                    walk(inner, &format!("{at}/{index}"), found);
                }
            }
            Value::Object(all) => {
                for (name, inner) in all {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    walk(inner, &format!("{at}/{name}"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found
}

/// A text with its credentials as `{key}`.
pub(crate) fn shown(parts: &[Part]) -> String {
    let text = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Part::Credential(key) => format!("%7B{key}%7D"),
        Part::Basic(_) => "basic".to_owned(),
    };
    parts.iter().map(text).collect()
}

fn credentials_of(request: &Request) -> Vec<String> {
    let mut parts: Vec<&Part> = request.url.iter().collect();
    for field in request.query.iter().chain(&request.headers) {
        parts.extend(&field.value);
    }
    match &request.body {
        Some(Body::Content(content)) => parts.extend(&content.parts),
        Some(Body::Form(fields)) => parts.extend(fields.iter().flat_map(|field| &field.parts)),
        None => {}
    }
    let mut keys = Vec::new();
    for part in parts {
        match part {
            Part::Credential(key) => keys.push(key.clone()),
            Part::Basic(auth) => {
                for operand in [&auth.username, &auth.password] {
                    if let Operand::Credential(key) = operand {
                        keys.push(key.clone());
                    }
                }
            }
            Part::Text(_) | Part::Bytes(_) => {}
        }
    }
    keys
}
