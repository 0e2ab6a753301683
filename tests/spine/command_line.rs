//! What people do at the command line, where a slip of theirs must not cost them anything.

use crate::{CANARY, Stories, Theatre, World, shared};
use nix::{
    pty::openpty,
    sys::termios::{LocalFlags, tcgetattr},
};
use serde_json::json;
use std::{
    fs::File,
    io::{Read, Write},
    process::{Command, Stdio},
    sync::Arc,
};
use tsunami_tests::{
    company::{Company, text},
    eventually,
    gateway::program,
};

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    shared(
        stories,
        theatre,
        "what_cannot_be_taken_back_is_not_done_without_a_yes",
        asked_first,
    );
    shared(
        stories,
        theatre,
        "a_secret_that_is_typed_on_a_terminal_is_not_shown",
        not_shown,
    );
}

/// Runs a command as the owner of a company; says whether it was done, and all that was printed.
async fn run(world: &World, company: &Company, words: &[&str]) -> (bool, String) {
    let ran = world.gateway.cli(&company.owner, words).await;
    let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (ran.status.success(), said.concat())
}

async fn asked_first(world: Arc<World>) {
    let company = Company::with_slack(&world.gateway, "asked-first", &world.slack, CANARY).await;
    let credentials = company.owner.get("/skill-creds").await.ok();
    let credential = text(&credentials["items"][0]["id"]);
    let instance = format!("/instances/{}", world.acme.instance);
    for (who, words) in [
        (&company, ["cred", "revoke", &credential]),
        (&world.acme, ["instance", "destroy", &world.acme.instance]),
    ] {
        let (done, said) = run(&world, who, &words).await;
        assert!(
            !done && said.contains("--yes") && said.contains("nothing was done"),
            "{said}"
        );
    }
    let stored = company.owner.get("/skill-creds").await.ok();
    assert_eq!(stored["items"][0]["status"], "active");
    assert_eq!(
        world.acme.owner.get(&instance).await.ok()["status"],
        "running"
    );
    let (done, said) = run(&world, &company, &["cred", "revoke", &credential, "--yes"]).await;
    assert!(done && said.contains("revoked"), "{said}");
}

async fn not_shown(world: Arc<World>) {
    const TYPED: &str = "xoxb-typed-on-a-terminal-9d4e";
    let company = Company::with_slack(&world.gateway, "not-shown", &world.slack, CANARY).await;
    let terminal = openpty(None, None).expect("a terminal");
    let echoes = || {
        let modes = tcgetattr(&terminal.master).expect("its modes");
        modes.local_flags.contains(LocalFlags::ECHO)
    };
    assert!(echoes(), "it shows what is typed, until it is told not to");
    let mut command = Command::new(program());
    command
        .args(["cred", "set", "slack", "bot_token"])
        .args(["--expires", "2099-01-31"])
        .env("TSUNAMI_URL", world.gateway.url())
        .env("TSUNAMI_API_KEY", &company.owner.key)
        .stdin(Stdio::from(terminal.slave.try_clone().expect("a copy")))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let running = command.spawn().expect("it starts");
    eventually("it asks without showing", || async {
        (!echoes()).then_some(())
    })
    .await;
    let mut keyboard = File::from(terminal.master.try_clone().expect("a copy"));
    writeln!(keyboard, "{TYPED}").expect("typed");
    let ran = tokio::task::spawn_blocking(move || running.wait_with_output()).await;
    let ran = ran.expect("it ends").expect("it ran");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{said}");
    assert!(echoes(), "the terminal is as it was");
    // What the screen shows; its end is an error once nobody holds the terminal any more.
    drop(command);
    drop(terminal.slave);
    let mut screen = Vec::new();
    let _ = keyboard.read_to_end(&mut screen);
    let screen = String::from_utf8_lossy(&screen).into_owned();
    assert!(!screen.contains(TYPED), "{screen}");
    let stored = company.owner.get("/skill-creds").await.ok();
    let stored = stored["items"].as_array().expect("a list");
    let active = stored.iter().find(|one| one["status"] == "active");
    let active = active.expect("the one that was typed");
    assert_eq!(active["last_4"], json!("9d4e"));
    assert!(text(&active["expires_at"]).starts_with("2099-01-31"));
}
