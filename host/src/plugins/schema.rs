//! A skill's credentials as a JSON Schema, from which a form can be drawn.

use super::{CredentialField, credential_fields};
use crate::{
    app::App,
    caller::{Caller, Permission},
    extract::{Json, Path},
    problem::{Problem, ProblemBody},
};
use axum::extract::State;
use serde_json::{Map, Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_credential_schema))
}

/// The credentials that a skill takes
///
/// A JSON Schema (2020-12) with a property for each: its label, what it is and where to find it, what one looks like.
/// `x-kind` says what kind of secret it is, `x-scopes` what it must be allowed to do at the service, and `x-oauth`
/// stands where a person can grant it by signing in.
#[utoipa::path(get, path = "/skills/{skill}/credential-schema", tag = "vault", params(("skill" = String, Path)),
    responses((status = 200, body = serde_json::Value, content_type = "application/schema+json"), (status = 404, body = ProblemBody)))]
async fn get_credential_schema(
    State(app): State<App>,
    caller: Caller,
    Path(skill): Path<String>,
) -> Result<Json<Value>, Problem> {
    caller.require(Permission::Read)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let fields = credential_fields(&mut tx, &skill).await?;
    Ok(Json(schema(&skill, &fields)))
}

fn schema(skill: &str, fields: &[CredentialField]) -> Value {
    let properties: Map<_, _> = fields
        .iter()
        .map(|field| (field.key.clone(), property(field)))
        .collect();
    let required: Vec<_> = fields
        .iter()
        .filter(|field| field.required)
        .map(|field| &field.key)
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("Credentials of {skill}"),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(field: &CredentialField) -> Value {
    let mut property = json!({
        "type": "string",
        "title": field.label,
        "writeOnly": true,
        "minLength": 1,
        "x-kind": field.kind,
        "x-scopes": field.scopes,
    });
    if !field.help.is_empty() {
        property["description"] = json!(field.help);
    }
    if !field.placeholder.is_empty() {
        property["examples"] = json!([field.placeholder]);
    }
    if let Some(oauth) = &field.oauth {
        property["x-oauth"] = json!({
            "authorize_url": oauth.authorize_url,
            "token_url": oauth.token_url,
            "revoke_url": oauth.revoke_url,
            "scopes": oauth.scopes,
            "client_id": oauth.client_id,
            "client_secret": oauth.client_secret,
        });
    }
    property
}
