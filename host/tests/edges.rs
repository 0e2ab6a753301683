//! The slices' edges, as ARCHITECTURE.md lists them: read from the `use crate::` lines and from paths in the code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What each slice may use besides the ground.
const EDGES: [(&str, &[&str]); 11] = [
    ("tenants", &[]),
    ("traces", &[]),
    ("agents", &["tenants"]),
    ("plugins", &["tenants"]),
    ("marketplace", &["plugins", "tenants"]),
    ("policies", &["plugins", "tenants"]),
    ("vault", &["plugins", "tenants"]),
    ("instances", &["vault", "tenants"]),
    ("oauth", &["plugins", "vault"]),
    (
        "skills",
        &[
            "instances",
            "oauth",
            "plugins",
            "policies",
            "tenants",
            "traces",
            "vault",
        ],
    ),
    ("tasks", &["agents", "skills", "tenants", "traces"]),
];

/// Parts of a slice that belong to it alone.
const PRIVATE: [&str; 1] = ["store"];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files_of(slice: &str) -> Vec<(String, String)> {
    files_in(&sources().join(slice), "")
}

fn files_in(folder: &Path, within: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        let name = format!("{within}{name}");
        if path.is_dir() {
            files.extend(files_in(&path, &format!("{name}/")));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push((name, fs::read_to_string(&path).expect("a file")));
        }
    }
    files
}

/// Every path below `crate::`, with the groups of a `use` taken apart: `crate::{a::{b, c}, d}` gives `a::b`, `a::c`, `d`.
fn paths(source: &str) -> Vec<String> {
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let follows_word = code[..at]
            .chars()
            .last()
            .is_some_and(|c| c.is_alphanumeric() || c == '_');
        if !follows_word {
            expand("", &code[at + "crate::".len()..], &mut found);
        }
    }
    found
}

/// Reads one path, or one group of them, and gives what is left.
fn expand<'a>(prefix: &str, text: &'a str, found: &mut Vec<String>) -> &'a str {
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = expand(prefix, rest.trim_start_matches([',', ' ', '\n']), found);
            rest = rest.trim_start_matches([',', ' ', '\n']);
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            assert!(!rest.is_empty(), "a group without an end");
        }
    }
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let path = if prefix.is_empty() {
        text[..end].to_owned()
    } else {
        format!("{prefix}::{}", &text[..end])
    };
    let rest = &text[end..];
    match rest.strip_prefix("::") {
        Some(more) if !more.starts_with('<') => expand(&path, more, found),
        _ => {
            found.push(path);
            if let Some(renamed) = rest.strip_prefix(" as ") {
                let end = renamed.find([',', '}', ';']).unwrap_or(renamed.len());
                return &renamed[end..];
            }
            rest.strip_prefix('*').unwrap_or(rest)
        }
    }
}

#[test]
fn a_path_is_taken_apart() {
    let source = "use crate::{\n    app::App,\n    skills::{self, Outcome, store::CallRow},\n    db as d,\n};\nfn f() { crate::tasks::g() }";
    assert_eq!(
        paths(source),
        [
            "app::App",
            "skills::self",
            "skills::Outcome",
            "skills::store::CallRow",
            "db",
            "tasks::g"
        ]
    );
}

#[test]
fn a_slice_uses_only_what_it_may_and_by_its_front_door() {
    let allowed: BTreeMap<_, BTreeSet<_>> = EDGES
        .iter()
        .map(|(slice, edges)| (*slice, edges.iter().copied().collect()))
        .collect();
    let mut wrong = Vec::new();
    for (slice, edges) in &allowed {
        for (file, source) in files_of(slice) {
            for path in paths(&source) {
                let mut parts = path.split("::");
                let other = parts.next().unwrap_or_default();
                if other == *slice || !allowed.contains_key(other) {
                    continue;
                }
                if !edges.contains(other) {
                    wrong.push(format!(
                        "{slice}/{file} uses {path}: {slice} may not use {other}"
                    ));
                }
                if parts.next().is_some_and(|part| PRIVATE.contains(&part)) {
                    wrong.push(format!("{slice}/{file} uses {path}, which is private"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_slice_is_named_and_nothing_goes_round() {
    let named: BTreeSet<_> = EDGES.iter().map(|(slice, _)| *slice).collect();
    for entry in fs::read_dir(sources()).expect("the sources") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && name != "cli" {
            assert!(
                named.contains(name.as_str()),
                "the slice {name} has no line in EDGES"
            );
        }
    }
    // Each slice stands after all that it uses.
    let mut above = BTreeSet::new();
    for (slice, edges) in EDGES {
        for edge in edges {
            assert!(
                above.contains(edge),
                "{slice} uses {edge}, which does not stand before it"
            );
        }
        above.insert(slice);
    }
}

#[test]
fn only_a_store_writes_sql() {
    // The idempotency keys and the outbox are tables of the ground.
    for (slice, _) in EDGES {
        for (file, source) in files_of(slice) {
            let asks = source.contains("sqlx::query");
            assert!(
                !asks || file == "store.rs",
                "{slice}/{file} writes SQL; that belongs into store.rs"
            );
        }
    }
}

#[test]
fn a_workflow_touches_nothing_but_its_own_state() {
    for (slice, _) in EDGES {
        for (file, source) in files_of(slice) {
            if file != "workflow.rs" {
                continue;
            }
            for forbidden in [
                "app::App",
                "tokio",
                "clock",
                "rand",
                "sqlx",
                "Instant",
                "SystemTime",
            ] {
                assert!(
                    !source.contains(forbidden),
                    "{slice}/workflow.rs mentions {forbidden}: a workflow is replayed, and must not see it"
                );
            }
        }
    }
}
