//! The people of the workspace.

use crate::{
    USER_ID,
    api::{list, next_cursor, optional, read, text},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use servicetsunami_plugin::{Call, Done, JsonSchema, Stop};

#[derive(Serialize, JsonSchema)]
pub struct User {
    id: String,
    name: String,
    real_name: Option<String>,
    title: Option<String>,
    /// Where the bot token has the scope `users:read.email`.
    email: Option<String>,
    /// `Europe/Amsterdam`
    time_zone: Option<String>,
    is_bot: bool,
    /// Whether the account is switched off.
    deleted: bool,
}

fn user(value: &Value) -> User {
    let profile = &value["profile"];
    User {
        id: text(&value["id"]),
        name: text(&value["name"]),
        real_name: optional(&value["real_name"]).or_else(|| optional(&profile["real_name"])),
        title: optional(&profile["title"]),
        email: optional(&profile["email"]),
        time_zone: optional(&value["tz"]),
        is_bot: value["is_bot"] == true,
        deleted: value["deleted"] == true,
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FindUser {
    #[schemars(email, length(max = 320))]
    email: String,
}

pub fn find_user_by_email(call: &mut Call, params: FindUser) -> Result<Done<User>, Stop> {
    let body = read(call, "users.lookupByEmail", &params)?;
    let found = user(&body["user"]);
    let summary = format!("found {}", found.name);
    Ok(Done::new(found, summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetUser {
    /// The person's id, as messages have it.
    #[schemars(regex(pattern = USER_ID))]
    user: String,
}

pub fn get_user(call: &mut Call, params: GetUser) -> Result<Done<User>, Stop> {
    let body = read(call, "users.info", &params)?;
    let found = user(&body["user"]);
    let summary = format!("{} is {}", found.id, found.name);
    Ok(Done::new(found, summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListUsers {
    /// `next_cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    /// People on a page. Slack recommends to set it.
    #[serde(default = "users_on_a_page")]
    #[schemars(range(min = 1, max = 200))]
    limit: u32,
}

/// Without a limit Slack tries to answer with the whole workspace.
fn users_on_a_page() -> u32 {
    100
}

#[derive(Serialize, JsonSchema)]
pub struct Users {
    users: Vec<User>,
    next_cursor: Option<String>,
}

pub fn list_users(call: &mut Call, params: ListUsers) -> Result<Done<Users>, Stop> {
    let body = read(call, "users.list", &params)?;
    let page = Users {
        users: list(&body["members"]).iter().map(user).collect(),
        next_cursor: next_cursor(&body),
    };
    let summary = format!("{} people", page.users.len());
    Ok(Done::new(page, summary))
}
