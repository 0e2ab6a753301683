use semver::Version;

/// The first line: another form would be another text.
const FORM: &str = "tsunami plugin release, form 1";
/// Characters of a plugin's name, at most; its manifest says the same.
const NAME_CHARS_MAX: usize = 64;

/// What a publisher signs: that this file is that version of that plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    namespace: String,
    name: String,
    version: Version,
    digest: String,
    contract: Version,
}

/// A part that could not stand in a statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} is `{value}`; it must be {must}")]
pub struct StatementError {
    pub part: &'static str,
    pub value: String,
    pub must: &'static str,
}

impl Statement {
    /// # Errors
    /// Names the part that is not well-formed.
    pub fn new(
        namespace: &str,
        name: &str,
        version: &str,
        digest: &str,
        contract: &str,
    ) -> Result<Self, StatementError> {
        let wrong = |part, value: &str, must| StatementError {
            part,
            value: value.chars().take(NAME_CHARS_MAX).collect(),
            must,
        };
        if !is_namespace(namespace) {
            let must = "2 to 39 lower-case letters, digits and dashes, a letter first";
            return Err(wrong("the namespace", namespace, must));
        }
        if !is_name(name) {
            let must = "1 to 64 lower-case letters, digits and dashes";
            return Err(wrong("the name", name, must));
        }
        if digest.len() != 64
            || !digest
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            let must = "a SHA-256: 64 digits of lower-case hexadecimal";
            return Err(wrong("the digest", digest, must));
        }
        let semantic = |part, text: &str| {
            Version::parse(text).map_err(|_| wrong(part, text, "a semantic version: 1.4.0"))
        };
        Ok(Self {
            version: semantic("the version", version)?,
            contract: semantic("the contract", contract)?,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            digest: digest.to_owned(),
        })
    }

    /// The text that is signed. No part holds a line break, so none can pass for two.
    pub fn text(&self) -> String {
        format!(
            "{FORM}\nnamespace: {}\nname: {}\nversion: {}\nsha256: {}\ncontract: {}\n",
            self.namespace, self.name, self.version, self.digest, self.contract
        )
    }
}

/// Whether a publisher may be called so.
pub fn is_namespace(text: &str) -> bool {
    (2..=39).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && is_name(text)
}

fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "5f0c8a1e2b3d4c5f6a7b8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b";

    #[test]
    fn the_text_is_the_same_for_ever() {
        let statement = Statement::new("acme", "slack", "1.2.0-rc.1", DIGEST, "0.1.0").unwrap();
        assert_eq!(
            statement.text(),
            format!(
                "tsunami plugin release, form 1\nnamespace: acme\nname: slack\nversion: 1.2.0-rc.1\nsha256: {DIGEST}\ncontract: 0.1.0\n"
            )
        );
    }

    #[test]
    fn a_part_that_could_pass_for_another_is_refused() {
        let upper = DIGEST.to_uppercase();
        for (namespace, name, version, digest, contract) in [
            ("acme\nname: slack", "slack", "1.0.0", DIGEST, "0.1.0"),
            ("Acme", "slack", "1.0.0", DIGEST, "0.1.0"),
            ("1acme", "slack", "1.0.0", DIGEST, "0.1.0"),
            ("a", "slack", "1.0.0", DIGEST, "0.1.0"),
            ("acme", "slack\n", "1.0.0", DIGEST, "0.1.0"),
            ("acme", "", "1.0.0", DIGEST, "0.1.0"),
            ("acme", "slack", "1.0", DIGEST, "0.1.0"),
            ("acme", "slack", "1.0.0\nsha256: 0", DIGEST, "0.1.0"),
            ("acme", "slack", "1.0.0", &upper, "0.1.0"),
            ("acme", "slack", "1.0.0", &DIGEST[1..], "0.1.0"),
            ("acme", "slack", "1.0.0", DIGEST, ""),
        ] {
            assert!(
                Statement::new(namespace, name, version, digest, contract).is_err(),
                "{namespace:?} {name:?} {version:?}"
            );
        }
    }
}
