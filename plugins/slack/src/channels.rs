//! Channels, direct messages and who is in them.

use crate::{
    CHANNEL_ID, USER_ID,
    api::{Refused, list, next_cursor, optional, read, text, try_write, write},
    messages::Nothing,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use servicetsunami_plugin::{Call, Done, JsonSchema, Stop};

#[derive(Serialize, JsonSchema)]
pub struct Channel {
    id: String,
    /// Without `#`; empty for a direct message.
    name: String,
    is_private: bool,
    is_archived: bool,
    /// Whether the bot is in it.
    is_member: bool,
    topic: Option<String>,
    purpose: Option<String>,
    /// How many are in it, where Slack says so.
    members: Option<u64>,
}

fn channel(value: &Value) -> Channel {
    Channel {
        id: text(&value["id"]),
        name: text(&value["name"]),
        is_private: value["is_private"] == true,
        is_archived: value["is_archived"] == true,
        is_member: value["is_member"] == true,
        topic: optional(&value["topic"]["value"]),
        purpose: optional(&value["purpose"]["value"]),
        members: value["num_members"].as_u64(),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenConversation {
    /// Ids of the people to talk to: one for a direct message, up to eight for a group.
    #[schemars(length(min = 1, max = 8), inner(regex(pattern = USER_ID)))]
    users: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Conversation {
    /// The conversation's id: send to it as to a channel.
    channel: String,
}

pub fn open_conversation(
    call: &mut Call,
    params: OpenConversation,
) -> Result<Done<Conversation>, Stop> {
    let users = params.users.join(",");
    let body = write(call, "conversations.open", &json!({ "users": users }))?;
    let opened = Conversation {
        channel: text(&body["channel"]["id"]),
    };
    let summary = format!("opened a conversation with {users}");
    Ok(Done::new(opened, summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateChannel {
    /// Lower-case letters, digits, dashes and underscores.
    #[schemars(regex(pattern = r"^[\p{Ll}\p{Lo}\p{N}_-]{1,80}$"))]
    name: String,
    /// Whether only invited people see it; public unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_private: Option<bool>,
}

pub fn create_channel(call: &mut Call, params: CreateChannel) -> Result<Done<Channel>, Stop> {
    let body = write(call, "conversations.create", &params)?;
    let summary = format!("created #{}", params.name);
    Ok(Done::new(channel(&body["channel"]), summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteToChannel {
    /// The channel's id.
    #[schemars(regex(pattern = CHANNEL_ID))]
    channel: String,
    /// Ids of the people.
    #[schemars(length(min = 1, max = 100), inner(regex(pattern = USER_ID)))]
    users: Vec<String>,
}

/// One person who is in the channel already is as good as one who was invited.
pub fn invite_to_channel(call: &mut Call, params: InviteToChannel) -> Result<Done<Nothing>, Stop> {
    let users = params.users.join(",");
    let arguments = json!({ "channel": params.channel, "users": users });
    let alone = params.users.len() == 1;
    let summary = match try_write(call, "conversations.invite", &arguments) {
        Ok(_) => format!("invited {users} to {}", params.channel),
        Err(Refused::Code(code, _)) if alone && code == "already_in_channel" => {
            format!("{users} was in {} already", params.channel)
        }
        Err(refused) => return Err(refused.into()),
    };
    Ok(Done::new(Nothing {}, summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinChannel {
    /// The id of a public channel.
    #[schemars(regex(pattern = CHANNEL_ID))]
    channel: String,
}

pub fn join_channel(call: &mut Call, params: JoinChannel) -> Result<Done<Channel>, Stop> {
    let body = write(call, "conversations.join", &params)?;
    let joined = channel(&body["channel"]);
    let summary = format!("joined #{}", joined.name);
    Ok(Done::new(joined, summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTopic {
    /// The channel's id.
    #[schemars(regex(pattern = CHANNEL_ID))]
    channel: String,
    #[schemars(length(max = 250))]
    topic: String,
}

pub fn set_topic(call: &mut Call, params: SetTopic) -> Result<Done<Nothing>, Stop> {
    write(call, "conversations.setTopic", &params)?;
    let summary = format!("set the topic of {}", params.channel);
    Ok(Done::new(Nothing {}, summary))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetChannel {
    /// The channel's id.
    #[schemars(regex(pattern = CHANNEL_ID))]
    channel: String,
}

pub fn get_channel(call: &mut Call, params: GetChannel) -> Result<Done<Channel>, Stop> {
    let arguments = json!({ "channel": params.channel, "include_num_members": true });
    let body = read(call, "conversations.info", &arguments)?;
    let found = channel(&body["channel"]);
    let summary = format!("{} is #{}", found.id, found.name);
    Ok(Done::new(found, summary))
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    PublicChannel,
    PrivateChannel,
    /// A direct message of several people.
    Mpim,
    /// A direct message.
    Im,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::PublicChannel => "public_channel",
            Self::PrivateChannel => "private_channel",
            Self::Mpim => "mpim",
            Self::Im => "im",
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListChannels {
    /// `next_cursor` of the page before.
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    /// Channels on a page; 100 unless set. A page may hold fewer, even none, before the end.
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u32>,
    exclude_archived: Option<bool>,
    /// Public channels unless set.
    #[schemars(length(min = 1, max = 4))]
    types: Option<Vec<Kind>>,
}

#[derive(Serialize)]
struct ListChannelsArguments {
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude_archived: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    types: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Channels {
    channels: Vec<Channel>,
    next_cursor: Option<String>,
}

pub fn list_channels(call: &mut Call, params: ListChannels) -> Result<Done<Channels>, Stop> {
    let names = |kinds: Vec<Kind>| kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>();
    let arguments = ListChannelsArguments {
        cursor: params.cursor,
        limit: params.limit,
        exclude_archived: params.exclude_archived,
        types: params.types.map(|kinds| names(kinds).join(",")),
    };
    let body = read(call, "conversations.list", &arguments)?;
    let page = Channels {
        channels: list(&body["channels"]).iter().map(channel).collect(),
        next_cursor: next_cursor(&body),
    };
    let summary = format!("{} channels", page.channels.len());
    Ok(Done::new(page, summary))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListMembers {
    /// The channel's id.
    #[schemars(regex(pattern = CHANNEL_ID))]
    channel: String,
    /// `next_cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    cursor: Option<String>,
    /// People on a page; 100 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 999))]
    limit: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
pub struct Members {
    /// Their ids.
    users: Vec<String>,
    next_cursor: Option<String>,
}

pub fn list_members(call: &mut Call, params: ListMembers) -> Result<Done<Members>, Stop> {
    let body = read(call, "conversations.members", &params)?;
    let page = Members {
        users: list(&body["members"]).iter().map(text).collect(),
        next_cursor: next_cursor(&body),
    };
    let summary = format!("{} people in {}", page.users.len(), params.channel);
    Ok(Done::new(page, summary))
}
