//! `tsunami user` and `tsunami key`: who works in a tenant, and the keys that people and programs come with.

use super::{
    api::Api,
    ask::Yes,
    commands::{Output, list, moment, show, text},
};
use crate::caller::Role;
use anyhow::Context;
use clap::{Subcommand, builder::PossibleValuesParser};
use serde_json::{Value, json};

/// What somebody can be in a tenant, as the API names it.
pub fn roles() -> [&'static str; 5] {
    Role::ALL.map(Role::as_str)
}

#[derive(Subcommand)]
pub enum UserCommand {
    /// Add a person.
    Add {
        email: String,
        /// As others see them.
        #[arg(long, default_value = "")]
        name: String,
        /// What they may do; may be given several times.
        #[arg(long = "role", required = true, value_parser = PossibleValuesParser::new(roles()))]
        roles: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// List the people.
    List {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum KeyCommand {
    /// Make a key; prints it, once.
    Create {
        /// What it is for: `ci`
        name: String,
        /// What it may do; may be given several times. No role that you lack.
        #[arg(long = "role", required = true, value_parser = PossibleValuesParser::new(roles()))]
        roles: Vec<String>,
        /// Whose it is: a user's e-mail address or id. A program's, unless given.
        #[arg(long)]
        user: Option<String>,
        /// When it ends, if it does: `2027-01-31`, or `2027-01-31T12:00:00Z`.
        #[arg(long, value_name = "WHEN", value_parser = moment)]
        expires: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// List the keys, without what is secret of them.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Refuse a key from the next request on, for good.
    Revoke {
        /// Its id, as the list shows it.
        id: String,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        output: Output,
    },
}

pub async fn user(command: UserCommand, api: &Api) -> anyhow::Result<()> {
    match command {
        UserCommand::Add {
            email,
            name,
            roles,
            output,
        } => {
            let new = json!({ "email": email, "display_name": name, "roles": roles });
            show(&output, &api.post("/users", &new).await?, |v| {
                format!("{} ({})", text(&v["id"]), text(&v["roles"]))
            })
        }
        UserCommand::List { output } => list(
            &output,
            api.all("/users").await?,
            &["id", "email", "display_name", "roles", "created_at"],
        ),
    }
}

pub async fn key(command: KeyCommand, api: &Api) -> anyhow::Result<()> {
    match command {
        KeyCommand::Create {
            name,
            roles,
            user,
            expires,
            output,
        } => {
            let mut new = json!({ "name": name, "roles": roles });
            if let Some(user) = user {
                new["user_id"] = user_id(api, &user).await?;
            }
            if let Some(at) = expires {
                new["expires_at"] = json!(at);
            }
            let made = api.post("/api-keys", &new).await?;
            if !output.json {
                eprintln!("the key, shown this once:");
            }
            show(&output, &made, |v| text(&v["secret"]))
        }
        KeyCommand::List { output } => {
            let mut keys = api.all("/api-keys").await?;
            for key in &mut keys {
                key["state"] = json!(state(key));
                key["made_by"] = json!(match key["in_anothers_name"] == true {
                    true => format!("{}, not its user", text(&key["created_by"])),
                    false => text(&key["created_by"]),
                });
            }
            let columns = [
                "id",
                "name",
                "prefix",
                "roles",
                "state",
                "user_id",
                "made_by",
                "expires_at",
                "last_used_at",
            ];
            list(&output, keys, &columns)
        }
        KeyCommand::Revoke { id, yes, output } => {
            let path = format!("/api-keys/{id}");
            let key = api.get(&path).await?;
            yes.or_ask(&format!(
                "Revoke the key `{}` ({})? Whoever comes with it is refused from the next request on.",
                text(&key["name"]),
                text(&key["prefix"])
            ))?;
            show(&output, &api.delete(&path).await?, |v| {
                format!("{} is {}", text(&v["name"]), state(v))
            })
        }
    }
}

/// A key's state, as far as the API says it: what has run out still shows when.
fn state(key: &Value) -> String {
    match key["revoked_at"].as_str() {
        Some(at) => format!("revoked since {at}"),
        None => "good".to_owned(),
    }
}

/// The id of whoever has this e-mail address, or this id.
async fn user_id(api: &Api, user: &str) -> anyhow::Result<Value> {
    let users = api.all("/users").await?;
    let found = users
        .iter()
        .find(|known| known["email"] == user || known["id"] == user);
    let found = found.with_context(|| {
        format!("nobody here is `{user}`; `tsunami user list` shows who is, `tsunami user add` adds somebody")
    })?;
    Ok(found["id"].clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_can_be_named() {
        for name in roles() {
            let role: Role = serde_json::from_value(json!(name)).expect(name);
            assert_eq!(role.as_str(), name);
        }
    }
}
