//! `tsunami cred schema`, `client` and `sign-in`: what a skill takes, and how a credential is had by signing in.

use super::{
    api::Api,
    ask,
    commands::{Output, show, text},
};
use anyhow::Context;
use clap::Args;
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use serde_json::{Value, json};
use std::io::BufRead;
use url::form_urlencoded::byte_serialize;

#[derive(Args)]
pub struct Schema {
    skill: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Client {
    skill: String,
    /// The credential that is had by signing in.
    key: String,
    /// The client's id, as the provider gave it. Without it the client is shown, and what to agree to.
    #[arg(long)]
    client_id: Option<String>,
    /// A provider of your own, in the place of the plugin's.
    #[arg(long)]
    issuer: Option<String>,
    /// A host that you agree to; once for each.
    #[arg(long = "agree", value_name = "HOST")]
    hosts: Vec<String>,
    /// Keep the secret that is stored. Otherwise it is read from standard input, where the client has one.
    #[arg(long)]
    keep_secret: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct SignIn {
    skill: String,
    key: String,
    #[command(flatten)]
    output: Output,
}

pub async fn schema(asked: &Schema, api: &Api) -> anyhow::Result<()> {
    let path = format!("/skills/{}/credential-schema", encoded(&asked.skill));
    let schema = api.get(&path).await?;
    show(&asked.output, &schema, fields)
}

fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

/// A line for each credential.
fn fields(schema: &Value) -> String {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header([
        "key",
        "kind",
        "required",
        "how",
        "title",
        "where to find it",
    ]);
    for (key, field) in schema["properties"].as_object().into_iter().flatten() {
        let is_required = required.iter().any(|name| name == key);
        table.add_row([
            key.clone(),
            text(&field["x-kind"]),
            if is_required { "yes" } else { "no" }.to_owned(),
            match field.get("x-oauth") {
                Some(_) => "sign in, or paste".to_owned(),
                None => "paste".to_owned(),
            },
            text(&field["title"]),
            text(&field["description"]),
        ]);
    }
    table.to_string()
}

pub async fn client(asked: &Client, api: &Api) -> anyhow::Result<()> {
    let path = "/skill-creds/oauth/client";
    let (skill, key) = (encoded(&asked.skill), encoded(&asked.key));
    let known = api.get(&format!("{path}?skill={skill}&key={key}")).await?;
    let Some(client_id) = &asked.client_id else {
        return show(&asked.output, &known, client_card);
    };
    let mut registration = json!({
        "skill": asked.skill, "key": asked.key, "client_id": client_id, "hosts": asked.hosts,
    });
    if let Some(issuer) = &asked.issuer {
        registration["issuer"] = json!(issuer);
    }
    if known["has_secret"] == true && !asked.keep_secret {
        registration["client_secret"] = json!(ask::secret("secret of the client")?);
    }
    let registered = api.put(path, &registration).await?;
    show(&asked.output, &registered, client_card)
}

fn client_card(client: &Value) -> String {
    let hosts = client["hosts"].as_array().cloned().unwrap_or_default();
    let hosts: Vec<_> = hosts.iter().map(text).collect();
    let state = match client["registered"] == true {
        true => format!("registered; agreed to by {}", text(&client["agreed_by"])),
        false => "not registered".to_owned(),
    };
    [
        state,
        format!("authorize   {}", text(&client["authorize_url"])),
        format!("token       {}", text(&client["token_url"])),
        format!("hosts       {}", hosts.join(", ")),
        format!("redirect    {}", text(&client["redirect_uri"])),
    ]
    .join("\n")
}

pub async fn sign_in(asked: &SignIn, api: &Api) -> anyhow::Result<()> {
    let begun = api
        .post(
            "/skill-creds/oauth/start",
            &json!({ "skill": asked.skill, "key": asked.key }),
        )
        .await?;
    eprintln!("Open this in a browser, and sign in:\n");
    eprintln!("{}\n", text(&begun["authorization_url"]));
    eprintln!("Then type the code that the last page shows:");
    let mut code = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut code)
        .context("no code came on standard input")?;
    let confirmation = json!({ "sign_in_id": begun["id"], "code": code.trim() });
    let credential = api
        .post("/skill-creds/oauth/confirm", &confirmation)
        .await?;
    show(&asked.output, &credential, |v| {
        let expires = match v["expires_at"].as_str() {
            Some(at) => format!("until {at}, renewed before"),
            None => "it does not expire".to_owned(),
        };
        format!("{}:****{}  {expires}", text(&v["key"]), text(&v["last_4"]))
    })
}
