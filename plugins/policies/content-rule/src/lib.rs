//! Patterns that must or must not occur in the parameters of a call.

mod pattern;
mod texts;

use pattern::Pattern;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use servicetsunami_plugin::{
    Calls, Decision, Effect, Policy, Roles, Violation, about, allow, deny, export_policy,
    policy_types::Request, strictest, violation,
};
use texts::{Names, Place};

const RULES_MAX: usize = 32;
const PLACES_MAX: usize = 16;
const REASON_CHARS_MAX: usize = 300;
/// The largest parameters that are read, in bytes. This and the next keep a decision well within the time that the
/// gateway gives a policy, so that what is too large is denied for that reason, and on a busy machine too.
const PARAMS_BYTES_MAX: usize = 256 << 10;
/// What all rules together may search in one call, in bytes: a text counts once for each rule that looks at it.
const SEARCHED_BYTES_MAX: usize = 1 << 20;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// All are held against a call; the strictest that it breaks decides.
    #[schemars(length(min = 1, max = 32))]
    rules: Vec<RuleSettings>,
    /// Who may approve where a rule asks. One of these roles is enough; empty for whoever the tenant's rules name.
    #[serde(default)]
    roles: Roles,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RuleSettings {
    /// A regular expression, found anywhere in a text unless it has `^` and `$`.
    #[schemars(length(min = 1, max = 500))]
    pattern: String,
    /// Whether `a` finds `A` as well.
    #[serde(default)]
    ignore_case: bool,
    /// The texts that are looked at: JSON Pointers into the parameters, to a text or to what holds some; `*` for all.
    #[serde(default = "everywhere")]
    #[schemars(length(min = 1, max = 16))]
    at: Vec<Place>,
    /// Where the pattern has to occur.
    #[serde(default)]
    must_occur: MustOccur,
    /// What becomes of a call that breaks the rule.
    #[serde(default)]
    effect: Effect,
    /// What whoever called, or the approver, reads.
    #[schemars(length(min = 1, max = 300))]
    reason: String,
    /// The calls that the rule is for; all where it is left out.
    #[serde(default)]
    calls: Calls,
}

fn everywhere() -> Vec<Place> {
    vec![Place::everywhere()]
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum MustOccur {
    /// In none of the texts, nor in the names of what a free-form object holds.
    #[default]
    Nowhere,
    /// In one text at least.
    Somewhere,
    /// In each text; where there is none, the rule is kept.
    Everywhere,
}

struct Rule {
    pattern: Pattern,
    at: Vec<Place>,
    must_occur: MustOccur,
    effect: Effect,
    reason: String,
    calls: Calls,
}

struct Rules {
    rules: Vec<Rule>,
    roles: Roles,
}

pub fn policy() -> Policy {
    Policy::prepared(
        "content-rule",
        about!("Content rules", ["governance", "data-protection"]),
        prepare,
        decide,
    )
    .example(|| json!({
        "rules": [
            { "pattern": "\\b(?:\\d[ -]?){13,16}\\b", "reason": "card numbers do not leave the company" },
            { "pattern": "confidential|internal only", "ignore_case": true, "effect": "ask", "reason": "it may be confidential", "calls": { "risks": ["write", "destructive"] } }
        ],
        "roles": ["admin"]
    }))
    .example(|| json!({
        "rules": [{
            "pattern": "^[^@]+@example\\.com$",
            "at": ["/to", "/cc", "/bcc"],
            "must_occur": "everywhere",
            "reason": "e-mail goes to our own people only",
            "calls": { "actions": ["gmail.send_message"] }
        }]
    }))
    .example(|| json!({
        "rules": [{
            "pattern": "\\b[A-Z]{2,8}-[0-9]+\\b",
            "at": ["/title", "/body"],
            "must_occur": "somewhere",
            "reason": "name the ticket, as in ABC-123, in the title or the body",
            "calls": { "actions": ["github.create_pull_request"] }
        }]
    }))
}

fn prepare(settings: Settings) -> Result<Rules, Violation> {
    let rules = settings.rules.len();
    if !(1..=RULES_MAX).contains(&rules) {
        return Err(violation(
            "/rules",
            format!("there are {rules}: write 1 to {RULES_MAX}"),
        ));
    }
    let rules = settings.rules.into_iter().enumerate().map(|(index, rule)| {
        Rule::new(rule)
            .map_err(|wrong| violation(format!("/rules/{index}{}", wrong.pointer), wrong.message))
    });
    Ok(Rules {
        rules: rules.collect::<Result<_, _>>()?,
        roles: settings.roles,
    })
}

impl Rule {
    fn new(settings: RuleSettings) -> Result<Self, Violation> {
        let pattern = Pattern::new(&settings.pattern, settings.ignore_case)
            .map_err(|wrong| violation("/pattern", wrong))?;
        let places = settings.at.len();
        if !(1..=PLACES_MAX).contains(&places) {
            return Err(violation(
                "/at",
                format!(
                    "there are {places} places: write 1 to {PLACES_MAX}, or leave it out for all texts"
                ),
            ));
        }
        let chars = settings.reason.chars().count();
        if !(1..=REASON_CHARS_MAX).contains(&chars) || settings.reason.trim().is_empty() {
            return Err(violation(
                "/reason",
                format!("say in 1 to {REASON_CHARS_MAX} characters what the rule is"),
            ));
        }
        Ok(Self {
            pattern,
            at: settings.at,
            must_occur: settings.must_occur,
            effect: settings.effect,
            reason: settings.reason,
            calls: settings.calls,
        })
    }

    /// What the call breaks of the rule, for people; none where it keeps the rule.
    fn broken_by(&self, params: &Value, budget: &mut Budget) -> Option<String> {
        let (names, wanted) = match self.must_occur {
            MustOccur::Nowhere => (Names::Read, true),
            MustOccur::Somewhere => (Names::Ignored, true),
            MustOccur::Everywhere => (Names::Ignored, false),
        };
        let mut cache = self.pattern.cache();
        let found = texts::find(params, &self.at, names, &mut |text| {
            budget.take(text) && self.pattern.is_in(text, &mut cache) == wanted
        });
        match (self.must_occur, found) {
            (MustOccur::Somewhere, None) => Some(self.reason.clone()),
            (MustOccur::Somewhere, Some(_)) | (_, None) => None,
            (_, Some(at)) if at.is_empty() => Some(self.reason.clone()),
            (_, Some(at)) => Some(format!("{} (at {at})", self.reason)),
        }
    }
}

/// Bytes that may still be searched.
struct Budget {
    bytes: usize,
    is_exceeded: bool,
}

impl Budget {
    fn take(&mut self, text: &str) -> bool {
        match self.bytes.checked_sub(text.len()) {
            Some(rest) => self.bytes = rest,
            None => self.is_exceeded = true,
        }
        !self.is_exceeded
    }
}

fn decide(request: &Request, settings: &Rules) -> Decision {
    let mut rules = settings
        .rules
        .iter()
        .filter(|rule| rule.calls.include(request))
        .peekable();
    if rules.peek().is_none() {
        return allow();
    }
    if request.params.len() > PARAMS_BYTES_MAX {
        return deny(format!(
            "the parameters have {} bytes, and the rules on content can read {PARAMS_BYTES_MAX}: send less at once, or \
             have no rule for this call",
            request.params.len()
        ));
    }
    let params: Value = match serde_json::from_str(&request.params) {
        Ok(params) => params,
        Err(error) => {
            return deny(format!(
                "the parameters cannot be read, and so no rule on their content can be kept: {error}"
            ));
        }
    };
    let mut budget = Budget {
        bytes: SEARCHED_BYTES_MAX,
        is_exceeded: false,
    };
    let mut found = Vec::new();
    for rule in rules {
        let broken = rule.broken_by(&params, &mut budget);
        found.extend(broken.map(|reason| (rule.effect, reason)));
    }
    if budget.is_exceeded {
        return deny(format!(
            "the parameters hold more text than the rules on content can search ({SEARCHED_BYTES_MAX} bytes, over all \
             rules): send less at once, or have the rules look at fewer places"
        ));
    }
    strictest(&found, &settings.roles)
}

export_policy!(policy);

#[cfg(test)]
mod tests {
    use super::*;
    use servicetsunami_plugin::{
        Risk, ask,
        testing::{
            PolicyRequest,
            Said::{Allow, Ask, Deny},
            denied, readme_shows_examples, said, settings_are_sound,
        },
    };

    fn call(params: &Value) -> PolicyRequest {
        PolicyRequest::new("gmail", "send_message")
            .risk(Risk::Write)
            .params(params.clone())
    }

    /// One rule: what it says besides a reason.
    fn rule(rule: Value) -> Value {
        let mut rule = rule;
        rule["reason"] = json!("not so");
        json!({ "rules": [rule] })
    }

    #[track_caller]
    fn table(settings: &Value, cases: &[(Value, bool)]) {
        for (params, kept) in cases {
            let decision = call(params).decide(policy, settings.clone());
            assert_eq!(decision == allow(), *kept, "{params}: {decision:?}");
        }
    }

    #[test]
    fn the_settings_are_sound_and_the_readme_shows_them() {
        settings_are_sound(policy);
        readme_shows_examples(policy);
    }

    #[test]
    fn what_must_occur_nowhere_is_found_wherever_it_hides() {
        table(
            &rule(json!({ "pattern": "secret|4111" })),
            &[
                (json!({}), true),
                (json!({ "text": "hello" }), true),
                (json!({ "text": "a secret" }), false),
                (json!({ "text": "a Secret" }), true),
                (json!({ "to": ["a", "b", ["secret"]] }), false),
                (json!({ "a": { "b": [{ "c": "secret" }] } }), false),
                (json!({ "number": 4_111_111 }), false),
                (json!({ "number": 1.4111 }), false),
                (json!({ "number": 12 }), true),
                (json!({ "headers": { "secret": "x" } }), false),
                (json!({ "list": [{ "secret": null }] }), false),
                // The names of the parameters are those of the action's schema.
                (json!({ "secret": "x" }), true),
                (json!({ "flag": true, "nothing": null }), true),
                (json!("secret"), false),
                (json!([]), true),
            ],
        );
        let escaped =
            PolicyRequest::new("gmail", "send_message").params_text(r#"{"text":"\u0073ecret"}"#);
        denied(escaped.decide(policy, rule(json!({ "pattern": "secret" }))));
    }

    #[test]
    fn what_must_occur_everywhere_is_in_each_text() {
        let ours = rule(json!({
            "pattern": "^[^@]+@example\\.com$", "at": ["/to", "/cc"], "must_occur": "everywhere"
        }));
        table(
            &ours,
            &[
                (json!({ "to": "ada@example.com" }), true),
                (
                    json!({ "to": ["ada@example.com", "bob@example.com"] }),
                    true,
                ),
                (
                    json!({ "to": ["ada@example.com", "eve@evil.example"] }),
                    false,
                ),
                (
                    json!({ "to": "ada@example.com", "cc": "eve@evil.example" }),
                    false,
                ),
                (json!({ "to": "ada@example.com", "cc": null }), true),
                (
                    json!({ "to": "ada@example.com", "bcc": "eve@evil.example" }),
                    true,
                ),
                (json!({ "to": "ada@example.com\neve@evil.example" }), false),
                (json!({ "to": "eve@evil.example?x=ada@example.com" }), false),
                (json!({ "to": "" }), false),
                (json!({ "to": 7 }), false),
                (
                    json!({ "to": { "ada@example.com": "eve@evil.example" } }),
                    false,
                ),
                // Nothing there is nothing wrong there.
                (json!({ "to": [] }), true),
                (json!({}), true),
            ],
        );
    }

    #[test]
    fn what_must_occur_somewhere_is_in_one_text() {
        let ticket = rule(json!({
            "pattern": "[A-Z]+-[0-9]+", "at": ["/title", "/body"], "must_occur": "somewhere"
        }));
        table(
            &ticket,
            &[
                (json!({ "title": "ABC-1: mend it" }), true),
                (json!({ "title": "mend it", "body": "see ABC-1" }), true),
                (json!({ "title": "mend it", "body": "see above" }), false),
                (json!({ "title": "mend it", "comment": "ABC-1" }), false),
                (json!({ "body": { "ABC-1": "x" } }), false),
                (json!({ "title": null }), false),
                (json!({}), false),
            ],
        );
    }

    #[test]
    fn places_are_json_pointers_into_the_parameters() {
        let at = |at: Value| rule(json!({ "pattern": "secret", "at": at }));
        table(
            &at(json!(["/text"])),
            &[
                (json!({ "text": "secret" }), false),
                (json!({ "text": { "deep": ["secret"] } }), false),
                (json!({ "text": { "secret": 1 } }), false),
                (json!({ "other": "secret" }), true),
                (json!({ "a": { "text": "secret" } }), true),
            ],
        );
        table(
            &at(json!(["/to/1", "/a~1b/~0"])),
            &[
                (json!({ "to": ["secret", "x"] }), true),
                (json!({ "to": ["x", "secret"] }), false),
                (json!({ "a/b": { "~": "secret" } }), false),
                (json!({ "a": { "b": "secret" } }), true),
            ],
        );
        table(
            &at(json!(["/text", "*"])),
            &[(json!({ "other": "secret" }), false)],
        );
    }

    #[test]
    fn the_reason_says_where_and_repeats_nothing_that_was_found() {
        let reason = |params: Value| {
            denied(call(&params).decide(policy, rule(json!({ "pattern": "secret" }))))
        };
        assert_eq!(
            reason(json!({ "a/b": ["x", "secret"] })),
            "not so (at /a~1b/1)"
        );
        assert_eq!(
            reason(json!({ "headers": { "my secret": "x" } })),
            "not so (at /headers)"
        );
        let long = "n".repeat(5000);
        let told = reason(json!({ long: "secret" }));
        assert!(told.len() < 300, "{}", told.len());
    }

    #[test]
    fn the_strictest_rule_that_is_broken_decides() {
        let settings = json!({
            "rules": [
                { "pattern": "internal", "effect": "ask", "reason": "it is internal" },
                { "pattern": "password", "reason": "no passwords" },
                { "pattern": "draft", "ignore_case": true, "effect": "ask", "reason": "it is a draft" },
                { "pattern": "x", "reason": "no deletions of x", "calls": { "risks": ["destructive"] } }
            ],
            "roles": ["admin"]
        });
        let decide = |text: &str| call(&json!({ "text": text })).decide(policy, settings.clone());
        for (text, expected) in [
            ("hello x", Allow),
            ("internal", Ask),
            ("internal password", Deny),
            ("password", Deny),
            ("DRAFT", Ask),
        ] {
            assert_eq!(said(&decide(text)), expected, "{text}");
        }
        let both =
            ask("it is internal (at /text); it is a draft (at /text)").roles(&["admin".into()]);
        assert_eq!(decide("an internal Draft"), both.into());
        let deletion = call(&json!({ "text": "x" })).risk(Risk::Destructive);
        assert_eq!(
            denied(deletion.decide(policy, settings)),
            "no deletions of x (at /text)"
        );
    }

    #[test]
    fn the_examples_do_what_they_say() {
        let example = |index: usize| -> Value {
            let examples = policy().manifest().examples;
            serde_json::from_str(&examples[index]).expect("an example is JSON")
        };
        table(
            &example(0),
            &[
                (json!({ "text": "card 4111 1111 1111 1111, please" }), false),
                (json!({ "text": "card 4111-1111-1111-1111" }), false),
                (json!({ "card": 4_111_111_111_111_111_u64 }), false),
                (json!({ "text": "call 555-0100" }), true),
                (json!({ "text": "CONFIDENTIAL" }), false),
            ],
        );
        table(
            &example(1),
            &[
                (json!({ "to": ["ada@example.com"] }), true),
                (
                    json!({ "to": ["ada@example.com"], "bcc": ["eve@evil.example"] }),
                    false,
                ),
            ],
        );
        let request = |title: &str| {
            PolicyRequest::new("github", "create_pull_request")
                .params(json!({ "title": title }))
                .decide(policy, example(2))
        };
        assert_eq!(request("ABC-123: mend it"), allow());
        assert_eq!(
            denied(request("mend it")),
            "name the ticket, as in ABC-123, in the title or the body"
        );
    }

    #[test]
    fn parameters_that_cannot_be_read_deny() {
        let settings = rule(json!({ "pattern": "secret" }));
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for params in ["", "{", "no JSON", r#"{"a":"\ud800"}"#, &deep] {
            let call = PolicyRequest::new("gmail", "send_message").params_text(params);
            let reason = denied(call.decide(policy, settings.clone()));
            assert!(reason.contains("cannot be read"), "{reason}");
            // But not where no rule is for the call.
            let mut other = settings.clone();
            other["rules"][0]["calls"] = json!({ "skills": ["slack"] });
            assert_eq!(call.decide(policy, other), allow());
        }
        let nested = format!("{}\"secret\"{}", "[".repeat(120), "]".repeat(120));
        let call = PolicyRequest::new("gmail", "send_message").params_text(&nested);
        assert!(denied(call.decide(policy, settings)).starts_with("not so (at /0/0/0"));
    }

    #[test]
    fn more_than_can_be_searched_denies() {
        let text = |bytes: usize| call(&json!({ "text": "a".repeat(bytes) }));
        let one = rule(json!({ "pattern": "secret" }));
        let frame = r#"{"text":""}"#.len();
        assert_eq!(
            text(PARAMS_BYTES_MAX - frame).decide(policy, one.clone()),
            allow()
        );
        let reason = denied(text(PARAMS_BYTES_MAX - frame + 1).decide(policy, one.clone()));
        assert!(reason.contains("262145 bytes"), "{reason}");

        // Each rule looks at the text once more.
        let rules = SEARCHED_BYTES_MAX / (200 << 10);
        let many = |count: usize| json!({ "rules": vec![one["rules"][0].clone(); count] });
        assert_eq!(text(200 << 10).decide(policy, many(rules)), allow());
        let reason = denied(text(200 << 10).decide(policy, many(rules + 1)));
        assert!(reason.contains("more text than the rules"), "{reason}");
    }

    #[test]
    fn settings_that_cannot_be_used_deny_and_say_what_to_mend() {
        let many =
            json!({ "rules": vec![json!({ "pattern": "a", "reason": "r" }); RULES_MAX + 1] });
        let places = vec!["/a"; PLACES_MAX + 1];
        let cases = [
            (json!({}), "missing field `rules`"),
            (json!({ "rules": [] }), "/rules: there are 0: write 1 to 32"),
            (many, "/rules: there are 33: write 1 to 32"),
            (
                json!({ "rules": [{ "pattern": "a" }] }),
                "/rules/0: missing field `reason`",
            ),
            (
                json!({ "rules": [{ "pattern": "a", "reason": " " }] }),
                "/rules/0/reason: say in 1 to 300 characters",
            ),
            (
                json!({ "rules": [{ "pattern": "a", "reason": "r".repeat(301) }] }),
                "/rules/0/reason: say in",
            ),
            (
                json!({ "rules": [{ "pattern": "a", "reason": "r" }, { "pattern": "(", "reason": "r" }] }),
                "/rules/1/pattern: is no regular expression: unclosed group",
            ),
            (
                rule(json!({ "pattern": "" })),
                "/rules/0/pattern: has 0 characters",
            ),
            (
                rule(json!({ "pattern": "(?:a{100}){100}" })),
                "/rules/0/pattern: comes to more than",
            ),
            (
                rule(json!({ "pattern": "a", "at": [] })),
                "/rules/0/at: there are 0 places",
            ),
            (
                rule(json!({ "pattern": "a", "at": places })),
                "/rules/0/at: there are 17 places",
            ),
            (
                rule(json!({ "pattern": "a", "at": ["text"] })),
                "/rules/0/at/0: `text` is no JSON Pointer",
            ),
            (
                rule(json!({ "pattern": "a", "at": [""] })),
                "/rules/0/at/0: `` is no JSON Pointer",
            ),
            (
                rule(json!({ "pattern": "a", "at": ["/a~2"] })),
                "/rules/0/at/0: `/a~2` is no JSON Pointer",
            ),
            (
                rule(json!({ "pattern": "a", "must_occur": "never" })),
                "/rules/0/must_occur: unknown variant `never`, expected one of `nowhere`",
            ),
            (
                rule(json!({ "pattern": "a", "effect": "warn" })),
                "/rules/0/effect: unknown variant `warn`, expected `deny` or `ask`",
            ),
        ];
        for (settings, complaint) in cases {
            let reason = denied(call(&json!({})).decide(policy, settings.clone()));
            assert!(reason.contains(complaint), "{settings}: {reason}");
        }
    }
}
