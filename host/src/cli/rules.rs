//! `tsunami skill config`: a company's rules for a skill.

use super::{
    api::Api,
    commands::{Output, list, show, text},
    people::roles,
};
use anyhow::{Context, bail};
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use serde_json::{Map, Value, json};

/// Where a list of actions, or of roles, can be none or all.
const NONE: &str = "none";
const ALL: &str = "all";
/// Decimal places of a cost in dollars: millionths are what is kept.
const MICRO_DIGITS: usize = 6;

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// List the rules of all skills.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Show the rules for a skill.
    Show {
        skill: String,
        #[command(flatten)]
        output: Output,
    },
    /// Change the rules for a skill; what is not given stays. They hold from the next call on.
    Set(Box<Rules>),
}

#[derive(Args)]
pub struct Rules {
    skill: String,
    /// Whether it may be called at all.
    #[arg(long, value_name = "true|false")]
    enabled: Option<bool>,
    /// The actions that wait for a person: `send_message,delete_message`, `all` or `none`.
    #[arg(long, value_name = "ACTIONS", value_delimiter = ',')]
    approval: Option<Vec<String>>,
    /// Who may decide: roles, or `all` for whoever may approve at all.
    #[arg(long, value_name = "ROLES", value_delimiter = ',', value_parser = approver_roles())]
    approvers: Option<Vec<String>>,
    /// How long a person has to decide: `90m`, `12h`, `7d`.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    approval_within: Option<u64>,
    /// The actions that are never made: `delete_message`, or `none`.
    #[arg(long, value_name = "ACTIONS", value_delimiter = ',')]
    disabled: Option<Vec<String>>,
    /// At most so many actions in so long: `100/1h`, or `none`.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<Value>,
    /// The values of a scope that are allowed, and no others: `channels=#finance,#ops`, or as a JSON list. May be given
    /// several times.
    #[arg(long = "scope", value_name = "SCOPE=VALUES", value_parser = scope)]
    scopes: Vec<(String, Value)>,
    /// Allow every value of a scope again. May be given several times.
    #[arg(long = "open-scope", value_name = "SCOPE")]
    open_scopes: Vec<String>,
    /// What a call of an action costs, in US dollars, for policies that limit spending: `send_text=0.005`, or
    /// `send_text=none`. May be given several times.
    #[arg(long = "cost", value_name = "ACTION=USD", value_parser = cost)]
    costs: Vec<(String, Option<u64>)>,
    /// The plugin's settings, all of them, as JSON.
    #[arg(long, value_name = "JSON")]
    settings: Option<String>,
    #[command(flatten)]
    output: Output,
}

fn approver_roles() -> PossibleValuesParser {
    PossibleValuesParser::new(roles().into_iter().chain([ALL]))
}

pub async fn run(command: ConfigCommand, api: &Api) -> anyhow::Result<()> {
    match command {
        ConfigCommand::List { output } => {
            let mut configs = api.all("/skill-configs").await?;
            for config in &mut configs {
                config["approval"] = json!(approval_of(config));
                config["scopes"] = json!(scopes_of(config));
                config["rate"] = json!(rate_of(config));
            }
            let columns = [
                "skill",
                "enabled",
                "approval",
                "disabled_actions",
                "scopes",
                "rate",
                "updated_at",
            ];
            list(&output, configs, &columns)
        }
        ConfigCommand::Show { skill, output } => {
            show(&output, &find(api, &skill).await?, config_card)
        }
        ConfigCommand::Set(rules) => {
            let config = find(api, &rules.skill).await?;
            let change = rules.change(&config)?;
            if change.is_empty() {
                bail!(
                    "nothing to change is given; `tsunami skill config set --help` lists what there is"
                );
            }
            let path = format!("/skill-configs/{}", text(&config["id"]));
            let version = text(&config["version"]);
            let changed = api
                .patch_version(&path, &Value::Object(change), &version)
                .await?;
            show(&rules.output, &changed, config_card)
        }
    }
}

async fn find(api: &Api, skill: &str) -> anyhow::Result<Value> {
    let mut configs = api.all("/skill-configs").await?.into_iter();
    configs
        .find(|config| config["skill"] == skill)
        .with_context(|| {
            format!("there are no rules for `{skill}`: they come with the plugin; `tsunami plugin list` shows what is installed")
        })
}

impl Rules {
    /// What the API is told to change.
    fn change(&self, config: &Value) -> anyhow::Result<Map<String, Value>> {
        let mut change = Map::new();
        let mut set = |name: &str, value: Value| change.insert(name.to_owned(), value);
        if let Some(enabled) = self.enabled {
            set("enabled", json!(enabled));
        }
        if let Some(actions) = &self.approval {
            let all = is_alone(actions, ALL)?;
            set("requires_approval", json!(all));
            let named = if all { Vec::new() } else { named(actions)? };
            set("approval_actions", json!(named));
        }
        if let Some(roles) = &self.approvers {
            let any = is_alone(roles, ALL)?;
            let roles = if any { &Vec::new() } else { roles };
            set("approver_roles", json!(roles));
        }
        if let Some(seconds) = self.approval_within {
            set("approval_ttl_seconds", json!(seconds));
        }
        if let Some(actions) = &self.disabled {
            set("disabled_actions", json!(named(actions)?));
        }
        if let Some(rate) = &self.rate {
            set("rate_limit", rate.clone());
        }
        if !self.scopes.is_empty() || !self.open_scopes.is_empty() {
            let allowed = config["allowed_scopes"].as_object();
            let mut allowed = allowed.cloned().unwrap_or_default();
            for open in &self.open_scopes {
                allowed
                    .remove(open)
                    .with_context(|| format!("the scope `{open}` is open: nothing restricts it"))?;
            }
            allowed.extend(self.scopes.iter().cloned());
            set("allowed_scopes", Value::Object(allowed));
        }
        if !self.costs.is_empty() {
            let costs = config["costs"].as_object();
            let mut costs = costs.cloned().unwrap_or_default();
            for (action, cost) in &self.costs {
                match cost {
                    Some(cost) => costs.insert(action.clone(), json!(cost)),
                    None => costs.remove(action),
                };
            }
            set("costs", Value::Object(costs));
        }
        if let Some(settings) = &self.settings {
            let settings = serde_json::from_str(settings).context("the settings are no JSON")?;
            set("settings", settings);
        }
        Ok(change)
    }
}

/// The actions, where `none` stands for none.
fn named(actions: &[String]) -> anyhow::Result<Vec<String>> {
    match is_alone(actions, NONE)? {
        true => Ok(Vec::new()),
        false => Ok(actions.to_vec()),
    }
}

/// Whether a list is this word, which means nothing beside others.
fn is_alone(list: &[String], word: &str) -> anyhow::Result<bool> {
    let is_there = list.iter().any(|one| one == word);
    if is_there && list.len() > 1 {
        bail!("`{word}` stands alone, and not beside others");
    }
    Ok(is_there)
}

/// `channels=#finance,#ops`
fn scope(text: &str) -> Result<(String, Value), String> {
    let wrong = "must read scope=values: channels=#finance,#ops";
    let (name, values) = text.split_once('=').ok_or(wrong)?;
    if name.is_empty() || values.is_empty() {
        return Err(format!("{wrong}; --open-scope takes the restriction away"));
    }
    let values = match values.starts_with('[') {
        true => serde_json::from_str(values).map_err(|e| format!("no JSON list: {e}"))?,
        false => values.split(',').map(str::to_owned).collect::<Vec<_>>(),
    };
    Ok((name.to_owned(), json!(values)))
}

/// `100/1h`
fn rate(text: &str) -> Result<Value, String> {
    if text == NONE {
        return Ok(Value::Null);
    }
    let wrong = "must read actions/time: 100/1h, or `none`";
    let (actions, time) = text.split_once('/').ok_or(wrong)?;
    let actions: u64 = actions.parse().map_err(|_| wrong)?;
    Ok(json!({ "max_actions": actions, "per_seconds": seconds(time)? }))
}

/// `send_text=0.005`, in millionths of a US dollar.
fn cost(text: &str) -> Result<(String, Option<u64>), String> {
    let wrong = || "must read action=dollars: send_text=0.005, or send_text=none".to_owned();
    let (action, dollars) = text.split_once('=').ok_or_else(wrong)?;
    if action.is_empty() {
        return Err(wrong());
    }
    if dollars == NONE {
        return Ok((action.to_owned(), None));
    }
    let (whole, part) = dollars.split_once('.').unwrap_or((dollars, ""));
    if part.len() > MICRO_DIGITS {
        return Err(format!("a cost has at most {MICRO_DIGITS} decimal places"));
    }
    let digits = format!("{whole}{part:0<MICRO_DIGITS$}");
    let is_number = !whole.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let micro_usd = digits.parse().ok().filter(|_| is_number);
    Ok((action.to_owned(), Some(micro_usd.ok_or_else(wrong)?)))
}

/// Millionths of a US dollar, in dollars.
fn dollars(micro_usd: u64) -> String {
    let per_dollar = 1_000_000;
    let part = format!("{:0MICRO_DIGITS$}", micro_usd % per_dollar);
    let part = part.trim_end_matches('0');
    format!("{}.{part:0<2}", micro_usd / per_dollar)
}

fn costs_of(config: &Value) -> String {
    let costs = config["costs"].as_object().into_iter().flatten();
    let costs: Vec<_> = costs
        .filter_map(|(action, cost)| Some(format!("{action} ${}", dollars(cost.as_u64()?))))
        .collect();
    costs.join(", ")
}

/// `30s`, `90m`, `12h` or `7d`.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "must be a number and a unit: 30s, 90m, 12h or 7d".to_owned();
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let number: u64 = text[..text.len() - unit.len_utf8()]
        .parse()
        .map_err(|_| wrong())?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

fn approval_of(config: &Value) -> String {
    match config["requires_approval"] == true {
        true => "all".to_owned(),
        false => text(&config["approval_actions"]),
    }
}

fn scopes_of(config: &Value) -> String {
    let scopes = config["allowed_scopes"].as_object().into_iter().flatten();
    let scopes: Vec<_> = scopes
        .map(|(name, values)| format!("{name}: {}", text(values)))
        .collect();
    scopes.join("; ")
}

fn rate_of(config: &Value) -> String {
    let rate = &config["rate_limit"];
    match rate.is_object() {
        true => format!(
            "{} in {} s",
            text(&rate["max_actions"]),
            text(&rate["per_seconds"])
        ),
        false => String::new(),
    }
}

fn config_card(config: &Value) -> String {
    let or = |value: String, without: &str| match value.is_empty() {
        true => without.to_owned(),
        false => value,
    };
    let roles = or(text(&config["approver_roles"]), "whoever may approve");
    [
        text(&config["skill"]),
        format!("id         {}", text(&config["id"])),
        format!("enabled    {}", text(&config["enabled"])),
        format!("approval   {}", or(approval_of(config), "of nothing")),
        format!(
            "decided    by {roles}, within {} s",
            text(&config["approval_ttl_seconds"])
        ),
        format!(
            "disabled   {}",
            or(text(&config["disabled_actions"]), "nothing")
        ),
        format!("scopes     {}", or(scopes_of(config), "all open")),
        format!("rate       {}", or(rate_of(config), "no limit")),
        format!("costs      {}", or(costs_of(config), "not known")),
        format!("settings   {}", text(&config["settings"])),
        format!("changed    {}", text(&config["updated_at"])),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        rules: Rules,
    }

    /// What `tsunami skill config set slack` with these words would change.
    fn change(words: &str) -> anyhow::Result<Value> {
        let line = Line::try_parse_from(["set", "slack"].into_iter().chain(words.split(' ')))?;
        let config = json!({ "costs": { "add_reaction": 1, "search": 7 }, "allowed_scopes": { "channels": ["#ops"], "users": ["U1"] } });
        Ok(Value::Object(line.rules.change(&config)?))
    }

    #[test]
    fn what_is_given_is_changed_and_nothing_else() {
        for (words, expected) in [
            ("--enabled false", json!({ "enabled": false })),
            (
                "--approval send_message,delete_message",
                json!({ "requires_approval": false, "approval_actions": ["send_message", "delete_message"] }),
            ),
            (
                "--approval all --approvers all",
                json!({ "requires_approval": true, "approval_actions": [], "approver_roles": [] }),
            ),
            (
                "--approval none --approvers approver,admin --approval-within 2h",
                json!({ "requires_approval": false, "approval_actions": [],
                    "approver_roles": ["approver", "admin"], "approval_ttl_seconds": 7200 }),
            ),
            (
                "--disabled delete_message --rate 100/1h",
                json!({ "disabled_actions": ["delete_message"],
                    "rate_limit": { "max_actions": 100, "per_seconds": 3600 } }),
            ),
            (
                "--disabled none --rate none",
                json!({ "disabled_actions": [], "rate_limit": null }),
            ),
            // Costs and scopes that are not named stay as they are.
            (
                "--cost send_message=0.005 --cost add_reaction=none --cost list=12",
                json!({ "costs": { "send_message": 5000, "list": 12_000_000, "search": 7 } }),
            ),
            (
                "--scope channels=#finance,#ops",
                json!({ "allowed_scopes": { "channels": ["#finance", "#ops"], "users": ["U1"] } }),
            ),
            (
                "--scope channels=[\"a,b\"] --open-scope users",
                json!({ "allowed_scopes": { "channels": ["a,b"] } }),
            ),
            (
                "--settings {\"base_url\":\"https://a.example\"}",
                json!({ "settings": { "base_url": "https://a.example" } }),
            ),
        ] {
            assert_eq!(change(words).unwrap(), expected, "{words}");
        }
    }

    #[test]
    fn what_could_be_meant_otherwise_is_refused() {
        for words in [
            "--approval all,send_message",
            "--approval send_message,none",
            "--approvers boss",
            "--approvers all,admin",
            "--scope channels",
            "--scope channels=",
            "--scope channels=[\"a\"",
            "--open-scope chanels",
            "--cost send_message",
            "--cost =1",
            "--cost send_message=-1",
            "--cost send_message=0.0000001",
            "--cost send_message=1,5",
            "--cost send_message=.5",
            "--rate 100",
            "--rate 100/hour",
            "--rate many/1h",
            "--approval-within 90",
            "--enabled maybe",
        ] {
            assert!(change(words).is_err(), "{words}");
        }
    }
}
