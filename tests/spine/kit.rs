//! The loop in which a plugin is written: each change of its sources is built, checked, installed and called.

use crate::{Stories, Theatre, own};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};
use tempfile::TempDir;
use tsunami_tests::{
    company::Company,
    eventually,
    gateway::{Gateway, program},
    repository,
};

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    own(
        stories,
        theatre,
        "each_change_of_a_plugin_is_built_installed_and_called",
        developed,
    );
    own(
        stories,
        theatre,
        "each_change_of_a_policy_is_in_the_chain_and_says_what_it_decides",
        policy_developed,
    );
}

/// The skill that is written in the first story.
const SKILL: &str = "written-now";

/// `tsunami plugin dev` in a project of its own.
struct Developer {
    folder: TempDir,
    name: &'static str,
    dev: Option<Child>,
}

impl Developer {
    /// Begins a project, and builds it once: what it stands on takes minutes the first time.
    async fn begin(name: &'static str, kind: &'static str) -> Self {
        let begun = tokio::task::spawn_blocking(move || Self::begin_here(name, kind));
        begun.await.expect("a project")
    }

    fn begin_here(name: &'static str, kind: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let developer = Self {
            folder,
            name,
            dev: None,
        };
        let place = developer.folder.path();
        let new = ["plugin", "new", name, "--kind", kind];
        done(tsunami().args(new).current_dir(place));
        let lock = repository().join("plugins/Cargo.lock");
        fs::copy(lock, developer.project().join("Cargo.lock"))
            .expect("the versions that are tested");
        let build = ["build", "--release", "--quiet"];
        done(shared_target(Command::new("cargo").args(build)).current_dir(developer.project()));
        developer
    }

    fn project(&self) -> PathBuf {
        self.folder.path().join(self.name)
    }

    fn start(&mut self, gateway: &Gateway, company: &Company, arguments: &[&str]) {
        let output = fs::File::create(self.output()).expect("a file");
        let errors = output.try_clone().expect("a file");
        let mut command = tsunami();
        command
            .args(["plugin", "dev"])
            .args(arguments)
            .env("TSUNAMI_URL", gateway.url())
            .env("TSUNAMI_API_KEY", &company.owner.key)
            .current_dir(self.project())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        self.dev = Some(shared_target(&mut command).spawn().expect("it starts"));
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    /// What the loop has said, once it has ended this many rounds.
    async fn rounds(&mut self, rounds: usize) -> String {
        let output = self.output();
        let dev = self.dev.as_mut().expect("it runs");
        eventually(&format!("round {rounds} has ended"), || {
            let said = fs::read_to_string(&output).unwrap_or_default();
            if let Ok(Some(status)) = dev.try_wait() {
                panic!("the loop ended ({status}):\n{said}");
            }
            let ended = said.matches("waiting for a change").count() >= rounds;
            async move { ended.then_some(said) }
        })
        .await
    }

    fn change(&self, from: &str, to: &str) {
        let path = self.project().join("src/lib.rs");
        let before = fs::read_to_string(&path).expect("its source");
        assert!(before.contains(from), "{before}");
        fs::write(&path, before.replace(from, to)).expect("its source");
    }
}

impl Drop for Developer {
    fn drop(&mut self) {
        if let Some(dev) = &mut self.dev {
            let pid = i32::try_from(dev.id()).expect("a pid");
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
            let _ = dev.wait();
        }
    }
}

fn tsunami() -> Command {
    Command::new(program())
}

/// Where `scripts/kit` builds, so that what all plugins stand on is there.
fn shared_target(command: &mut Command) -> &mut Command {
    let target: &Path = &repository().join("plugins/target/kit");
    command
        .env("CARGO_TARGET_DIR", target)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
}

fn done(command: &mut Command) {
    let ended = command.stdin(Stdio::null()).output().expect("it starts");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command:?}: {errors}");
}

/// A dry run needs no instance, so the gateway has none.
async fn developed() {
    let mut developer = Developer::begin(SKILL, "adapter").await;
    let gateway = Gateway::start().await;
    let company = Company::found(&gateway, "writers").await;
    let call = ["--call", "get_item", "--params", r#"{"name":"first"}"#];
    developer.start(&gateway, &company, &call);

    let said = developer.rounds(1).await;
    assert!(said.contains("installed written-now 0.1.0"), "{said}");
    assert!(said.contains("dry run of written-now.get_item"), "{said}");
    let first = installed(&company).await;
    assert_eq!(first["actions"][0]["summary"], "One item by its name.");

    developer.change("One item by its name.", "The item of this name.");
    let said = developer.rounds(2).await;
    assert!(said.contains("changed: src/lib.rs"), "{said}");
    assert!(said.contains("action get_item: summary"), "{said}");
    let second = installed(&company).await;
    assert_eq!(second["actions"][0]["summary"], "The item of this name.");
    assert_ne!(second["digest"], first["digest"]);

    developer.change("pub fn skill()", "pub fn skill(");
    let said = developer.rounds(3).await;
    assert!(said.contains("failed: the build ended with"), "{said}");
    assert_eq!(installed(&company).await["digest"], second["digest"]);

    // It builds, and does not keep the contract: the request goes where the manifest does not say.
    developer.change("pub fn skill(", "pub fn skill()");
    developer.change(
        r#".host("api.example.com")"#,
        r#".host("elsewhere.example.com")"#,
    );
    let said = developer.rounds(4).await;
    assert!(
        said.contains("which the manifest does not declare"),
        "{said}"
    );
    assert!(
        said.contains("does not conform, and is not installed"),
        "{said}"
    );
    assert_eq!(installed(&company).await["digest"], second["digest"]);

    developer.change(
        r#".host("elsewhere.example.com")"#,
        r#".host("api.example.com")"#,
    );
    let said = developer.rounds(5).await;
    assert!(
        said.contains("the component is the same; nothing to install"),
        "{said}"
    );
}

/// The skill as the company has it now.
async fn installed(company: &Company) -> serde_json::Value {
    let plugins = company.owner.get("/plugins?limit=200").await.ok();
    let mut found = plugins["items"].as_array().into_iter().flatten();
    let found = found.find(|p| p["skill"] == SKILL && p["removed_at"].is_null());
    found.expect("it is installed").clone()
}

async fn policy_developed() {
    let mut developer = Developer::begin("my-rule", "policy").await;
    let mut schema = Developer::begin("my-schema", "credentials").await;
    let gateway = Gateway::start().await;
    let company = Company::found(&gateway, "lawyers").await;
    company.install("slack").await;
    let message = r##"{"channel":"#finance","text":"hello"}"##;
    let call = ["--call", "slack.send_message", "--params", message];
    developer.start(&gateway, &company, &call);

    let said = developer.rounds(1).await;
    let settings = r#"with the settings {"actions":["slack.send_message"]}"#;
    assert!(said.contains("my-rule 0.1.0 is in the chain"), "{said}");
    assert!(said.contains(settings), "its example: {said}");
    let verdict = "my-rule says ask: `slack.send_message` needs a person";
    assert!(said.contains(verdict), "{said}");
    let first = chain(&company).await;
    assert_eq!(first.len(), 1);

    developer.change("needs a person", "needs two eyes");
    let said = developer.rounds(2).await;
    assert!(
        said.contains("my-rule says ask: `slack.send_message` needs two eyes"),
        "{said}"
    );
    // It took the place of the one before.
    let second = chain(&company).await;
    assert_eq!((second.len(), &second[0]["id"]), (1, &first[0]["id"]));
    assert_ne!(second[0]["digest"], first[0]["digest"]);

    // A credential schema is installed for its skill, whose plugin may come later.
    schema.start(&gateway, &company, &[]);
    let said = schema.rounds(1).await;
    assert!(said.contains("installed the credentials of"), "{said}");
    assert!(!said.contains("failed"), "{said}");
    let plugins = company.owner.get("/plugins").await.ok();
    let plugins = plugins["items"].as_array().cloned().unwrap_or_default();
    assert!(plugins.iter().any(|p| p["serves"] == "credentials"));
}

async fn chain(company: &Company) -> Vec<serde_json::Value> {
    let chain = company.owner.get("/policies").await.ok();
    chain["items"].as_array().expect("a chain").clone()
}
