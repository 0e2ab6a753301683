//! `operator-key`: keys of the people who run the gateway, made past its API, on the database itself.

use super::{answer, commands::printable};
use crate::{
    app::App,
    config::Config,
    problem::Problem,
    tenants::{self, OPERATOR_KEY_DAYS_MAX, OperatorKey},
};
use anyhow::Context;
use clap::Subcommand;
use std::fmt::Write;
use time::{Duration, OffsetDateTime, macros::format_description};

#[derive(Subcommand)]
pub enum OperatorKeyCommand {
    /// The operators' keys, also those that have ended.
    List,
    /// Make a key. It is printed once. Whoever has it has every tenant: it can make itself an owner's key of each.
    Create {
        /// Whose it is.
        name: String,
        /// After so many days it ends.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=i64::from(OPERATOR_KEY_DAYS_MAX)))]
        days: u16,
    },
    /// Revoke a key. It is refused from the next request on; the owners' keys that were made with it are not.
    Revoke {
        /// What `list` shows it by: `tso_` and 12 characters.
        prefix: String,
    },
}

pub async fn operator_key(config: Config, command: OperatorKeyCommand) -> anyhow::Result<()> {
    let app = App::new(config).await?;
    let now = app.clock().now();
    match command {
        OperatorKeyCommand::List => {
            let keys = tenants::operator_keys(&app).await?;
            answer(printable(&table(&keys, now)).as_bytes())
        }
        OperatorKeyCommand::Create { name, days } => {
            anyhow::ensure!(
                !name.trim().is_empty(),
                "the name says whose key it is, in 1 to 200 characters"
            );
            Problem::check_name("the name", &name, 1, 200)
                .map_err(|problem| anyhow::anyhow!("{}", problem.detail()))?;
            let until = now + Duration::days(days.into());
            let key = tenants::create_operator_key(&app, &name, Some(until)).await?;
            eprintln!("good until {}", day(until));
            answer(format!("{key}\n").as_bytes())
        }
        OperatorKeyCommand::Revoke { prefix } => {
            let revoked = tenants::revoke_operator_key(&app, &prefix).await?;
            let name = revoked.with_context(|| {
                format!(
                    "no operator's key begins with {prefix:?}; `tsunami operator-key list` shows them"
                )
            })?;
            eprintln!(
                "Look at the API keys of the tenants that `operator {name}` made, and revoke those that nobody should have."
            );
            answer(printable(&format!("revoked {prefix} ({name})\n")).as_bytes())
        }
    }
}

fn table(keys: &[OperatorKey], now: OffsetDateTime) -> String {
    let mut table = String::new();
    for key in keys {
        let state = match (key.revoked_at, key.expires_at) {
            (Some(at), _) => format!("revoked {}", day(at)),
            (None, Some(at)) if at <= now => format!("expired {}", day(at)),
            (None, Some(at)) => format!("until {}", day(at)),
            (None, None) => "for ever".to_owned(),
        };
        let used = key.last_used_at.map_or("never".to_owned(), day);
        let line = format_args!(
            "{:<16}  {state:<18}  made {}  used {used:<10}  {}",
            key.prefix,
            day(key.created_at),
            key.name
        );
        // Writing to a text does not fail.
        let _ = writeln!(table, "{line}");
    }
    table
}

fn day(at: OffsetDateTime) -> String {
    at.format(format_description!("[year]-[month]-[day]"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn the_list_says_which_keys_are_good_and_until_when() {
        let now = datetime!(2026-11-26 12:00 UTC);
        let key = |expires_at, revoked_at| OperatorKey {
            name: "ada".into(),
            prefix: "tso_abcdefghijkl".into(),
            created_at: datetime!(2026-11-01 0:00 UTC),
            last_used_at: None,
            expires_at,
            revoked_at,
        };
        let soon = Some(now + Duration::days(1));
        let keys = [
            key(None, None),
            key(soon, None),
            key(Some(now), None),
            key(soon, Some(now)),
        ];
        let listed = table(&keys, now);
        let states: Vec<_> = listed.lines().map(|line| line[18..36].trim()).collect();
        assert_eq!(
            states,
            [
                "for ever",
                "until 2026-11-27",
                "expired 2026-11-26",
                "revoked 2026-11-26"
            ]
        );
    }
}
