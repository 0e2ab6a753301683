use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    time::{Duration, Instant},
};
use tsunami_plugin_host::ManifestError;

/// Findings that a report lists.
const FINDINGS_MAX: usize = 200;

/// What one check may take: it calls strangers' code as often as their examples have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub calls_max: usize,
    pub time_max: Duration,
}

impl Default for Budget {
    /// For whoever waits for it: several times what the largest of the shipped plugins takes.
    fn default() -> Self {
        Self {
            calls_max: 50_000,
            time_max: Duration::from_secs(300),
        }
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// It works, and people will stumble.
    Warning,
    /// The contract is broken: the plugin is not taken.
    Error,
}

/// Something that the check came upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub severity: Severity,
    /// `actions/send_message/examples/0`
    pub place: String,
    pub problem: String,
    /// How to mend it.
    pub mend: String,
}

/// What was measured on the way.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    pub name: String,
    pub version: String,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    pub bytes: usize,
    pub adapter: bool,
    pub credentials: bool,
    pub policy: bool,
    pub actions: usize,
    /// Calls that the check made.
    pub calls: usize,
    /// The longest of them, in microseconds.
    pub slowest_us: u64,
    /// Whether the check was stopped before it had come to everything.
    #[serde(default)]
    pub truncated: bool,
    #[serde(skip)]
    ends: Option<(usize, Instant)>,
}

impl Facts {
    pub(crate) fn of(component: &[u8], budget: Budget) -> Self {
        let until = Instant::now() + budget.time_max;
        Self {
            ends: Some((budget.calls_max, until)),
            digest: hex::encode(Sha256::digest(component)),
            bytes: component.len(),
            ..Self::default()
        }
    }

    /// Whether no more calls are to be made. Whoever asks leaves something out then.
    pub(crate) fn is_spent(&mut self) -> bool {
        let is_spent = self
            .ends
            .is_some_and(|(calls_max, until)| self.calls >= calls_max || Instant::now() >= until);
        self.truncated |= is_spent;
        is_spent
    }

    pub(crate) fn took(&mut self, time: std::time::Duration) {
        self.calls += 1;
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.slowest_us = self.slowest_us.max(micros);
    }
}

/// What the check says of a component.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Whether there is no error.
    pub conforms: bool,
    pub facts: Facts,
    /// The worst first.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = &self.facts;
        if facts.name.is_empty() {
            writeln!(f, "{} bytes that say nothing of themselves", facts.bytes)?;
        } else {
            writeln!(
                f,
                "{} {}: {} bytes, {} actions, {} calls made, the slowest took {} us",
                facts.name,
                facts.version,
                facts.bytes,
                facts.actions,
                facts.calls,
                facts.slowest_us
            )?;
        }
        for finding in &self.findings {
            let severity = match finding.severity {
                Severity::Error => "error  ",
                Severity::Warning => "warning",
                Severity::Note => "note   ",
            };
            writeln!(f, "{severity}  {}: {}", finding.place, finding.problem)?;
            writeln!(f, "         mend: {}", finding.mend)?;
        }
        let verdict = if self.conforms {
            "it conforms"
        } else {
            "it does not conform"
        };
        write!(f, "{verdict}")
    }
}

/// Plugins write what stands in a finding. People read it in a terminal, and databases take no NUL in JSON.
fn printable(text: &str) -> String {
    let shown = |c: char| match c.is_control() && c != '\n' && c != '\t' {
        true => char::REPLACEMENT_CHARACTER,
        false => c,
    };
    text.chars().map(shown).collect()
}

#[derive(Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    pub fn error(&mut self, place: &str, problem: impl Into<String>, mend: &str) {
        self.add(Severity::Error, place, problem.into(), mend);
    }
    pub fn warning(&mut self, place: &str, problem: impl Into<String>, mend: &str) {
        self.add(Severity::Warning, place, problem.into(), mend);
    }
    pub fn note(&mut self, place: &str, problem: impl Into<String>, mend: &str) {
        self.add(Severity::Note, place, problem.into(), mend);
    }
    pub fn of_manifest(&mut self, place: &str, errors: Vec<ManifestError>) {
        for error in errors {
            self.error(
                &format!("{place}/{}", error.place),
                error.problem,
                "the contract in wit/ says what stands there",
            );
        }
    }
    fn add(&mut self, severity: Severity, place: &str, problem: String, mend: &str) {
        let finding = Finding {
            severity,
            place: printable(place),
            problem: printable(&problem),
            mend: mend.to_owned(),
        };
        if self.0.len() < FINDINGS_MAX && !self.0.contains(&finding) {
            self.0.push(finding);
        }
    }
    pub fn into_report(mut self, facts: Facts) -> Report {
        if facts.truncated {
            // Also where there are as many findings as are listed.
            self.0.push(Finding {
                severity: Severity::Error,
                place: "check".to_owned(),
                problem: format!(
                    "it was stopped after {} calls: whether the rest conforms is not known",
                    facts.calls
                ),
                mend: "have fewer actions and examples, or answer faster".to_owned(),
            });
        }
        self.0
            .sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Report {
            conforms: self
                .0
                .iter()
                .all(|finding| finding.severity != Severity::Error),
            facts,
            findings: self.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_plugin_writes_into_a_finding_is_text() {
        let mut findings = Findings::default();
        findings.error(
            "actions/\u{1b}[2K",
            "it goes to https://a.example/\0",
            "mend it",
        );
        let report = findings.into_report(Facts::default());
        assert_eq!(report.findings[0].place, "actions/\u{fffd}[2K");
        assert_eq!(
            report.findings[0].problem,
            "it goes to https://a.example/\u{fffd}"
        );
    }
}
