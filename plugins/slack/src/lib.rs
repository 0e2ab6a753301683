//! Slack, over its Web API (<https://docs.slack.dev/reference/methods>).
//!
//! Slack answers 200 with `ok: false` and an `error` where it refuses, and 429 with `Retry-After` where a method
//! is called too often. It drops no repeated `chat.postMessage`, so no action here is idempotent but those that
//! read.

mod actions;

use actions::{ACTIONS, Method};
use serde_json::{Value, json};
use servicetsunami_plugin::{
    Action, Call, CredentialField, CredentialKind, CredentialViolation, Credentials, Failure,
    Manifest, Refusal, Reply, RequestBuilder, Scope, Skill, Step, export_skill, finish, header,
    http_reply, json_reply,
};

/// Slack's own API; the setting `base_url` names another.
const BASE_URL: &str = "https://slack.com/api";
const BOT_TOKEN: &str = "bot_token";
/// Waited where Slack says 429 without saying how long, in milliseconds.
const RETRY_AFTER_DEFAULT_MS: u64 = 30_000;

struct Slack;

impl Skill for Slack {
    fn describe() -> Manifest {
        Manifest {
            skill: "slack".into(),
            title: "Slack".into(),
            summary: "Send and read messages in the channels that the bot is a member of.".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            actions: ACTIONS.iter().map(describe_action).collect(),
            hosts: vec!["slack.com".into()],
            host_settings: vec!["/base_url".into()],
            settings_schema: json!({
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "base_url": { "type": "string", "format": "uri", "default": BASE_URL, "description": "Where Slack's Web API is." }
                }
            })
            .to_string(),
        }
    }

    fn next(call: &Call, replies: &[Reply]) -> Result<Step, Failure> {
        let action = ACTIONS
            .iter()
            .find(|action| action.name == call.action)
            .ok_or_else(|| {
                servicetsunami_plugin::invalid("", format!("Slack has no action `{}`", call.action))
            })?;
        match replies.last() {
            None => Ok(request(action, call)),
            Some(reply) => conclude(action, call, reply),
        }
    }
}

fn describe_action(action: &actions::Definition) -> Action {
    Action {
        name: action.name.into(),
        title: action.title.into(),
        summary: action.summary.into(),
        risk: action.risk,
        params_schema: (action.params)().to_string(),
        output_schema: (action.output)().to_string(),
        examples: vec![(action.example)().to_string()],
        scopes: action
            .scope
            .iter()
            .map(|(name, pointer)| Scope {
                name: (*name).into(),
                pointer: (*pointer).into(),
            })
            .collect(),
        credentials: vec![BOT_TOKEN.into()],
        idempotent: action.method == Method::Get,
    }
}

fn request(action: &actions::Definition, call: &Call) -> Step {
    let base = call
        .setting("base_url")
        .unwrap_or(BASE_URL)
        .trim_end_matches('/');
    let url = format!("{base}/{}", action.api_method);
    match action.method {
        Method::Post => RequestBuilder::post(url)
            .bearer(BOT_TOKEN)
            .json(&call.params)
            .perform(),
        Method::Get => {
            let params = call.params.as_object().into_iter().flatten();
            params
                .fold(
                    RequestBuilder::get(url).bearer(BOT_TOKEN),
                    |request, (name, value)| request.query(name, plain(value)),
                )
                .perform()
        }
    }
}

/// A value as it stands in a query: texts without quotes.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn conclude(action: &actions::Definition, call: &Call, reply: &Reply) -> Result<Step, Failure> {
    let http = http_reply(reply)?;
    if http.status == 429 {
        let wait = header(http, "retry-after")
            .and_then(|text| text.trim().parse::<u64>().ok())
            .map_or(RETRY_AFTER_DEFAULT_MS, |s| s.saturating_mul(1000));
        return Err(refused(
            "ratelimited",
            "Slack asks to slow down",
            Some(wait),
        ));
    }
    let (status, body) = json_reply(reply)?;
    if body.get("ok") == Some(&Value::Bool(true)) {
        return Ok(finish(
            (action.pick)(&body),
            (action.tell)(&call.params, &body),
        ));
    }
    match body.get("error").and_then(Value::as_str) {
        Some("ratelimited") => Err(refused(
            "ratelimited",
            "Slack asks to slow down",
            Some(RETRY_AFTER_DEFAULT_MS),
        )),
        Some(code) => Err(refused(code, &explain(code, &body), None)),
        None => Err(Failure::UnexpectedReply(format!(
            "status {status} without `ok` or `error`"
        ))),
    }
}

fn refused(code: &str, message: &str, retry_after_ms: Option<u64>) -> Failure {
    let credential_rejected = matches!(
        code,
        "invalid_auth"
            | "not_authed"
            | "account_inactive"
            | "token_revoked"
            | "token_expired"
            | "no_permission"
    );
    Failure::Refused(Refusal {
        code: code.into(),
        message: message.into(),
        retry_after_ms,
        credential_rejected,
    })
}

/// What to do about the errors that people meet; Slack's own code for the others.
fn explain(code: &str, body: &Value) -> String {
    match code {
        "channel_not_found" => {
            "Slack knows no such channel, or the bot cannot see it; invite it with /invite".into()
        }
        "not_in_channel" => "the bot is not in the channel; invite it with /invite".into(),
        "is_archived" => "the channel is archived".into(),
        "invalid_auth" | "not_authed" | "token_revoked" | "token_expired" | "account_inactive" => {
            "Slack does not accept the bot token; store a new one".into()
        }
        "missing_scope" => {
            let needed = body
                .get("needed")
                .and_then(Value::as_str)
                .unwrap_or("another scope");
            format!(
                "the bot token lacks the scope {needed}; add it to the Slack app and install it again"
            )
        }
        "msg_too_long" => "the text is longer than Slack takes (40,000 characters)".into(),
        other => format!("Slack refused: {other}"),
    }
}

impl Credentials for Slack {
    fn fields() -> Vec<CredentialField> {
        vec![
            CredentialField {
                key: BOT_TOKEN.into(),
                kind: CredentialKind::BotToken,
                required: true,
                label: "Bot token".into(),
                help: "Of your Slack app: OAuth & Permissions, Bot User OAuth Token.".into(),
                placeholder: "xoxb-...".into(),
                scopes: [
                    "chat:write",
                    "channels:read",
                    "channels:history",
                    "reactions:write",
                    "users:read.email",
                ]
                .map(String::from)
                .to_vec(),
                oauth: None,
            },
            CredentialField {
                key: "signing_secret".into(),
                kind: CredentialKind::Secret,
                required: false,
                label: "Signing secret".into(),
                help: "Of your Slack app: Basic Information. Only needed to receive events.".into(),
                placeholder: "32 hexadecimal characters".into(),
                scopes: vec![],
                oauth: None,
            },
        ]
    }

    fn check(key: &str, value: &str) -> Result<(), CredentialViolation> {
        if value.is_empty() {
            return Err(CredentialViolation::Empty);
        }
        if value.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err(CredentialViolation::WrongCharacters);
        }
        match key {
            BOT_TOKEN if !value.starts_with("xoxb-") => Err(CredentialViolation::WrongPrefix),
            BOT_TOKEN if value.len() < 20 => Err(CredentialViolation::TooShort),
            BOT_TOKEN if value.len() > 512 => Err(CredentialViolation::TooLong),
            "signing_secret" if value.len() < 32 => Err(CredentialViolation::TooShort),
            "signing_secret" if value.len() > 64 => Err(CredentialViolation::TooLong),
            _ => Ok(()),
        }
    }
}

export_skill!(Slack);

#[cfg(test)]
mod tests {
    use super::*;
    use servicetsunami_plugin::{HttpReply, Method as HttpMethod, Part, Request};

    fn call(action: &str, params: Value) -> Call {
        Call {
            action: action.into(),
            params,
            settings: json!({}),
            idempotency_key: "k".into(),
            now_ms: 0,
        }
    }

    fn reply(status: u16, headers: &[(&str, &str)], body: &Value) -> Reply {
        let headers = headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        Reply::Http(HttpReply {
            status,
            headers,
            body: body.to_string().into_bytes(),
        })
    }

    fn performed(step: Step) -> servicetsunami_plugin::HttpRequest {
        match step {
            Step::Perform(Request::Http(request)) => request,
            other => panic!("no request: {other:?}"),
        }
    }

    #[test]
    fn a_message_is_posted_with_the_token_by_reference() {
        let params = json!({"channel": "#finance", "text": "Q4 is done"});
        let request = performed(Slack::next(&call("send_message", params.clone()), &[]).unwrap());
        assert_eq!(
            request.url,
            [Part::Text("https://slack.com/api/chat.postMessage".into())]
        );
        assert_eq!(request.method, HttpMethod::Post);
        assert_eq!(
            request.headers[0].value,
            [
                Part::Text("Bearer ".into()),
                Part::Credential("bot_token".into())
            ]
        );
        assert_eq!(
            request.body.unwrap().content,
            [Part::Text(params.to_string())]
        );
    }

    #[test]
    fn a_reading_action_asks_with_a_query() {
        let request = performed(
            Slack::next(
                &call("read_history", json!({"channel": "C1", "limit": 5})),
                &[],
            )
            .unwrap(),
        );
        assert_eq!(request.method, HttpMethod::Get);
        let query: Vec<_> = request
            .query
            .iter()
            .map(|f| (f.name.as_str(), f.value.clone()))
            .collect();
        assert_eq!(
            query,
            [
                ("channel", vec![Part::Text("C1".into())]),
                ("limit", vec![Part::Text("5".into())])
            ]
        );
    }

    #[test]
    fn the_base_url_can_be_set() {
        let mut call = call("list_channels", json!({}));
        call.settings = json!({"base_url": "http://127.0.0.1:9/api/"});
        assert_eq!(
            performed(Slack::next(&call, &[]).unwrap()).url,
            [Part::Text(
                "http://127.0.0.1:9/api/conversations.list".into()
            )]
        );
    }

    #[test]
    fn a_sent_message_ends_the_call() {
        let sent = reply(
            200,
            &[],
            &json!({"ok": true, "channel": "C1", "ts": "1.2", "message": {"text": "x"}}),
        );
        let step = Slack::next(
            &call("send_message", json!({"channel": "#finance", "text": "x"})),
            &[sent],
        )
        .unwrap();
        let Step::Finish(outcome) = step else {
            panic!("not finished")
        };
        assert_eq!(outcome.summary, "sent to #finance");
        assert_eq!(
            serde_json::from_str::<Value>(&outcome.output).unwrap(),
            json!({"channel": "C1", "ts": "1.2"})
        );
    }

    #[test]
    fn what_slack_refuses_comes_in_its_own_words() {
        let refusal = |status, headers: &[(&str, &str)], body| match Slack::next(
            &call("send_message", json!({"channel": "C1", "text": "x"})),
            &[reply(status, headers, &body)],
        ) {
            Err(Failure::Refused(refusal)) => refusal,
            other => panic!("not refused: {other:?}"),
        };
        let gone = refusal(200, &[], json!({"ok": false, "error": "channel_not_found"}));
        assert_eq!(
            (
                gone.code.as_str(),
                gone.credential_rejected,
                gone.retry_after_ms
            ),
            ("channel_not_found", false, None)
        );
        assert!(
            refusal(200, &[], json!({"ok": false, "error": "token_revoked"})).credential_rejected
        );
        assert!(
            refusal(
                200,
                &[],
                json!({"ok": false, "error": "missing_scope", "needed": "chat:write"})
            )
            .message
            .contains("chat:write")
        );
        assert_eq!(
            refusal(429, &[("Retry-After", "7")], json!({})).retry_after_ms,
            Some(7000)
        );
    }

    #[test]
    fn a_strange_reply_is_said_to_be_strange() {
        let strange = Reply::Http(HttpReply {
            status: 502,
            headers: vec![],
            body: b"<html>".to_vec(),
        });
        assert!(matches!(
            Slack::next(&call("list_channels", json!({})), &[strange]),
            Err(Failure::UnexpectedReply(_))
        ));
    }

    #[test]
    fn a_token_is_checked_by_its_shape() {
        assert_eq!(
            Slack::check("bot_token", "xoxb-1234567890-abcdefgh"),
            Ok(())
        );
        assert_eq!(
            Slack::check("bot_token", "xoxp-1234567890-abcdefgh"),
            Err(CredentialViolation::WrongPrefix)
        );
        assert_eq!(
            Slack::check("bot_token", "xoxb-1"),
            Err(CredentialViolation::TooShort)
        );
        assert_eq!(
            Slack::check("bot_token", "xoxb-123456789012345\r\nX"),
            Err(CredentialViolation::WrongCharacters)
        );
        assert_eq!(
            Slack::check("bot_token", ""),
            Err(CredentialViolation::Empty)
        );
    }

    #[test]
    fn every_action_has_an_example_within_its_own_parameters() {
        for action in ACTIONS {
            let (schema, example) = ((action.params)(), (action.example)());
            let known = schema["properties"].as_object().unwrap();
            for name in example.as_object().unwrap().keys() {
                assert!(known.contains_key(name), "{}: {name}", action.name);
            }
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(
                    example.get(name.as_str().unwrap()).is_some(),
                    "{}: {name}",
                    action.name
                );
            }
        }
    }
}
