#![doc = include_str!("../README.md")]

/// The contract's own types, made from `wit/v0.1`.
pub mod wit {
    wit_bindgen::generate!({
        path: "../../wit/v0.1",
        world: "skill-plugin",
        pub_export_macro: true,
        export_macro_name: "export_component",
        default_bindings_module: "servicetsunami_plugin::wit",
        additional_derives: [PartialEq, Clone],
    });
}

pub use wit::exports::servicetsunami::plugin::{
    credential_schema::{
        Field as CredentialField, Kind as CredentialKind, Oauth, Violation as CredentialViolation,
    },
    skill_adapter::{
        Action, Body, Failure, Field, HttpReply, HttpRequest, Invocation, Manifest, Method,
        Outcome, Refusal, Reply, Request, Scope, Step, Violation,
    },
};
pub use wit::servicetsunami::plugin::types::{BasicAuth, Operand, Part, Risk};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// A skill: what it can do, and what comes next in a call.
pub trait Skill {
    fn describe() -> Manifest;
    fn next(call: &Call, replies: &[Reply]) -> Result<Step, Failure>;
}

/// The credentials of a skill.
pub trait Credentials {
    fn fields() -> Vec<CredentialField>;
    fn check(key: &str, value: &str) -> Result<(), CredentialViolation>;
}

/// One call, with its parameters and settings parsed.
#[derive(Debug)]
pub struct Call {
    pub action: String,
    pub params: Value,
    pub settings: Value,
    pub idempotency_key: String,
    pub now_ms: u64,
}

impl Call {
    pub fn from_invocation(call: Invocation) -> Result<Self, Failure> {
        let parse = |what: &str, text: &str| {
            let text = if text.is_empty() { "{}" } else { text };
            serde_json::from_str(text)
                .map_err(|e| invalid("", format!("the {what} are no JSON: {e}")))
        };
        Ok(Self {
            params: parse("parameters", &call.params)?,
            settings: parse("settings", &call.settings)?,
            action: call.action,
            idempotency_key: call.idempotency_key,
            now_ms: call.now,
        })
    }

    /// The parameters as a type of the action's own.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_value(self.params.clone()).map_err(|e| invalid("", e.to_string()))
    }

    /// A setting that is a text.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).and_then(Value::as_str)
    }
}

/// A request, put together step by step.
pub struct RequestBuilder(HttpRequest);

impl RequestBuilder {
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self(HttpRequest {
            method,
            url: vec![Part::Text(url.into())],
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
        })
    }
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::Get, url)
    }
    pub fn post(url: impl Into<String>) -> Self {
        Self::new(Method::Post, url)
    }
    #[must_use]
    pub fn query(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.query.push(text_field(name, value.into()));
        self
    }
    /// Leaves the parameter out where there is no value.
    #[must_use]
    pub fn query_opt(self, name: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.headers.push(text_field(name, value.into()));
        self
    }
    /// `Authorization: Bearer` with the credential of this key.
    #[must_use]
    pub fn bearer(mut self, credential: &str) -> Self {
        self.0.headers.push(Field {
            name: "Authorization".into(),
            value: vec![
                Part::Text("Bearer ".into()),
                Part::Credential(credential.into()),
            ],
        });
        self
    }
    #[must_use]
    pub fn json(mut self, body: &Value) -> Self {
        self.0.body = Some(Body {
            content_type: "application/json; charset=utf-8".into(),
            content: vec![Part::Text(body.to_string())],
        });
        self
    }
    pub fn build(self) -> HttpRequest {
        self.0
    }
    /// The step that has this request performed.
    pub fn perform(self) -> Step {
        Step::Perform(Request::Http(self.0))
    }
}

fn text_field(name: &str, value: String) -> Field {
    Field {
        name: name.into(),
        value: vec![Part::Text(value)],
    }
}

/// A failure for one parameter.
pub fn invalid(pointer: &str, message: impl Into<String>) -> Failure {
    Failure::InvalidParams(vec![Violation {
        pointer: pointer.into(),
        message: message.into(),
    }])
}

/// The body of an HTTP reply as JSON.
pub fn json_reply(reply: &Reply) -> Result<(u16, Value), Failure> {
    let reply = http_reply(reply)?;
    let body = if reply.body.is_empty() {
        Ok(Value::Null)
    } else {
        serde_json::from_slice(&reply.body)
    };
    let body = body.map_err(|e| {
        Failure::UnexpectedReply(format!(
            "status {} with a body that is no JSON: {e}",
            reply.status
        ))
    })?;
    Ok((reply.status, body))
}

pub fn http_reply(reply: &Reply) -> Result<&HttpReply, Failure> {
    match reply {
        Reply::Http(reply) => Ok(reply),
        _ => Err(Failure::UnexpectedReply("no HTTP reply".into())),
    }
}

/// The first header of this name, whatever its case.
pub fn header<'a>(reply: &'a HttpReply, name: &str) -> Option<&'a str> {
    reply
        .headers
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// Ends the call with this output.
pub fn finish(output: Value, summary: impl Into<String>) -> Step {
    Step::Finish(Outcome {
        output: output.to_string(),
        summary: summary.into(),
    })
}

/// Exports a type that is a [`Skill`] and [`Credentials`] as the component.
#[macro_export]
macro_rules! export_skill {
    ($type:ty) => {
        struct Component;
        impl $crate::wit::exports::servicetsunami::plugin::skill_adapter::Guest for Component {
            fn describe() -> $crate::Manifest {
                <$type as $crate::Skill>::describe()
            }
            fn next(call: $crate::Invocation, replies: Vec<$crate::Reply>) -> Result<$crate::Step, $crate::Failure> {
                <$type as $crate::Skill>::next(&$crate::Call::from_invocation(call)?, &replies)
            }
        }
        impl $crate::wit::exports::servicetsunami::plugin::credential_schema::Guest for Component {
            fn fields() -> Vec<$crate::CredentialField> {
                <$type as $crate::Credentials>::fields()
            }
            fn check(key: String, value: String) -> Result<(), $crate::CredentialViolation> {
                <$type as $crate::Credentials>::check(&key, &value)
            }
        }
        $crate::wit::export_component!(Component with_types_in $crate::wit);
    };
}
