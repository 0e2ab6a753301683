//! Tests a skill or a policy as the plain function that it is: no gateway, no WebAssembly.
//!
//! ```
//! # use servicetsunami_plugin::{*, testing::Conversation};
//! # fn skill() -> Skill {
//! #     let about = About { title: "Echo".into(), summary: String::new(), version: "0.1.0".into(),
//! #         licence: "MIT".into(), categories: vec![], homepage: None, readme: String::new() };
//! #     fn echo(call: &mut Call, p: Params) -> Result<Done<Value>, Stop> {
//! #         let reply = call.send(get("https://echo.example/say").query("text", p.text).bearer("token"))?;
//! #         Ok(Done::new(reply.json()?, "said"))
//! #     }
//! #     Skill::new("echo", about).host("echo.example").action(action("say", echo))
//! # }
//! # #[derive(Deserialize, JsonSchema)]
//! # struct Params { text: String }
//! let mut say = Conversation::new(skill, "say", json!({ "text": "a b" }));
//! let request = say.request();
//! assert_eq!(request.line(), "GET https://echo.example/say?text=a%20b");
//! assert_eq!(request.header("authorization"), Some("Bearer {token}".into()));
//! let done = say.reply(200, json!({ "said": "a b" })).finish();
//! assert_eq!(done.output, json!({ "said": "a b" }));
//! ```

pub use crate::policy_testing::{
    PolicyRequest, Said, allowed, asked, denied, readme_shows_examples, said, settings_are_sound,
};

use crate::{
    Failure, Invocation, Refusal, Skill,
    call::{Done, method_name, shown},
    request::percent_encoded,
    wit::exports::servicetsunami::plugin::skill_adapter::{
        Body, FormField, Reply as WitReply, Request as WitRequest, Step,
    },
};
use serde_json::{Value, json};

/// One call of an action, and the replies that it was given so far.
pub struct Conversation {
    skill: fn() -> Skill,
    action: String,
    params: Value,
    settings: Value,
    now_ms: u64,
    replies: Vec<WitReply>,
}

impl Conversation {
    pub fn new(skill: fn() -> Skill, action: &str, params: Value) -> Self {
        Self {
            skill,
            action: action.into(),
            params,
            settings: json!({}),
            now_ms: 1_700_000_000_000,
            replies: vec![],
        }
    }

    #[must_use]
    pub fn settings(mut self, settings: Value) -> Self {
        self.settings = settings;
        self
    }

    #[must_use]
    pub fn now_ms(mut self, now_ms: u64) -> Self {
        self.now_ms = now_ms;
        self
    }

    /// What the gateway would be told now.
    pub fn step(&self) -> Result<Step, Failure> {
        let invocation = Invocation {
            action: self.action.clone(),
            params: self.params.to_string(),
            settings: self.settings.to_string(),
            idempotency_key: "01890000-0000-7000-8000-000000000000".into(),
            now: self.now_ms,
        };
        (self.skill)().next(invocation, self.replies.clone())
    }

    /// The request that is asked for now; fails where there is none.
    #[track_caller]
    pub fn request(&self) -> Seen {
        match self.step() {
            Ok(Step::Perform(request)) => Seen(request),
            other => panic!("no request is asked for: {other:?}"),
        }
    }

    /// Gives a reply with a body of JSON.
    pub fn reply(&mut self, status: u16, body: Value) -> &mut Self {
        self.reply_with(
            status,
            &[("content-type", "application/json")],
            body.to_string(),
        )
    }

    pub fn reply_with(
        &mut self,
        status: u16,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> &mut Self {
        self.replies.push(WitReply {
            status,
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            body: body.into(),
        });
        self
    }

    /// What it came to; fails where it is not done.
    #[track_caller]
    pub fn finish(&self) -> Done<Value> {
        match self.step() {
            Ok(Step::Finish(outcome)) => Done::new(
                serde_json::from_str(&outcome.output).expect("the output is JSON"),
                outcome.summary,
            ),
            other => panic!("it is not done: {other:?}"),
        }
    }

    /// Why it cannot go on; fails where it can.
    #[track_caller]
    pub fn failure(&self) -> Failure {
        match self.step() {
            Err(failure) => failure,
            Ok(step) => panic!("it goes on: {step:?}"),
        }
    }

    /// How the service said no; fails where it did not.
    #[track_caller]
    pub fn refusal(&self) -> Refusal {
        match self.failure() {
            Failure::Refused(refusal) => refusal,
            other => panic!("it was not refused: {other:?}"),
        }
    }
}

/// A request, with credentials as `{key}`.
#[derive(Debug)]
pub struct Seen(pub WitRequest);

impl Seen {
    pub fn method(&self) -> &'static str {
        method_name(self.0.method)
    }

    /// With the query.
    pub fn url(&self) -> String {
        let mut url = shown(&self.0.url);
        for (index, field) in self.0.query.iter().enumerate() {
            let joiner = if index == 0 && !url.contains('?') {
                '?'
            } else {
                '&'
            };
            let (name, value) = (percent_encoded(&field.name), shown(&field.value));
            url.push_str(&format!("{joiner}{name}={}", percent_encoded(&value)));
        }
        url
    }

    /// `POST https://slack.com/api/chat.postMessage`
    pub fn line(&self) -> String {
        format!("{} {}", self.method(), self.url())
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let field = self
            .0
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name));
        field.map(|field| shown(&field.value))
    }

    /// The body's text; empty where there is none, or it is a form.
    pub fn body(&self) -> String {
        match &self.0.body {
            Some(Body::Content(content)) => shown(&content.parts),
            _ => String::new(),
        }
    }

    pub fn content_type(&self) -> Option<&str> {
        match &self.0.body {
            Some(Body::Content(content)) => Some(&content.content_type),
            _ => None,
        }
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body()).expect("the body is JSON")
    }

    /// The fields of a form; none where the body is none.
    pub fn form(&self) -> &[FormField] {
        match &self.0.body {
            Some(Body::Form(fields)) => fields,
            _ => &[],
        }
    }
}

/// Whether each action has an example, and each example is what its parameters' type takes: the first step of its
/// call is a request or an end, and no complaint about the parameters.
#[track_caller]
pub fn examples_run(skill: fn() -> Skill) {
    for action in skill().manifest().actions {
        assert!(
            !action.examples.is_empty(),
            "{} has no example",
            action.name
        );
        for example in action.examples {
            let params = serde_json::from_str(&example.params).expect("an example is JSON");
            let step = Conversation::new(skill, &action.name, params).step();
            assert!(
                step.is_ok(),
                "{}, `{}`: {step:?}",
                action.name,
                example.title
            );
        }
    }
}

/// Every request that the examples of every action lead to, as JSON: for a check against the service's own published
/// description. `replies` are the bodies that an action's requests are answered with, by the action's name; a request
/// for which there is none is the last of its example.
pub fn requests(skill: fn() -> Skill, replies: &[(&str, &[Value])]) -> Value {
    let mut all = Vec::new();
    for action in skill().manifest().actions {
        let answers = replies.iter().find(|(name, _)| *name == action.name);
        for example in &action.examples {
            let params: Value = serde_json::from_str(&example.params).expect("an example is JSON");
            let mut call = Conversation::new(skill, &action.name, params);
            let mut answers = answers.map_or(&[][..], |(_, bodies)| bodies).iter();
            while let Ok(Step::Perform(request)) = call.step() {
                let mut seen = Seen(request).to_json();
                seen["action"] = json!(action.name);
                seen["example"] = json!(example.title);
                all.push(seen);
                let Some(answer) = answers.next() else { break };
                call.reply(200, answer.clone());
            }
        }
    }
    Value::Array(all)
}

impl Seen {
    fn to_json(&self) -> Value {
        let form: Vec<Value> = self
            .form()
            .iter()
            .map(|field| json!({ "name": field.name, "file_name": field.file_name, "text": shown(&field.parts) }))
            .collect();
        let headers: Vec<Value> = self
            .0
            .headers
            .iter()
            .map(|field| json!([field.name, shown(&field.value)]))
            .collect();
        json!({
            "method": self.method(),
            "url": self.url(),
            "headers": headers,
            "content_type": self.content_type(),
            "body": self.body(),
            "form": form,
        })
    }
}
