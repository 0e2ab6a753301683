//! Whether what a plugin says of itself is well-formed. People agree to it, so it must be plain.

use crate::{
    adapter::{Action, Manifest},
    credentials::{self, Field, Oauth},
    policy,
    schema::{SCHEMA_BYTES_MAX, Schema},
    types::About,
};
use semver::Version;
use serde_json::Value;
use url::Url;

const ACTIONS_MAX: usize = 64;
const HOSTS_MAX: usize = 16;
const NAME_CHARS_MAX: usize = 64;
const TEXT_CHARS_MAX: usize = 1000;
const README_BYTES_MAX: usize = 64 << 10;
const CATEGORIES_MAX: usize = 8;
const EXAMPLES_MAX: usize = 16;
const FIELDS_MAX: usize = 16;
/// Of one action.
const SCOPES_MAX: usize = 16;
/// What one credential must be allowed to do at its service.
const CREDENTIAL_SCOPES_MAX: usize = 64;
/// What one sign-in asks for besides.
const AUTHORIZE_PARAMS_MAX: usize = 16;
const VERSION_CHARS_MAX: usize = 64;
/// What one answer tells. Whatever else is wrong is told when these are mended.
const FINDINGS_MAX: usize = 64;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ManifestError {
    pub place: String,
    pub problem: String,
}

/// Checks what a skill adapter says of itself, together with the credential fields of the same plugin; none where another
/// plugin describes the credentials that it names. Gives everything that is wrong.
pub fn check_manifest(manifest: &Manifest, fields: Option<&[Field]>) -> Vec<ManifestError> {
    let mut found = Findings(Vec::new());
    found.name("skill", &manifest.skill, '-');
    found.about(&manifest.about);
    found.unless(
        (1..=ACTIONS_MAX).contains(&manifest.actions.len()),
        "actions",
        "must be 1 to 64",
    );
    found.unless(
        manifest.hosts.len() <= HOSTS_MAX,
        "hosts",
        "must be at most 16",
    );
    for host in manifest.hosts.iter().take(HOSTS_MAX) {
        found.unless(is_host_pattern(host), &format!("hosts/{host}"), "must be a lower-case DNS name, `*.` allowed as its first label: no scheme, port, path or address, and no `*.` below which anybody may register a name, as `*.co.uk`");
    }
    found.unless(
        !manifest.hosts.is_empty() || !manifest.host_settings.is_empty(),
        "hosts",
        "must name at least one host",
    );
    found.unless(
        manifest.host_settings.len() <= HOSTS_MAX,
        "host-settings",
        "must be at most 16",
    );
    for pointer in manifest.host_settings.iter().take(HOSTS_MAX) {
        found.pointer(&format!("host-settings/{pointer}"), pointer, "/base_url");
    }
    found.schema("settings-schema", &manifest.settings_schema);
    for action in manifest.actions.iter().take(ACTIONS_MAX) {
        found.action(action, manifest, fields);
    }
    found.fields(fields.unwrap_or_default());
    found.0
}

/// Checks what a credential schema says of itself; `skill` is that of the adapter of the same plugin, where it has one.
pub fn check_credential_schema(
    schema: &credentials::Schema,
    skill: Option<&str>,
) -> Vec<ManifestError> {
    let mut found = Findings(Vec::new());
    found.name("skill", &schema.skill, '-');
    found.unless(
        skill.is_none_or(|skill| skill == schema.skill),
        "skill",
        "must be the skill of the adapter that the plugin exports too",
    );
    found.about(&schema.about);
    found.fields(&schema.fields);
    found.0
}

/// Checks what a routing policy says of itself.
pub fn check_policy(manifest: &policy::Manifest) -> Vec<ManifestError> {
    let mut found = Findings(Vec::new());
    found.name("name", &manifest.name, '-');
    found.about(&manifest.about);
    found.schema("settings-schema", &manifest.settings_schema);
    found.unless(
        (1..=EXAMPLES_MAX).contains(&manifest.examples.len()),
        "examples",
        "must be 1 to 16",
    );
    for example in manifest.examples.iter().take(EXAMPLES_MAX) {
        found.object("examples", example);
    }
    found.0
}

struct Findings(Vec<ManifestError>);

impl Findings {
    fn about(&mut self, about: &About) {
        self.line("about/title", &about.title, 1);
        self.text("about/summary", &about.summary, 1);
        self.unless(
            is_semver(&about.version),
            "about/version",
            "must be a semantic version: 1.4.0",
        );
        self.unless(
            is_licence(&about.licence),
            "about/licence",
            "must be an SPDX licence expression: Apache-2.0",
        );
        self.unless(
            (1..=CATEGORIES_MAX).contains(&about.categories.len()),
            "about/categories",
            "must be 1 to 8",
        );
        for category in about.categories.iter().take(CATEGORIES_MAX) {
            self.name(&format!("about/categories/{category}"), category, '-');
        }
        if let Some(homepage) = &about.homepage {
            self.url("about/homepage", homepage);
        }
        let readme = &about.readme;
        self.unless(
            readme.len() <= README_BYTES_MAX && !readme.chars().any(is_unprintable),
            "about/readme",
            "must be Markdown of at most 65536 bytes without control characters",
        );
    }
    fn action(&mut self, action: &Action, manifest: &Manifest, fields: Option<&[Field]>) {
        let place = format!("actions/{}", action.name);
        self.name(&place, &action.name, '_');
        self.line(&format!("{place}/title"), &action.title, 1);
        self.text(&format!("{place}/summary"), &action.summary, 0);
        self.schema(&format!("{place}/params-schema"), &action.params_schema);
        self.schema(&format!("{place}/output-schema"), &action.output_schema);
        let all = manifest.actions.iter().take(ACTIONS_MAX);
        let same = all.filter(|a| a.name == action.name);
        self.unless(same.count() == 1, &place, "stands there twice");
        self.unless(
            action.credentials.len() <= FIELDS_MAX,
            &format!("{place}/credentials"),
            "must be at most 16",
        );
        for key in action.credentials.iter().take(FIELDS_MAX) {
            match fields {
                Some(fields) => self.unless(
                    fields.iter().any(|field| &field.key == key),
                    &place,
                    &format!(
                        "needs the credential `{key}`, which the credential schema does not name"
                    ),
                ),
                None => self.name(&format!("{place}/credentials"), key, '_'),
            }
        }
        self.unless(
            action.scopes.len() <= SCOPES_MAX,
            &format!("{place}/scopes"),
            "must be at most 16",
        );
        for scope in action.scopes.iter().take(SCOPES_MAX) {
            let at = format!("{place}/scopes/{}", scope.name);
            self.name(&at, &scope.name, '_');
            self.pointer(&at, &scope.pointer, "/channel");
        }
        if let Some(pagination) = &action.pagination {
            self.pointer(
                &format!("{place}/pagination"),
                &pagination.cursor,
                "/cursor",
            );
            self.pointer(
                &format!("{place}/pagination"),
                &pagination.next,
                "/next_cursor",
            );
        }
        let at = format!("{place}/examples");
        self.unless(
            (1..=EXAMPLES_MAX).contains(&action.examples.len()),
            &at,
            "must be 1 to 16: people and models learn from them",
        );
        for example in action.examples.iter().take(EXAMPLES_MAX) {
            self.line(&at, &example.title, 1);
            self.object(&at, &example.params);
        }
    }
    fn fields(&mut self, fields: &[Field]) {
        self.unless(fields.len() <= FIELDS_MAX, "fields", "must be at most 16");
        for field in fields.iter().take(FIELDS_MAX) {
            let place = format!("fields/{}", field.key);
            self.name(&place, &field.key, '_');
            self.line(&format!("{place}/label"), &field.label, 1);
            self.text(&format!("{place}/help"), &field.help, 0);
            self.line(&format!("{place}/placeholder"), &field.placeholder, 0);
            self.at_most(
                &format!("{place}/scopes"),
                &field.scopes,
                CREDENTIAL_SCOPES_MAX,
            );
            for scope in field.scopes.iter().take(CREDENTIAL_SCOPES_MAX) {
                self.line(&format!("{place}/scopes"), scope, 1);
            }
            let same = fields.iter().filter(|other| other.key == field.key);
            self.unless(same.count() == 1, &place, "stands there twice");
            if let Some(oauth) = &field.oauth {
                self.oauth(&place, oauth, fields);
            }
        }
    }
    fn oauth(&mut self, place: &str, oauth: &Oauth, fields: &[Field]) {
        self.url(
            &format!("{place}/oauth/authorize-url"),
            &oauth.authorize_url,
        );
        self.url(&format!("{place}/oauth/token-url"), &oauth.token_url);
        if let Some(url) = &oauth.revoke_url {
            self.url(&format!("{place}/oauth/revoke-url"), url);
        }
        for key in std::iter::once(&oauth.client_id).chain(&oauth.client_secret) {
            self.unless(
                fields.iter().any(|field| &field.key == key),
                &format!("{place}/oauth"),
                &format!("names the client's `{key}`, which is no field"),
            );
        }
        let at = format!("{place}/oauth/scopes");
        self.at_most(&at, &oauth.scopes, CREDENTIAL_SCOPES_MAX);
        for scope in oauth.scopes.iter().take(CREDENTIAL_SCOPES_MAX) {
            self.unless(is_scope_token(scope), &at, "must be scopes as OAuth 2.0 has them (RFC 6749, 3.3): visible ASCII without spaces, quotes and backslashes, one scope an entry");
        }
        let at = format!("{place}/oauth/authorize-params");
        self.at_most(&at, &oauth.authorize_params, AUTHORIZE_PARAMS_MAX);
        for (name, value) in oauth.authorize_params.iter().take(AUTHORIZE_PARAMS_MAX) {
            self.line(&at, name, 1);
            self.line(&at, value, 0);
        }
    }
    fn at_most<T>(&mut self, place: &str, all: &[T], max: usize) {
        self.unless(all.len() <= max, place, &format!("must be at most {max}"));
    }
    fn url(&mut self, place: &str, text: &str) {
        let plain = Url::parse(text).is_ok_and(|url| {
            url.scheme() == "https"
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
        });
        // The parser drops and encodes what is not to be there; people are shown the text.
        let is_as_shown = text.chars().all(|c| c.is_ascii_graphic());
        self.unless(
            plain && is_as_shown && text.len() <= TEXT_CHARS_MAX,
            place,
            "must be an https URL of visible ASCII characters",
        );
    }
    fn pointer(&mut self, place: &str, pointer: &str, example: &str) {
        self.unless(
            pointer.starts_with('/') && is_line(pointer, 1),
            place,
            &format!("must be a JSON Pointer in one line, without control characters: {example}"),
        );
    }
    fn object(&mut self, place: &str, text: &str) {
        let object = text.len() <= SCHEMA_BYTES_MAX
            && serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object());
        self.unless(object, place, "must be JSON objects of at most 65536 bytes");
    }
    fn unless(&mut self, holds: bool, place: &str, problem: &str) {
        if !holds && self.0.len() < FINDINGS_MAX {
            self.0.push(ManifestError {
                place: printable(place, 200),
                problem: printable(problem, TEXT_CHARS_MAX),
            });
        }
    }
    fn name(&mut self, place: &str, name: &str, joiner: char) {
        let shaped = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.len() <= NAME_CHARS_MAX
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == joiner);
        self.unless(shaped, place, &format!("must be lower-case letters, digits and `{joiner}`, beginning with a letter, at most {NAME_CHARS_MAX}"));
    }
    fn text(&mut self, place: &str, text: &str, min: usize) {
        let chars = text.chars().count();
        let plain = (min..=TEXT_CHARS_MAX).contains(&chars) && !text.chars().any(is_unprintable);
        self.unless(
            plain,
            place,
            &format!("must be {min} to {TEXT_CHARS_MAX} characters without control characters"),
        );
    }
    fn line(&mut self, place: &str, text: &str, min: usize) {
        self.unless(
            is_line(text, min),
            place,
            &format!("must be {min} to {TEXT_CHARS_MAX} characters in one line, without control characters"),
        );
    }
    fn schema(&mut self, place: &str, text: &str) {
        if let Err(why) = Schema::compile(text) {
            self.unless(false, place, &why.to_string());
        }
    }
}

/// Control characters, and those that reorder or break a text before a reader's eyes (Unicode TR 36, bidirectional).
pub fn is_unprintable(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Whether a text stands in a line of its own and nothing in it pretends to be another.
fn is_line(text: &str, min: usize) -> bool {
    (min..=TEXT_CHARS_MAX).contains(&text.chars().count())
        && !text.chars().any(|c| c.is_control() || is_unprintable(c))
}

/// What is told of a text that may hold anything.
fn printable(text: &str, chars_max: usize) -> String {
    let shown = |c: char| match c.is_control() || is_unprintable(c) {
        true => char::REPLACEMENT_CHARACTER,
        false => c,
    };
    text.chars().take(chars_max).map(shown).collect()
}

/// RFC 6749, 3.3.
fn is_scope_token(text: &str) -> bool {
    (1..=TEXT_CHARS_MAX).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\'))
}

/// The characters of an SPDX expression; whether the licences exist is for whoever reviews it.
fn is_licence(text: &str) -> bool {
    (1..=TEXT_CHARS_MAX).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || " .-+():".contains(c))
}

fn is_semver(text: &str) -> bool {
    text.len() <= VERSION_CHARS_MAX && Version::parse(text).is_ok()
}

fn is_host_pattern(pattern: &str) -> bool {
    let name = pattern.strip_prefix("*.").unwrap_or(pattern);
    let labels: Vec<_> = name.split('.').collect();
    let label = |l: &&str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let is_address = labels.iter().all(|l| l.bytes().all(|b| b.is_ascii_digit()));
    let is_too_wide = name != pattern && is_registry(name);
    name.len() <= 253
        && labels.len() >= 2
        && labels.iter().all(label)
        && !is_address
        && !is_too_wide
}

/// Whether anybody may register names below it, as below `co.uk`: the first part of the public suffix list. (Its second
/// part is of services that give each customer a name, as below `myshopify.com`: they are what a wildcard is for.)
fn is_registry(name: &str) -> bool {
    psl::suffix(name.as_bytes())
        .is_some_and(|suffix| suffix == name && suffix.typ() == Some(psl::Type::Icann))
}

/// Whether a pattern covers a host: exactly, or with `*.` for exactly one label.
pub fn host_allowed(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(rest) => host
            .split_once('.')
            .is_some_and(|(first, tail)| !first.is_empty() && tail == rest),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_patterns_are_names_and_nothing_else() {
        for good in [
            "slack.com",
            "*.atlassian.net",
            "api.github.com",
            "xn--bcher-kva.example",
            "*.myshopify.com",
            "*.example.co.uk",
            "co.uk",
        ] {
            assert!(is_host_pattern(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "*.",
            "com",
            "https://slack.com",
            "slack.com:443",
            "slack.com/api",
            "127.0.0.1",
            "a.*.com",
            "Slack.com",
            "-a.com",
            "user@slack.com",
            "bücher.example",
            "*.co.uk",
            "*.com.br",
        ] {
            assert!(!is_host_pattern(bad), "{bad}");
        }
    }

    /// One finding, and where.
    fn found(check: impl FnOnce(&mut Findings)) -> Vec<String> {
        let mut findings = Findings(Vec::new());
        check(&mut findings);
        findings.0.into_iter().map(|e| e.place).collect()
    }

    fn field() -> Field {
        Field {
            key: "token".into(),
            kind: credentials::Kind::OauthToken,
            required: true,
            label: "Token".into(),
            help: "Where it is found.\nAnd how.".into(),
            placeholder: "xoxb-...".into(),
            scopes: vec!["Contents: read and write".into()],
            oauth: Some(Oauth {
                authorize_url: "https://id.example/authorize".into(),
                token_url: "https://id.example/token".into(),
                revoke_url: None,
                scopes: vec!["https://id.example/auth/mail.modify".into()],
                authorize_params: vec![("access_type".into(), "offline".into())],
                client_id: "token".into(),
                client_secret: None,
                client_authentication: credentials::ClientAuthentication::Body,
            }),
        }
    }

    /// What is found of a field in which one thing is otherwise.
    fn field_with(change: impl FnOnce(&mut Field, &mut Oauth)) -> Vec<String> {
        let mut field = field();
        let mut oauth = field.oauth.take().unwrap();
        change(&mut field, &mut oauth);
        field.oauth = Some(oauth);
        found(|f| f.fields(&[field]))
    }

    #[test]
    fn nothing_that_people_agree_to_writes_over_another_line() {
        assert!(field_with(|_, _| {}).is_empty());
        for text in [
            "\u{1b}[2A\u{1b}[2Khosts         slack.com",
            "repo\nhosts         slack.com",
            "repo\rhosts",
            "\0",
            "\u{202e}repo",
            "repo\u{2028}hosts",
            "",
        ] {
            let places = |places: Vec<String>| assert_eq!(places.len(), 1, "{text:?}");
            places(field_with(|field, _| field.label = text.into()));
            places(field_with(|field, _| field.scopes.push(text.into())));
            places(field_with(|_, oauth| oauth.scopes.push(text.into())));
            places(field_with(|_, oauth| {
                oauth.authorize_params.push((text.into(), "x".into()))
            }));
            places(field_with(|_, oauth| {
                oauth.token_url.push_str(&format!("/{text}\t"))
            }));
            places(found(|f| f.pointer("p", &format!("/{text}\n"), "/channel")));
            if !text.is_empty() {
                places(field_with(|field, _| field.placeholder = text.into()));
                places(field_with(|_, oauth| {
                    oauth.authorize_params.push(("x".into(), text.into()))
                }));
            }
        }
        // Two scopes that look like one.
        assert_eq!(
            field_with(|_, oauth| oauth.scopes.push("mail.read admin".into())),
            ["fields/token/oauth/scopes"]
        );
    }

    #[test]
    fn nobody_reads_a_thousand_scopes() {
        let many = || vec!["scope".to_owned(); 65];
        assert_eq!(
            field_with(|field, _| field.scopes = many()),
            ["fields/token/scopes"]
        );
        assert_eq!(
            field_with(|_, oauth| oauth.scopes = many()),
            ["fields/token/oauth/scopes"]
        );
        let params = || vec![("name".to_owned(), "value".to_owned()); 17];
        assert_eq!(
            field_with(|_, oauth| oauth.authorize_params = params()),
            ["fields/token/oauth/authorize-params"]
        );
    }

    #[test]
    fn what_is_told_of_a_bad_name_is_printable() {
        let told = found(|f| f.name("fields/\u{1b}[2K", "\u{1b}[2K", '_'));
        assert_eq!(told, ["fields/\u{fffd}[2K"]);
    }

    #[test]
    fn a_version_is_semantic_to_its_end() {
        for good in ["1.4.0", "1.4.0-rc.1", "0.0.1+build.5"] {
            assert!(is_semver(good), "{good}");
        }
        for bad in [
            "1.4",
            "1.4.0-",
            "1.4.0-\u{1b}[2K",
            "1.4.0-a b",
            "1.4.0-\0",
            "v1.4.0",
            "01.4.0",
        ] {
            assert!(!is_semver(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        assert!(host_allowed("*.atlassian.net", "acme.atlassian.net"));
        for other in [
            "atlassian.net",
            "a.b.atlassian.net",
            ".atlassian.net",
            "evilatlassian.net",
        ] {
            assert!(!host_allowed("*.atlassian.net", other), "{other}");
        }
        assert!(!host_allowed("slack.com", "slack.com.evil.example"));
    }
}
