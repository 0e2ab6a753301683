//! `tsunami plugin dev`: a plugin that is being written, in a gateway that runs. Each change of its sources is built,
//! checked and installed for whoever asks, or put into their chain of policies, and can be called at once.

use super::{check::examine, project::Project};
use crate::cli::api::Api;
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant, SystemTime},
};
use tokio::time::MissedTickBehavior;
use tsunami_plugin_check::Facts;

/// How often the sources are looked at, some dozens of files. A build begins when two looks in a row see the same: an
/// editor writes a file in several steps.
const LOOK: Duration = Duration::from_millis(250);
/// Files of a project that are watched; a folder with more is not one plugin's.
const FILES_MAX: usize = 10_000;
/// What builds leave, and what they are built with. Folders whose names begin with a dot are left out too.
const LEFT_OUT: [&str; 4] = ["target", "build", "node_modules", "__pycache__"];
/// Builds write it themselves.
const CARGO_LOCK: &str = "Cargo.lock";

#[derive(clap::Args)]
pub struct Dev {
    /// The plugin's project.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// An action to call after each installation: a dry run, which shows what would be sent and sends nothing. Of a
    /// policy, the call that it is tried on: `slack.send_message`.
    #[arg(long, value_name = "ACTION")]
    pub call: Option<String>,
    /// The parameters of that call, as JSON.
    #[arg(long, requires = "call", default_value = "{}")]
    pub params: String,
    /// Make the call in earnest.
    #[arg(long, requires = "call")]
    pub live: bool,
    /// A policy's settings, as JSON. Where they are left out, those that it has in the chain, or else its first example.
    #[arg(long, value_name = "JSON")]
    pub settings: Option<String>,
}

/// Goes on until it is interrupted.
pub async fn dev(args: &Dev, api: &Api) -> anyhow::Result<()> {
    let params: Value = serde_json::from_str(&args.params).context("the parameters are no JSON")?;
    let settings = args.settings.as_deref().map(serde_json::from_str);
    let settings = settings.transpose().context("the settings are no JSON")?;
    let project = Project::at(&args.folder)?;
    if let Some(command) = project.missing() {
        bail!(
            "the packages that it is built with are not there; in {}: {command}",
            project.folder.display()
        );
    }
    let mut session = Session {
        project,
        api,
        call: args
            .call
            .as_deref()
            .map(|action| (action, params, args.live)),
        settings,
        digest: None,
        manifest: None,
    };
    let mut sources = Sources::watch(&session.project.folder)?;
    println!(
        "watching {}; Ctrl-C ends it",
        session.project.folder.display()
    );
    loop {
        // What fails is shown, and the next change may mend it.
        if let Err(error) = session.round().await {
            println!("failed: {error:#}");
        }
        println!("waiting for a change");
        tokio::select! {
            changed = sources.changed() => println!("\nchanged: {}", changed?.join(", ")),
            ended = tokio::signal::ctrl_c() => return Ok(ended?),
        }
    }
}

struct Session<'a> {
    project: Project,
    api: &'a Api,
    /// An action, its parameters, and whether it is meant in earnest.
    call: Option<(&'a str, Value, bool)>,
    /// Of a policy.
    settings: Option<Value>,
    /// Of the component that was installed last.
    digest: Option<String>,
    manifest: Option<Value>,
}

impl Session<'_> {
    async fn round(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        self.build().await?;
        let component = self.project.component()?;
        println!("built in {}", seconds(began));
        let (file, golden) = (component.clone(), self.project.golden());
        let golden = golden.is_dir().then_some(golden);
        let report =
            tokio::task::spawn_blocking(move || examine(&file, golden.as_deref())).await??;
        if !report.conforms || !report.findings.is_empty() {
            println!("{report}");
        }
        ensure!(
            report.conforms,
            "the component does not conform, and is not installed"
        );
        let facts = report.facts;
        if self.digest.as_deref() == Some(&facts.digest) {
            println!("the component is the same; nothing to install");
        } else {
            if facts.adapter || facts.credentials {
                self.install(&component).await?;
            }
            if facts.policy {
                self.put_into_chain(&component).await?;
            }
            self.digest = Some(facts.digest.clone());
        }
        self.call(&facts).await
    }

    /// Its own output goes where ours goes.
    async fn build(&self) -> anyhow::Result<()> {
        let mut command = self.project.build_command();
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null());
        let mut building = tokio::process::Command::from(command);
        let status = building
            .kill_on_drop(true)
            .status()
            .await
            .with_context(|| format!("`{program}` cannot be started; install it"))?;
        ensure!(status.success(), "the build ended with {status}");
        Ok(())
    }

    async fn install(&mut self, component: &Path) -> anyhow::Result<()> {
        let bytes = fs::read(component)?;
        let installed = self
            .api
            .upload("/plugins", "application/wasm", bytes)
            .await?;
        println!(
            "installed {}{} {}, digest {}",
            if installed["serves"] == "credentials" {
                "the credentials of "
            } else {
                ""
            },
            text(&installed["skill"]),
            text(&installed["version"]),
            text(&installed["digest"]).get(..12).unwrap_or_default()
        );
        if let Some(before) = &self.manifest {
            for line in what_changed(before, &installed) {
                println!("  {line}");
            }
        }
        self.manifest = Some(installed);
        Ok(())
    }

    /// Takes the place of the policy of its name, or comes after the others.
    async fn put_into_chain(&self, component: &Path) -> anyhow::Result<()> {
        let bytes = fs::read(component)?;
        let path = "/policies/components";
        let brought = self.api.upload(path, "application/wasm", bytes).await?;
        let chain = self.api.get("/policies").await?;
        let mut policies = chain["items"].as_array().into_iter().flatten();
        let known =
            policies.find(|one| one["name"] == brought["name"] && one["source"] == "tenant");
        let mut change = json!({ "digest": brought["digest"] });
        if let Some(settings) = &self.settings {
            change["settings"] = settings.clone();
        }
        let policy = match known {
            Some(policy) => {
                let path = format!("/policies/{}", text(&policy["id"]));
                self.api.patch(&path, &change).await?
            }
            None => {
                if self.settings.is_none() && brought["examples"][0].is_object() {
                    change["settings"] = brought["examples"][0].clone();
                }
                self.api.post("/policies", &change).await?
            }
        };
        println!(
            "{} {} is in the chain with the settings {}, digest {}; it is asked of every call of this tenant, until `tsunami policy remove {}`",
            text(&brought["name"]),
            text(&brought["version"]),
            policy["settings"],
            text(&policy["digest"]).get(..12).unwrap_or_default(),
            text(&policy["id"])
        );
        if policy["enabled"] == false {
            println!(
                "  it is switched off: tsunami policy set {} --enabled true",
                text(&policy["id"])
            );
        }
        Ok(())
    }

    /// Calls the skill that was installed; of anything else, the skill that the action is named with.
    async fn call(&self, facts: &Facts) -> anyhow::Result<()> {
        let Some((action, params, live)) = &self.call else {
            if facts.policy && !facts.adapter {
                println!("to see what it says of a call, name one: --call slack.send_message");
            }
            return Ok(());
        };
        let (skill, action) = if facts.adapter {
            (facts.name.as_str(), *action)
        } else {
            action
                .split_once('.')
                .context("this plugin carries no call out: name one of a skill that is installed: --call slack.send_message")?
        };
        let query = if *live { "" } else { "?dry_run=true" };
        let key = format!("dev-{}", hex::encode(crate::id::random_bytes::<16>()));
        let path = format!("/skills/{skill}/{action}{query}");
        let answer = self
            .api
            .post_once(&path, &json!({ "params": params }), &key)
            .await;
        let how = if *live { "called" } else { "dry run of" };
        let answer = answer.with_context(|| format!("{how} {skill}.{action}"))?;
        for line in verdicts(&answer["policies"]) {
            println!("{line}");
        }
        println!(
            "{how} {skill}.{action}: {}",
            serde_json::to_string_pretty(&answer)?
        );
        Ok(())
    }
}

/// What each policy says of a call.
fn verdicts(policies: &Value) -> Vec<String> {
    let policies = policies.as_array().into_iter().flatten();
    let said = policies.map(|said| {
        let (policy, decision) = (text(&said["policy"]), text(&said["decision"]));
        match text(&said["reason"]) {
            "" => format!("  {policy} says {decision}"),
            reason => format!("  {policy} says {decision}: {reason}"),
        }
    });
    said.collect()
}

fn seconds(began: Instant) -> String {
    format!("{:.1} s", began.elapsed().as_secs_f64())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What people see of an installation that is otherwise than it was.
fn what_changed(before: &Value, now: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let actions = |of: &Value| -> BTreeMap<String, Value> {
        let actions = of["actions"].as_array().cloned().unwrap_or_default();
        let named = actions.into_iter();
        named
            .map(|action| (text(&action["name"]).to_owned(), action))
            .collect()
    };
    let (old, new) = (actions(before), actions(now));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        match (old.get(name), new.get(name)) {
            (None, Some(_)) => lines.push(format!("new action {name}")),
            (Some(_), None) => lines.push(format!("the action {name} is gone")),
            (Some(old), Some(new)) if old != new => {
                lines.push(format!("action {name}: {}", fields_that_differ(old, new)));
            }
            _ => {}
        }
    }
    for field in [
        "title",
        "summary",
        "version",
        "hosts",
        "host_settings",
        "credentials",
    ] {
        if before[field] != now[field] {
            lines.push(format!("{field}: {} -> {}", before[field], now[field]));
        }
    }
    if lines.is_empty() {
        lines.push("what it says of itself is as before".to_owned());
    }
    lines
}

fn fields_that_differ(old: &Value, new: &Value) -> String {
    let fields = new.as_object().into_iter().flatten();
    let names = fields.filter(|(name, value)| old[name.as_str()] != **value);
    names
        .map(|(name, _)| name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

/// The sources of a project, and what changes in them. They are looked at, not listened to: that works on every
/// system and file system alike, and costs nothing for a project of this size.
struct Sources {
    folder: PathBuf,
    seen: Snapshot,
}

impl Sources {
    fn watch(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            seen: Snapshot::of(folder)?,
        })
    }

    /// Waits until files have changed, and no longer do; gives their names.
    async fn changed(&mut self) -> anyhow::Result<Vec<String>> {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last: Option<Snapshot> = None;
        loop {
            ticks.tick().await;
            let now = Snapshot::of(&self.folder)?;
            if last.as_ref() == Some(&now) && now != self.seen {
                let before = std::mem::replace(&mut self.seen, now);
                return Ok(before.differences(&self.seen, &self.folder));
            }
            last = Some(now);
        }
    }
}

/// The files of a project at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
struct Snapshot {
    /// With their length and when they were written.
    files: BTreeMap<PathBuf, (u64, Option<SystemTime>)>,
}

impl Snapshot {
    fn of(root: &Path) -> anyhow::Result<Self> {
        let mut snapshot = Self::default();
        let mut open = vec![root.to_owned()];
        while let Some(folder) = open.pop() {
            let Ok(entries) = fs::read_dir(&folder) else {
                ensure!(folder != root, "{} is gone", root.display());
                continue; // gone meanwhile
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let Ok(about) = entry.metadata() else {
                    continue; // gone meanwhile
                };
                if about.is_dir() && !name.starts_with('.') && !LEFT_OUT.contains(&&*name) {
                    open.push(entry.path());
                } else if about.is_file() && name != CARGO_LOCK {
                    let mark = (about.len(), about.modified().ok());
                    snapshot.files.insert(entry.path(), mark);
                }
            }
            ensure!(
                snapshot.files.len() <= FILES_MAX,
                "the folder has more than {FILES_MAX} files; name the plugin's own folder"
            );
        }
        Ok(snapshot)
    }

    fn differences(&self, now: &Self, folder: &Path) -> Vec<String> {
        let paths: BTreeSet<&PathBuf> = self.files.keys().chain(now.files.keys()).collect();
        let changed = paths
            .into_iter()
            .filter(|path| self.files.get(*path) != now.files.get(*path));
        let shown = |path: &PathBuf| {
            path.strip_prefix(folder)
                .unwrap_or(path)
                .display()
                .to_string()
        };
        changed.map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_build_leaves_is_no_change() {
        let place = tempfile::tempdir().expect("a folder");
        let write = |name: &str, content: &str| {
            let path = place.path().join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
            fs::write(path, content).expect("a file");
        };
        write("src/plugin.js", "1");
        let before = Snapshot::of(place.path()).expect("a look");
        for left in [
            "target/a",
            "build/a.wasm",
            "node_modules/a/b.js",
            ".venv/x",
            "Cargo.lock",
            "t/__pycache__/x",
        ] {
            write(left, "left");
        }
        let built = Snapshot::of(place.path()).expect("a look");
        assert_eq!(
            before.differences(&built, place.path()),
            Vec::<String>::new()
        );
        write("src/plugin.js", "12");
        write("src/new/more.js", "1");
        let now = Snapshot::of(place.path()).expect("a look");
        assert_eq!(
            built.differences(&now, place.path()),
            ["src/new/more.js", "src/plugin.js"]
        );
    }

    #[test]
    fn what_changed_of_an_installation_is_told() {
        let action = |name: &str, risk: &str| json!({ "name": name, "risk": risk, "title": name });
        let before = json!({ "version": "0.1.0", "hosts": ["a.example"], "actions": [action("get", "read"), action("old", "read")] });
        let now = json!({ "version": "0.1.0", "hosts": ["b.example"], "actions": [action("get", "write"), action("new", "read")] });
        assert_eq!(
            what_changed(&before, &now),
            [
                "action get: risk",
                "new action new",
                "the action old is gone",
                r#"hosts: ["a.example"] -> ["b.example"]"#
            ]
        );
        assert_eq!(
            what_changed(&now, &now),
            ["what it says of itself is as before"]
        );
    }
}
