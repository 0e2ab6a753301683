//! `tsunami plugin new`: a project to begin with.

use super::project::Language;
use crate::cli::commands::{Output, show};
use anyhow::{Context, ensure};
use include_dir::{Dir, DirEntry, include_dir};
use std::{
    fs,
    path::{Path, PathBuf},
};

static CONTRACT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../wit/v0.1");
static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/template");
static SDK_RUST: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk");
static SDK_JAVASCRIPT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk-javascript");
static SDK_PYTHON: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk-python");
/// Where the Rust SDK's own dependencies stand, by the versions that it was tested with.
const PLUGINS_MANIFEST: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../plugins/Cargo.toml"
));

const NAME_CHARS_MAX: usize = 40;
const TITLE_CHARS_MAX: usize = 100;
/// What a kit is tested with, and what a test left behind: no part of a project.
const LEFT_OUT: [&str; 2] = ["test", "__pycache__"];

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Kind {
    /// Teaches the gateway a skill, with the credentials that it needs.
    Adapter,
    /// Says of each call whether it may go ahead.
    Policy,
    /// Describes the credentials of a skill that another plugin teaches.
    Credentials,
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Self::Adapter => "adapter",
            Self::Policy => "policy",
            Self::Credentials => "credentials",
        }
    }

    /// The world of the contract that a plugin of this kind is made for.
    fn world(self) -> &'static str {
        match self {
            Self::Adapter => "skill-plugin",
            Self::Policy => "routing-policy-plugin",
            Self::Credentials => "credential-schema-plugin",
        }
    }
}

#[derive(clap::Args)]
pub struct New {
    /// Lower-case letters, digits and dashes; the folder that is made.
    pub name: String,
    /// What it is written in.
    #[arg(long, value_enum, default_value = "rust")]
    pub lang: Language,
    #[arg(long, value_enum, default_value = "adapter")]
    pub kind: Kind,
    /// What it is called; the name, unless given.
    #[arg(long)]
    pub title: Option<String>,
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
    let blanks = Blanks::of(new)?;
    let (templates, sdk) = match new.lang {
        Language::Rust => ("rust", &SDK_RUST),
        Language::Javascript => ("javascript", &SDK_JAVASCRIPT),
        Language::Python => ("python", &SDK_PYTHON),
    };
    for part in ["common", new.kind.folder()] {
        let folder = TEMPLATES
            .get_dir(format!("{templates}/{part}"))
            .context("the program lacks its templates")?;
        blanks.write(folder, folder.path(), &place)?;
    }
    for file in CONTRACT.files() {
        let name = file.path().file_name().context("a file without a name")?;
        write(&place.join("wit/v0.1").join(name), file.contents())?;
    }
    copy(sdk, &place.join("vendor/sdk"))?;
    let made = serde_json::json!({
        "name": name, "lang": templates, "kind": new.kind.folder(), "folder": place,
    });
    show(&new.output, &made, |_| {
        let (build, component) = (new.lang.commands(), new.lang.component_named(name));
        format!(
            "{name} is there. Next:\n  cd {name}\n  {}\n  tsunami plugin check {component}\n  \
             tsunami plugin install {component}",
            build.join("\n  ")
        )
    })
}

/// What the templates leave open.
struct Blanks<'a> {
    name: &'a str,
    title: String,
    summary: String,
    world: &'static str,
    dependencies: String,
}

impl<'a> Blanks<'a> {
    fn of(new: &'a New) -> anyhow::Result<Self> {
        let title = new.title.clone().unwrap_or_else(|| capitalized(&new.name));
        let plain = !title.is_empty()
            && title.chars().count() <= TITLE_CHARS_MAX
            && !title.contains(['"', '\\', '{', '}'])
            && !title.chars().any(char::is_control);
        ensure!(
            plain,
            "the title must be plain text of at most {TITLE_CHARS_MAX} characters, without quotation marks, backslashes and braces"
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
            world: new.kind.world(),
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
                        Some(hidden @ ("gitignore" | "npmrc")) => {
                            PathBuf::from(format!(".{hidden}"))
                        }
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
    for entry in folder.entries() {
        let name = entry.path().file_name().context("a file without a name")?;
        match entry {
            DirEntry::Dir(_) if LEFT_OUT.iter().any(|left_out| name == *left_out) => {}
            DirEntry::Dir(inner) => copy(inner, &place.join(name))?,
            DirEntry::File(file) => write(&place.join(name), file.contents())?,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_title() {
        assert_eq!(capitalized("my-first-skill"), "My First Skill");
    }
}
