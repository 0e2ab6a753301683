//! A skill that uses each part of the contract once: every kind of part, body and failure, a log line, a credential
//! that signs in and one that does not.

wit_bindgen::generate!({ path: "../..", world: "skill-plugin" });

use exports::servicetsunami::plugin::{
    credential_schema::{
        self, ClientAuthentication, Field as CredentialField, Kind, Oauth, Schema, Violation as Seen,
    },
    skill_adapter::{
        self, Action, Body, Content, Example, Failure, Field, FormField, Invocation, Manifest,
        Method, Outcome, Pagination, Refusal, Reply, Request, Scope, Step, Violation,
    },
};
use servicetsunami::plugin::{
    log,
    types::{About, BasicAuth, Operand, Part, Risk},
};

struct Golden;
export!(Golden);

fn about() -> About {
    About {
        title: "Golden".into(),
        summary: "Uses each part of the contract once.".into(),
        version: "0.1.0".into(),
        licence: "Apache-2.0".into(),
        categories: vec!["test".into()],
        homepage: Some("https://golden.example/docs".into()),
        readme: "# Golden\n\nFor the tests.\n".into(),
    }
}

fn action(name: &str, risk: Risk) -> Action {
    Action {
        name: name.into(),
        title: format!("Do {name}"),
        summary: String::new(),
        risk,
        params_schema: r#"{"type":"object","properties":{"channel":{"type":"string"},"cursor":{"type":"string"}}}"#.into(),
        output_schema: r#"{"type":"object"}"#.into(),
        examples: vec![Example {
            title: "As it is".into(),
            params: r#"{"channel":"a"}"#.into(),
        }],
        scopes: vec![Scope {
            name: "channels".into(),
            pointer: "/channel".into(),
        }],
        credentials: vec!["token".into(), "client_secret".into()],
        idempotent: name == "list",
        pagination: (name == "list").then(|| Pagination {
            cursor: "/cursor".into(),
            next: "/next".into(),
        }),
    }
}

fn text(text: &str) -> Part {
    Part::Text(text.into())
}

fn credential(key: &str) -> Part {
    Part::Credential(key.into())
}

fn field(name: &str, value: Vec<Part>) -> Field {
    Field {
        name: name.into(),
        value,
    }
}

impl skill_adapter::Guest for Golden {
    fn describe() -> Manifest {
        Manifest {
            skill: "golden".into(),
            about: about(),
            actions: vec![
                action("list", Risk::Read),
                action("send", Risk::Write),
                action("remove", Risk::Destructive),
            ],
            hosts: vec!["golden.example".into(), "*.golden.example".into()],
            host_settings: vec!["/base_url".into()],
            settings_schema: r#"{"type":"object","properties":{"base_url":{"type":"string"}}}"#.into(),
        }
    }

    fn next(call: Invocation, replies: Vec<Reply>) -> Result<Step, Failure> {
        log::write(log::Level::Info, &format!("{} after {}", call.action, replies.len()));
        match (call.action.as_str(), replies.last()) {
            ("list", None) => Ok(Step::Perform(listing(&call))),
            ("send", None) => Ok(Step::Perform(sending(&call))),
            ("remove", None) => Err(Failure::InvalidParams(vec![Violation {
                pointer: "/channel".into(),
                message: "is not there".into(),
            }])),
            (_, Some(reply)) => finish(reply),
            (other, None) => Err(Failure::UnexpectedReply(format!("no action {other}"))),
        }
    }
}

fn listing(call: &Invocation) -> Request {
    Request {
        method: Method::Get,
        url: vec![text("https://golden.example/list/"), credential("token")],
        query: vec![field("now", vec![text(&call.now.to_string())])],
        headers: vec![field(
            "authorization",
            vec![Part::Basic(BasicAuth {
                username: Operand::Text("golden".into()),
                password: Operand::Credential("client_secret".into()),
            })],
        )],
        body: None,
    }
}

fn sending(call: &Invocation) -> Request {
    let bytes = vec![0, 159, 146, 150];
    let body = if call.settings == "{}" {
        Body::Content(Content {
            content_type: "application/json".into(),
            parts: vec![text(&call.params), Part::Bytes(bytes), credential("token")],
        })
    } else {
        Body::Form(vec![FormField {
            name: "file".into(),
            file_name: Some("a.bin".into()),
            content_type: Some("application/octet-stream".into()),
            parts: vec![Part::Bytes(bytes)],
        }])
    };
    Request {
        method: Method::Post,
        url: vec![text("https://golden.example/send")],
        query: vec![],
        headers: vec![field("idempotency-key", vec![text(&call.idempotency_key)])],
        body: Some(body),
    }
}

fn finish(reply: &Reply) -> Result<Step, Failure> {
    match reply.status {
        200 => Ok(Step::Finish(Outcome {
            output: String::from_utf8_lossy(&reply.body).into_owned(),
            summary: format!("{} headers", reply.headers.len()),
        })),
        401 => Err(refused("not_authed", None, true)),
        429 => Err(refused("slow_down", Some(1500), false)),
        other => Err(Failure::UnexpectedReply(format!("status {other}"))),
    }
}

fn refused(code: &str, retry_after_ms: Option<u64>, credential_rejected: bool) -> Failure {
    Failure::Refused(Refusal {
        code: code.into(),
        message: "It said no.".into(),
        retry_after_ms,
        credential_rejected,
    })
}

impl credential_schema::Guest for Golden {
    fn describe() -> Schema {
        let field = |key: &str, kind, oauth| CredentialField {
            key: key.into(),
            kind,
            required: true,
            label: format!("The {key}"),
            help: String::new(),
            placeholder: "gold-...".into(),
            scopes: vec!["read".into()],
            oauth,
        };
        let oauth = Oauth {
            authorize_url: "https://golden.example/authorize".into(),
            token_url: "https://golden.example/token".into(),
            revoke_url: None,
            scopes: vec!["read".into()],
            authorize_params: vec![("access_type".into(), "offline".into())],
            client_id: "client_id".into(),
            client_secret: Some("client_secret".into()),
            client_authentication: ClientAuthentication::Basic,
        };
        Schema {
            skill: "golden".into(),
            about: about(),
            fields: vec![
                field("token", Kind::OauthToken, Some(oauth)),
                field("client_id", Kind::Secret, None),
                field("client_secret", Kind::Secret, None),
            ],
        }
    }

    fn check(_key: String, value: String) -> Result<(), Seen> {
        match value.as_str() {
            "" => Err(Seen::Empty),
            value if !value.starts_with("gold-") => Err(Seen::WrongPrefix),
            value if value.len() < 10 => Err(Seen::TooShort),
            _ => Ok(()),
        }
    }
}
