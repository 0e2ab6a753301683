//! The kit for who builds plugins: a project to begin with, and whether what was built keeps the contract.

use super::commands::{Output, show};
use crate::app::COMPILE_COMMAND;
use anyhow::{Context, bail, ensure};
use include_dir::{Dir, DirEntry, include_dir};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tsunami_plugin_check::{Golden, Report, check};
use tsunami_plugin_host::{Compiler, Limits, PluginHost, TenantKey};

static CONTRACT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../wit/v0.1");
static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk");
static TEMPLATE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/template/rust");
/// Where the SDK's own dependencies stand, by the versions that it was tested with.
const PLUGINS_MANIFEST: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../plugins/Cargo.toml"
));

const NAME_CHARS_MAX: usize = 40;
/// Of one call under the check: more than a gateway gives, for a developer's machine may be busy.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Kind {
    /// Teaches the gateway a skill, with the credentials that it needs.
    Adapter,
    /// Says of each call whether it may go ahead.
    Policy,
    /// Describes the credentials of a skill that another plugin teaches.
    Credentials,
}

#[derive(clap::Args)]
pub struct New {
    /// Lower-case letters, digits and dashes; the folder that is made.
    pub name: String,
    #[arg(long, value_enum, default_value = "adapter")]
    pub kind: Kind,
    /// What it is called; the name, unless given.
    #[arg(long)]
    pub title: Option<String>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(clap::Args)]
pub struct Check {
    /// The component: a `.wasm` file.
    pub file: PathBuf,
    /// A folder of recorded exchanges; `golden` beside the project's Cargo.toml, where there is one.
    #[arg(long)]
    pub golden: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

/// Writes a project that builds, passes its tests and conforms.
pub fn new(new: &New) -> anyhow::Result<()> {
    let name = &new.name;
    let shaped = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= NAME_CHARS_MAX
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    ensure!(
        shaped,
        "`{name}` must be lower-case letters, digits and dashes, beginning with a letter, at most {NAME_CHARS_MAX}"
    );
    let place = PathBuf::from(name);
    ensure!(
        !place.exists(),
        "{name} is there already; choose another name, or remove it"
    );
    let project = Project::of(new)?;
    let (kind, world) = match new.kind {
        Kind::Adapter => ("adapter", "skill-plugin"),
        Kind::Policy => ("policy", "routing-policy-plugin"),
        Kind::Credentials => ("credentials", "credential-schema-plugin"),
    };
    let project = Project { world, ..project };
    for part in ["common", kind] {
        let folder = TEMPLATE
            .get_dir(part)
            .context("the program lacks its templates")?;
        project.write(folder, folder.path(), &place)?;
    }
    for file in CONTRACT.files() {
        let name = file.path().file_name().context("a file without a name")?;
        write(&place.join("wit/v0.1").join(name), file.contents())?;
    }
    copy(&SDK, &place.join("vendor/sdk"))?;
    let made = serde_json::json!({ "name": name, "kind": kind, "folder": place });
    show(&new.output, &made, |_| {
        let file = name.replace('-', "_");
        format!(
            "{name} is there. Next:\n  cd {name}\n  cargo test --target {host}\n  cargo build --release\n  \
             tsunami plugin check target/wasm32-wasip2/release/{file}.wasm\n  \
             tsunami plugin install target/wasm32-wasip2/release/{file}.wasm",
            host = HOST_TARGET
        )
    })
}

/// Of this machine: the project's own default is WebAssembly, where no test runs.
const HOST_TARGET: &str = "$(rustc --print host-tuple)";

struct Project<'a> {
    name: &'a str,
    title: String,
    summary: String,
    world: &'static str,
    dependencies: String,
}

impl<'a> Project<'a> {
    fn of(new: &'a New) -> anyhow::Result<Self> {
        let title = new.title.clone().unwrap_or_else(|| capitalized(&new.name));
        let plain = !title.is_empty()
            && title.len() <= 100
            && !title.contains(['"', '\\', '{', '}'])
            && !title.chars().any(char::is_control);
        ensure!(
            plain,
            "the title must be plain text of at most 100 characters"
        );
        let manifest: toml::Table = PLUGINS_MANIFEST.parse()?;
        let mut dependencies = manifest["workspace"]["dependencies"]
            .as_table()
            .context("the SDK's dependencies are not named")?
            .clone();
        dependencies.remove("servicetsunami-plugin");
        let lines = dependencies
            .iter()
            .map(|(name, value)| format!("{name} = {value}"));
        Ok(Self {
            name: &new.name,
            summary: format!("Says in one sentence what {title} does."),
            title,
            world: "",
            dependencies: lines.collect::<Vec<_>>().join("\n"),
        })
    }

    fn write(&self, folder: &Dir<'_>, root: &Path, place: &Path) -> anyhow::Result<()> {
        for entry in folder.entries() {
            match entry {
                DirEntry::Dir(inner) => self.write(inner, root, place)?,
                DirEntry::File(file) => {
                    let path = file.path().strip_prefix(root)?.with_extension("");
                    let path = match path.to_str() {
                        Some("gitignore") => PathBuf::from(".gitignore"),
                        _ => path,
                    };
                    let content = file.contents_utf8().context("a template is no text")?;
                    write(&place.join(path), self.fill(content).as_bytes())?;
                }
            }
        }
        Ok(())
    }

    fn fill(&self, text: &str) -> String {
        text.replace("{{name}}", self.name)
            .replace("{{title}}", &self.title)
            .replace("{{summary}}", &self.summary)
            .replace("{{world}}", self.world)
            .replace("{{dependencies}}", &self.dependencies)
    }
}

fn capitalized(name: &str) -> String {
    let words = name.split('-').filter(|word| !word.is_empty());
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    words.map(capital).collect::<Vec<_>>().join(" ")
}

fn copy(folder: &Dir<'_>, place: &Path) -> anyhow::Result<()> {
    let root = folder.path();
    for entry in folder.entries() {
        match entry {
            DirEntry::Dir(inner) => {
                let name = inner.path().strip_prefix(root)?.to_owned();
                copy(inner, &place.join(name))?;
            }
            DirEntry::File(file) => {
                let name = file.path().file_name().context("a file without a name")?;
                write(&place.join(name), file.contents())?;
            }
        }
    }
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// Says whether a component keeps the contract; fails where it does not.
pub fn check_file(args: &Check) -> anyhow::Result<()> {
    let bytes =
        fs::read(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let golden = match &args.golden {
        Some(folder) => recorded(folder)?,
        None => match beside(&args.file) {
            Some(folder) => recorded(&folder)?,
            None => Vec::new(),
        },
    };
    // A plugin is called on a thread of its own: what it prints must not wait on the async runtime.
    let report = std::thread::spawn(move || examined(&bytes, &golden)).join();
    let report = report.map_err(|_| anyhow::anyhow!("the check itself came to grief"))??;
    let value = serde_json::to_value(&report)?;
    show(&args.output, &value, |_| report.to_string())?;
    if !report.conforms {
        bail!("{} does not conform", args.file.display());
    }
    Ok(())
}

fn examined(component: &[u8], golden: &[Golden]) -> anyhow::Result<Report> {
    let mut limits = Limits::default();
    limits.small.call_timeout = CALL_TIMEOUT;
    limits.large.call_timeout = CALL_TIMEOUT;
    let compiler = Compiler::this_program([COMPILE_COMMAND])?;
    let host = PluginHost::new(limits, compiler, None)
        .map_err(|e| anyhow::anyhow!("the plugin sandbox cannot be set up: {e}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let loaded = runtime.block_on(host.load(TenantKey(0), component.to_vec()));
    Ok(check(loaded, component, golden))
}

/// `golden` in the project that the component was built in.
fn beside(component: &Path) -> Option<PathBuf> {
    let path = component.canonicalize().ok()?;
    path.ancestors()
        .find(|folder| folder.join("Cargo.toml").is_file())
        .map(|folder| folder.join("golden"))
        .filter(|folder| folder.is_dir())
}

fn recorded(folder: &Path) -> anyhow::Result<Vec<Golden>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        let value: Value = serde_json::from_slice(&fs::read(&path)?)
            .with_context(|| format!("{} is no JSON", path.display()))?;
        let golden: Golden = serde_json::from_value(value)
            .with_context(|| format!("{} is no recorded exchange", path.display()))?;
        all.push(Golden {
            file: path
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default(),
            ..golden
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_title() {
        assert_eq!(capitalized("my-first-skill"), "My First Skill");
    }
}
