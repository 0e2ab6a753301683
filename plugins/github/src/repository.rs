//! The name of a repository, which every action but a few is about.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use std::{borrow::Cow, fmt};

/// Owners of GitHub Enterprise may have a `_` in them.
const PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9_-]{0,99}/[A-Za-z0-9._-]{1,100}$";

/// `owner/name`
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Repository {
    owner: String,
    name: String,
}

impl Repository {
    /// The path below it: `/repos/{owner}/{name}/...`.
    pub fn path<'a>(&'a self, below: &[&'a str]) -> Vec<&'a str> {
        let mut path = vec!["repos", &self.owner, &self.name];
        path.extend(below);
        path
    }

    /// Whether GitHub means this repository: it does not tell letters' cases apart.
    pub fn is(&self, full_name: &str) -> bool {
        self.to_string().eq_ignore_ascii_case(full_name)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl TryFrom<String> for Repository {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match text.split_once('/') {
            Some((owner, name))
                if !owner.is_empty()
                    && !matches!(name, "" | "." | "..")
                    && text.chars().filter(|c| *c != '/').all(is_plain)
                    && !name.contains('/')
                    && !owner.contains('.') =>
            {
                Ok(Self {
                    owner: owner.into(),
                    name: name.into(),
                })
            }
            _ => Err(format!("`{text}` is no repository: write owner/name")),
        }
    }
}

impl JsonSchema for Repository {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Repository".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "description": "`owner/name`" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_an_owner_and_a_name() {
        let named = |text: &str| Repository::try_from(text.to_owned());
        assert_eq!(
            named("octo-org/hello.world")
                .expect("a name")
                .path(&["issues"]),
            ["repos", "octo-org", "hello.world", "issues"]
        );
        for wrong in [
            "", "octo", "/x", "octo/", "octo/..", "octo/a/b", "octo/a b", "../x", "octo/a?b",
            "octo/é",
        ] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
