//! A plugin's project on this machine: what it is written in, how it is built, and where its component lies.

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    Rust,
    Javascript,
    Python,
}

impl Language {
    /// By the file that each language's projects have.
    const MARKS: [(&'static str, Self); 3] = [
        ("Cargo.toml", Self::Rust),
        ("package.json", Self::Javascript),
        ("pyproject.toml", Self::Python),
    ];

    /// What is typed in a new project, to test it and to build it.
    pub fn commands(self) -> &'static [&'static str] {
        match self {
            // The project's own default is WebAssembly, where no test runs.
            Self::Rust => &[
                "cargo test --target $(rustc --print host-tuple)",
                "cargo build --release",
            ],
            Self::Javascript => &["npm ci", "npm test", "npm run build"],
            Self::Python => &["python3 -m unittest", "python3 -m vendor.sdk.build"],
        }
    }

    /// Where the component of a plugin of this name is built, in a project as `plugin new` writes it.
    pub fn component_named(self, name: &str) -> String {
        match self {
            Self::Rust => format!(
                "target/wasm32-wasip2/release/{}.wasm",
                name.replace('-', "_")
            ),
            Self::Javascript | Self::Python => format!("build/{name}.wasm"),
        }
    }

    fn of(folder: &Path) -> Option<Self> {
        let marked = |(mark, _): &&(&str, Self)| folder.join(mark).is_file();
        Self::MARKS
            .iter()
            .find(marked)
            .map(|(_, language)| *language)
    }
}

/// A folder that holds a plugin's project.
#[derive(Clone, Debug)]
pub struct Project {
    pub folder: PathBuf,
    pub language: Language,
}

impl Project {
    pub fn at(folder: &Path) -> anyhow::Result<Self> {
        let language = Language::of(folder).with_context(|| {
            let marks = Language::MARKS.map(|(mark, _)| mark).join(", ");
            format!(
                "{} holds no plugin's project (none of {marks}); name its folder, or begin one with `tsunami plugin new`",
                folder.display()
            )
        })?;
        let folder = folder.canonicalize()?;
        Ok(Self { folder, language })
    }

    /// The one that a file was built in.
    pub fn around(file: &Path) -> Option<Self> {
        let file = file.canonicalize().ok()?;
        file.ancestors().skip(1).find_map(|folder| {
            Some(Self {
                language: Language::of(folder)?,
                folder: folder.to_owned(),
            })
        })
    }

    /// Where its recorded exchanges are.
    pub fn golden(&self) -> PathBuf {
        self.folder.join("golden")
    }

    /// The command that builds it.
    pub fn build_command(&self) -> Command {
        let (program, arguments): (_, &[&str]) = match self.language {
            Language::Rust => ("cargo", &["build", "--release"]),
            Language::Javascript => ("npm", &["run", "--silent", "build"]),
            Language::Python => ("python3", &["-m", "vendor.sdk.build"]),
        };
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.folder);
        command
    }

    /// What there is to do before its first build: the packages that it is built with are not there.
    pub fn missing(&self) -> Option<&'static str> {
        let unready =
            self.language == Language::Javascript && !self.folder.join("node_modules").is_dir();
        unready.then_some("npm ci")
    }

    /// Where a build leaves the component; whether it is there is another question.
    pub fn component(&self) -> anyhow::Result<PathBuf> {
        match self.language {
            Language::Rust => self.cargo_component(),
            Language::Javascript => {
                let manifest = std::fs::read(self.folder.join("package.json"))?;
                let manifest: Value =
                    serde_json::from_slice(&manifest).context("package.json is no JSON")?;
                self.named(manifest["name"].as_str())
            }
            Language::Python => {
                let manifest = std::fs::read_to_string(self.folder.join("pyproject.toml"))?;
                let manifest: toml::Table =
                    manifest.parse().context("pyproject.toml is no TOML")?;
                let project = manifest.get("project").and_then(|p| p.get("name"));
                self.named(project.and_then(toml::Value::as_str))
            }
        }
    }

    fn named(&self, name: Option<&str>) -> anyhow::Result<PathBuf> {
        let name = name.context("the project has no name; give it one")?;
        Ok(self.folder.join(self.language.component_named(name)))
    }

    /// Cargo's target folder may be anywhere.
    fn cargo_component(&self) -> anyhow::Result<PathBuf> {
        let asked = Command::new("cargo")
            .args(["metadata", "--format-version", "1", "--no-deps"])
            .current_dir(&self.folder)
            .output()
            .context("cargo cannot be started; install Rust")?;
        ensure!(
            asked.status.success(),
            "cargo does not understand the project: {}",
            String::from_utf8_lossy(&asked.stderr).trim()
        );
        let metadata: Value = serde_json::from_slice(&asked.stdout)?;
        let target = metadata["target_directory"].as_str().unwrap_or_default();
        let manifest = self.folder.join("Cargo.toml");
        let packages = metadata["packages"].as_array();
        let package = packages.into_iter().flatten().find(|package| {
            package["manifest_path"].as_str().map(Path::new) == Some(manifest.as_path())
        });
        let Some(name) = package.and_then(|package| package["name"].as_str()) else {
            bail!(
                "{} is no package; name the folder of the plugin's own",
                manifest.display()
            );
        };
        let file = format!("wasm32-wasip2/release/{}.wasm", name.replace('-', "_"));
        Ok(Path::new(target).join(file))
    }
}
