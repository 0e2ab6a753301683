#![doc = include_str!("../README.md")]

mod adapter;
mod golden;
mod policy;
mod report;

pub use golden::{Difference, End, Exchange, Expected, Golden, GoldenReply, Played, Wanted, play};
pub use report::{Budget, Facts, Finding, Report, Severity};

use report::Findings;
use serde_json::Value;
use std::{sync::Arc, time::Instant};
use tsunami_plugin_host::{
    LoadError, Plugin, PluginError, Schema, check_credential_schema, check_manifest, check_policy,
};

/// How often each call is made anew to see whether it answers the same.
const REPETITIONS: usize = 4;

/// Checks a component, with what came of loading it and the exchanges that its author recorded. Calls the plugin, so
/// away from async threads.
pub fn check(
    loaded: Result<Arc<Plugin>, LoadError>,
    component: &[u8],
    golden: &[Golden],
) -> Report {
    check_within(Budget::default(), loaded, component, golden)
}

/// The same within a budget. What it does not come to makes an error of the report, and [`Facts::truncated`].
pub fn check_within(
    budget: Budget,
    loaded: Result<Arc<Plugin>, LoadError>,
    component: &[u8],
    golden: &[Golden],
) -> Report {
    let mut findings = Findings::default();
    let mut facts = Facts::of(component, budget);
    match loaded {
        Ok(plugin) => examine(&plugin, golden, &mut facts, &mut findings),
        Err(error) => {
            let (problem, mend) = not_loaded(&error);
            findings.error("component", problem, &mend);
        }
    }
    findings.into_report(facts)
}

/// What is wrong with a component that does not load, and how to mend it.
fn not_loaded(error: &LoadError) -> (String, String) {
    let said = error.to_string();
    let how = match error {
        // These say both.
        LoadError::TooLarge { .. }
        | LoadError::CoreModule
        | LoadError::NotAComponent { .. }
        | LoadError::Import(_) => match said.split_once(". ") {
            Some((problem, mend)) => return (problem.to_owned(), mend.to_owned()),
            None => "Build it as `tsunami plugin new` says",
        },
        LoadError::Invalid(_) | LoadError::Link(_) | LoadError::Exports(_) => {
            "Build it against the contract of this version, with the project and the kit that `tsunami plugin new` writes"
        }
        LoadError::TooMuch(_) => {
            "Ask for less: memories, tables and instances of a plugin have limits"
        }
        LoadError::Compile(_) => {
            "Build it smaller, with `--release`; where the machine was busy, check it again"
        }
        LoadError::Busy => "Check it again",
    };
    (said, how.to_owned())
}

fn examine(plugin: &Plugin, golden: &[Golden], facts: &mut Facts, findings: &mut Findings) {
    let kinds = plugin.kinds();
    facts.adapter = kinds.adapter;
    facts.credentials = kinds.credentials;
    facts.policy = kinds.policy;
    let schema = kinds
        .credentials
        .then(|| {
            same(findings, "credential-schema.describe", || {
                plugin.credentials()
            })
        })
        .flatten();
    if kinds.adapter
        && let Some(manifest) = same(findings, "skill-adapter.describe", || plugin.describe())
    {
        let fields = schema.as_ref().map(|schema| &schema.fields[..]);
        findings.of_manifest("manifest", check_manifest(&manifest, fields));
        if let Some(schema) = &schema {
            findings.of_manifest(
                "credentials",
                check_credential_schema(schema, Some(&manifest.skill)),
            );
        }
        facts.name = manifest.skill.clone();
        facts.version = manifest.about.version.clone();
        facts.actions = manifest.actions.len();
        adapter::examine(plugin, &manifest, facts, findings);
        golden::examine(plugin, &manifest, golden, findings);
    } else if let Some(schema) = &schema {
        findings.of_manifest("credentials", check_credential_schema(schema, None));
        facts.name = schema.skill.clone();
        facts.version = schema.about.version.clone();
    }
    if let Some(schema) = &schema {
        check_values(plugin, schema, facts, findings);
    }
    if kinds.policy
        && let Some(manifest) = same(findings, "routing-policy.describe", || {
            plugin.describe_policy()
        })
    {
        findings.of_manifest("policy", check_policy(&manifest));
        facts.name = manifest.name.clone();
        facts.version = manifest.about.version.clone();
        policy::examine(plugin, &manifest, facts, findings);
    }
}

/// What a function answers, where it answers the same each time.
fn same<T: PartialEq>(
    findings: &mut Findings,
    place: &str,
    call: impl Fn() -> Result<tsunami_plugin_host::Called<T>, PluginError>,
) -> Option<T> {
    let first = match call() {
        Ok(called) => called.value,
        Err(error) => {
            findings.error(
                place,
                format!("it failed: {error}"),
                "make it answer, without I/O and within the limits",
            );
            return None;
        }
    };
    for _ in 1..REPETITIONS {
        if !matches!(call(), Ok(again) if again.value == first) {
            findings.error(
                place,
                "it does not answer the same each time",
                "take nothing but the arguments: no clock, no randomness, no state",
            );
            break;
        }
    }
    Some(first)
}

/// Values that every `check` must bear.
fn check_values(
    plugin: &Plugin,
    schema: &tsunami_plugin_host::credentials::Schema,
    facts: &mut Facts,
    findings: &mut Findings,
) {
    let long = "x".repeat(16_384);
    for field in &schema.fields {
        if facts.is_spent() {
            return;
        }
        let place = format!("credentials/{}", field.key);
        for value in ["", " ", "\0", "\r\n", "ä€🦀", &long] {
            let began = Instant::now();
            let answer = plugin.check(&field.key, value);
            facts.took(began.elapsed());
            if let Err(error) = answer {
                findings.error(
                    &place,
                    format!(
                        "`check` failed for a value of {} bytes: {error}",
                        value.len()
                    ),
                    "answer with a violation instead",
                );
                break;
            }
        }
        if matches!(plugin.check(&field.key, ""), Ok(Ok(()))) {
            findings.warning(&place, "`check` takes an empty value", "answer `empty`");
        }
    }
}

/// A schema, where the text is one; where not, the manifest's check has said why.
fn schema(text: &str) -> Option<Schema> {
    Schema::compile(text).ok()
}

/// What is wrong with a value, in a line.
fn violations(schema: &Schema, value: &Value) -> Option<String> {
    let found = schema.violations(value, 3);
    let told: Vec<String> = found
        .iter()
        .map(|found| format!("{} {}", found.pointer, found.message))
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_load_says_what_is_wrong_and_apart_from_it_how_to_mend_that() {
        let told = |said: &str| said.to_owned();
        for error in [
            LoadError::TooLarge { bytes: 9, max: 8 },
            LoadError::CoreModule,
            LoadError::NotAComponent {
                begins: told("the bytes 67"),
            },
            LoadError::Import(vec![told("wasi:sockets/tcp@0.2.0")]),
            LoadError::Invalid(told("a type is missing. It is the second")),
            LoadError::Exports(told("nothing")),
            LoadError::Busy,
        ] {
            let report = check(Err(error), b"garbage", &[]);
            assert!(!report.conforms);
            let finding = &report.findings[0];
            assert!(finding.mend.len() > 10, "{finding:?}");
            assert!(!finding.problem.contains(&finding.mend), "{finding:?}");
            assert!(report.to_string().starts_with("7 bytes"), "{report}");
        }
    }
}
