//! What the API's description says of every operation, beyond what stands beside each: whose key it takes, the headers
//! that it reads and answers with, and how it refuses.

use crate::{
    extract::{BODY_BYTES_MAX, IDEMPOTENCY_KEY_CHARS_MAX},
    problem::{PROBLEM_JSON, ProblemBody},
    tasks,
};
use serde_json::{Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Content, ContentBuilder, HeaderBuilder, KnownFormat, ObjectBuilder, Ref, RefOr, Required,
        Response, SchemaFormat, Type,
        path::{Operation, ParameterBuilder, ParameterIn},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
const JSON: &str = "application/json";
const WASM: &str = "application/wasm";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "ServiceTsunami Skills Gateway",
        description = "Lets a company's AI agents act on outside services under the company's own rules.\n\nEvery refusal is `application/problem+json` with a stable `code`. Beside those of each operation: 404 where there is nothing at a path, 405 where it does not take the method."
    ),
    modifiers(&Keys),
    components(schemas(ProblemBody, tasks::DelegatedTask)),
    security(("api_key" = [])),
)]
pub struct ApiDoc;

/// An operation says where it takes an operator's key.
struct Keys;

impl Modify for Keys {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        for (name, format, about) in [
            ("api_key", "tsk_...", "A tenant's key."),
            (
                "operator_key",
                "tso_...",
                "The key of somebody who runs the gateway.",
            ),
        ] {
            let scheme = HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .bearer_format(format)
                .description(Some(about))
                .build();
            components.add_security_scheme(name, SecurityScheme::Http(scheme));
        }
    }
}

/// How every operation may refuse.
const ALWAYS: [(&str, &str); 6] = [
    (
        "400",
        "The request is not well-formed: its query, its headers, or JSON that is none.",
    ),
    ("401", "There is no API key, or it is not valid."),
    ("403", "The key's roles do not allow it."),
    (
        "429",
        "Too many for now; `Retry-After` says when to come again.",
    ),
    (
        "500",
        "A mistake of the gateway's. Quote the `request_id` to its operator.",
    ),
    (
        "503",
        "Something that it needs is away; `Retry-After` says when to come again.",
    ),
];

/// And where it takes JSON.
const WITH_JSON: (&str, &str) = (
    "422",
    "The body is JSON, and not what the operation takes; `errors` says where.",
);

/// What a status means where the operation says nothing more of it.
fn meaning(status: &str) -> &'static str {
    match status {
        "200" => "Done; this is how it is now.",
        "201" => "It was made.",
        "202" => "It is under way. Look again for what becomes of it.",
        "204" => "It is gone.",
        "403" => "The key's roles, or the company's rules, do not allow it; `code` says which.",
        "404" => "There is no such thing, or it is another tenant's.",
        "409" => "Something that is there stands in the way; `code` says what.",
        "408" => "The body came too slowly; the connection is closed.",
        "412" => "Somebody changed it since it was read.",
        "413" => "The body is too large.",
        "415" => {
            "The body's `Content-Type` is none that the operation takes, or the body is compressed."
        }
        "422" => "It cannot be taken as it is; `code` and `errors` say why.",
        "429" => "Too many for now; `Retry-After` says when to come again.",
        "502" => {
            "The service refused (`call_failed`), or nobody knows whether it acted (`outcome_unknown`)."
        }
        _ => "See `code`.",
    }
}

/// With what is true of every operation.
pub fn described(mut openapi: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    for item in openapi.paths.paths.values_mut() {
        for operation in [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.patch,
            &mut item.delete,
        ] {
            let Some(operation) = operation else { continue };
            describe_body(operation);
            describe_refusals(operation);
            describe_answers(operation);
            let name = operation.operation_id.as_deref().unwrap_or_default();
            if let Some((header, about)) = header_of(name) {
                let parameter = ParameterBuilder::new()
                    .name(header)
                    .parameter_in(ParameterIn::Header)
                    .required(Required::False)
                    .description(Some(about))
                    .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
                    .build();
                operation
                    .parameters
                    .get_or_insert_default()
                    .push(parameter.into());
            }
        }
    }
    openapi
}

fn describe_body(operation: &mut Operation) {
    let example = operation.operation_id.as_deref().and_then(example_of);
    let Some(RefOr::T(body)) = &mut operation.request_body else {
        return;
    };
    for (media_type, content) in &mut body.content {
        let RefOr::T(content) = content else { continue };
        match media_type.as_str() {
            WASM => *content = file(),
            JSON => content.example.clone_from(&example),
            _ => {}
        }
    }
}

fn describe_refusals(operation: &mut Operation) {
    let takes_json =
        matches!(&operation.request_body, Some(RefOr::T(body)) if body.content.contains_key(JSON));
    let mut refusals = ALWAYS
        .map(|(status, about)| (status, about.to_owned()))
        .to_vec();
    if takes_json {
        refusals.push((WITH_JSON.0, WITH_JSON.1.to_owned()));
        let about = format!("The body is larger than {BODY_BYTES_MAX} bytes.");
        refusals.push(("413", about));
    }
    if operation.request_body.is_some() {
        refusals.extend(["408", "415"].map(|status| (status, meaning(status).to_owned())));
    }
    for (status, about) in refusals {
        let responses = &mut operation.responses.responses;
        responses
            .entry(status.to_owned())
            .or_insert_with(|| Response::new(about).into());
    }
}

/// The bodies, headers and meanings of what it answers.
fn describe_answers(operation: &mut Operation) {
    let name = operation.operation_id.as_deref().unwrap_or_default();
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else {
            continue;
        };
        if response.description.is_empty() {
            meaning(status).clone_into(&mut response.description);
        }
        if status.starts_with(['4', '5']) {
            response.content.clear();
            let problem = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("Problem")))
                .build();
            response
                .content
                .insert(PROBLEM_JSON.to_owned(), problem.into());
        }
        if let Some(content) = response.content.get_mut(WASM) {
            *content = file().into();
        }
        if let Some((header, kind, about)) = answered_header(name, status) {
            let header_of_answer = HeaderBuilder::new()
                .schema(Some(ObjectBuilder::new().schema_type(kind)))
                .description(Some(about))
                .build();
            response
                .headers
                .insert(header.to_owned(), header_of_answer.into());
        }
    }
}

/// Bytes, and not a list of numbers.
fn file() -> Content {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
    ContentBuilder::new().schema(Some(schema)).build()
}

/// The header that an operation reads beside the key.
pub fn header_of(operation: &str) -> Option<(&'static str, String)> {
    match operation {
        "create_task"
        | "create_agent"
        | "create_user"
        | "create_key"
        | "deploy_instance"
        | "install_plugin"
        | "upgrade_plugin"
        | "create_publisher"
        | "add_publisher_key"
        | "publish_release"
        | "create_policy"
        | "create_operator_policy"
        | "create_owner_key"
        | "store_credential"
        | "call_skill" => Some((
            IDEMPOTENCY_KEY,
            format!(
                "Any text of 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII characters. The same key with the same body is done once."
            ),
        )),
        "update_config" | "update_policy" | "update_operator_policy" => Some((
            "If-Match",
            "The `ETag` that was read: refused if it changed meanwhile.".to_owned(),
        )),
        "read_trace" => Some((
            "Last-Event-ID",
            "With `Accept: text/event-stream`: where the stream goes on.".to_owned(),
        )),
        _ => None,
    }
}

/// The header that an answer bears.
fn answered_header(operation: &str, status: &str) -> Option<(&'static str, Type, &'static str)> {
    match (operation, status) {
        (_, "429" | "503") => Some((
            "Retry-After",
            Type::Integer,
            "After how many seconds to come again.",
        )),
        ("call_skill", "202") => Some(("Location", Type::String, "Where the call is.")),
        (
            "get_config"
            | "update_config"
            | "get_policy"
            | "update_policy"
            | "create_policy"
            | "get_operator_policy"
            | "update_operator_policy"
            | "create_operator_policy",
            "200" | "201",
        ) => Some(("ETag", Type::String, "The version, for `If-Match`.")),
        _ => None,
    }
}

/// A body that the operation takes, of those that people send first.
fn example_of(operation: &str) -> Option<Value> {
    Some(match operation {
        "create_tenant" => json!({ "name": "Globex", "slug": "globex" }),
        "create_user" => {
            json!({ "email": "ada@globex.example", "display_name": "Ada", "roles": ["approver"] })
        }
        "create_key" => json!({ "name": "nightly reports", "roles": ["member"] }),
        "create_agent" => {
            json!({ "name": "analyst", "skills": [{ "skill": "slack", "proficiency": 0.9 }] })
        }
        "deploy_instance" => json!({}),
        "install_plugin" => json!({ "release": "acme/slack@1.0.0",
            "consent": { "sha256": "what the answer 409 `consent_required` gives as `consent_sha256`" } }),
        "store_credential" => json!({ "skill": "slack", "key": "bot_token", "value": "xoxb-..." }),
        "update_config" => json!({ "approval_actions": ["send_message"],
            "allowed_scopes": { "channels": ["#finance"] },
            "rate_limit": { "max_actions": 100, "per_seconds": 3600 } }),
        "create_task" => json!({ "objective": "Send Q4 summary to #finance channel on Slack",
            "plan": { "steps": [{ "skill": "slack", "action": "send_message",
                "params": { "channel": "#finance", "text": "Q4: up" } }] } }),
        "approve_task" | "reject_task" => {
            json!({ "approval_id": "0193f4a0-7c5e-7000-8000-000000000001", "note": "looks right" })
        }
        "approve" | "reject" => json!({ "note": "looks right" }),
        "call_skill" => json!({ "params": { "channel": "#finance", "text": "hello" } }),
        "resolve_call" => json!({ "resolution": "done", "note": "the message is there" }),
        "create_policy" | "create_operator_policy" => json!({
            "digest": "5f0c0000000000000000000000000000000000000000000000000000000000a3",
            "settings": {}, "skills": ["slack"], "position": 10 }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agents, instances, marketplace, policies, skills, tenants, vault};
    use serde::de::DeserializeOwned;

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    fn document() -> Value {
        serde_json::to_value(crate::routes::openapi()).unwrap()
    }

    /// Each operation, with its name.
    fn operations(document: &Value) -> Vec<(String, Value)> {
        let paths = document["paths"].as_object().unwrap().values();
        let all: Vec<_> = paths
            .flat_map(|path| path.as_object().unwrap().values())
            .map(|operation| {
                let name = operation["operationId"].as_str().unwrap().to_owned();
                (name, operation.clone())
            })
            .collect();
        assert!(all.len() > 90, "{}", all.len());
        all
    }

    #[test]
    fn every_reference_of_the_description_leads_somewhere() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 100, "{}", found.len());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap_or(reference);
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_answer_is_described_and_every_refusal_is_a_problem() {
        for (name, operation) in operations(&document()) {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let about = response["description"].as_str().unwrap_or_default();
                assert!(about.len() > 5, "{name} {status}");
                if status.starts_with(['4', '5']) {
                    let content = response["content"].as_object().unwrap();
                    let types: Vec<_> = content.keys().collect();
                    assert_eq!(types, [PROBLEM_JSON], "{name} {status}");
                }
                let again = response["headers"].get("Retry-After").is_some();
                assert_eq!(
                    again,
                    ["429", "503"].contains(&status.as_str()),
                    "{name} {status}"
                );
            }
            let body = &operation["requestBody"];
            for (status, takes_it) in [
                ("408", body),
                ("415", body),
                ("413", &body["content"][JSON]),
                ("422", &body["content"][JSON]),
            ] {
                let told = operation["responses"].get(status).is_some();
                assert!(told || takes_it.is_null(), "{name} {status}");
            }
        }
    }

    #[test]
    fn what_is_not_json_is_not_described_as_if_it_were() {
        let operations = operations(&document());
        let named = |name: &str| &operations.iter().find(|(n, _)| n == name).unwrap().1;
        let bytes = json!({ "type": "string", "format": "binary" });
        let download = &named("download_component")["responses"]["200"]["content"];
        assert_eq!(download[WASM]["schema"], bytes);
        assert_eq!(
            named("install_plugin")["requestBody"]["content"][WASM]["schema"],
            bytes
        );
        let trace = &named("read_trace")["responses"]["200"]["content"];
        assert!(
            trace["text/event-stream"].is_object() && trace[JSON].is_object(),
            "{trace}"
        );
        let call = named("call_skill")["responses"]["200"]["content"].to_string();
        let call = call + &document()["components"]["schemas"]["CallAnswer"].to_string();
        assert!(
            call.contains("/DryRun") && call.contains("/SkillCall"),
            "{call}"
        );
    }

    fn is_taken<T: DeserializeOwned>(operation: &str) {
        let example = example_of(operation).unwrap();
        if let Err(error) = serde_json::from_value::<T>(example) {
            panic!("{operation}: {error}");
        }
    }

    #[test]
    fn every_example_is_a_body_that_the_operation_takes() {
        is_taken::<tenants::http::NewTenant>("create_tenant");
        is_taken::<tenants::http::NewUser>("create_user");
        is_taken::<tenants::http::NewApiKey>("create_key");
        is_taken::<agents::http::NewAgent>("create_agent");
        is_taken::<instances::http::NewInstance>("deploy_instance");
        is_taken::<marketplace::http::installations::NewInstallation>("install_plugin");
        is_taken::<vault::http::NewCredential>("store_credential");
        is_taken::<skills::http::SkillConfigUpdate>("update_config");
        is_taken::<tasks::http::NewAgentTask>("create_task");
        is_taken::<tasks::http::TaskDecision>("approve_task");
        is_taken::<tasks::http::TaskDecision>("reject_task");
        is_taken::<skills::http::DecisionBody>("approve");
        is_taken::<skills::http::DecisionBody>("reject");
        is_taken::<skills::http::CallBody>("call_skill");
        is_taken::<skills::http::ResolveBody>("resolve_call");
        is_taken::<policies::http::NewPolicy>("create_policy");
        is_taken::<policies::http::NewPolicy>("create_operator_policy");
    }
}
