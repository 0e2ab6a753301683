//! `tsunami doctor`: each dependency, whether it is well, and what to do if not.

use super::serve::MIGRATE;
use crate::{app::App, config::Config, db, plugins};
use std::{ffi::OsStr, path::Path, process::Stdio, time::Duration};
use tokio::{process::Command, time::timeout};
use tsunami_plugin_host::LoadError;

/// How long a program may take to say its version: the first start of OpenClaw reads some thousand files.
const VERSION_WAIT: Duration = Duration::from_secs(60);
const VERSION_CHARS_MAX: usize = 100;
/// The smallest component that there is. It exports nothing, which is found out once it is compiled and loaded.
const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

pub async fn doctor(config: Config) -> anyhow::Result<()> {
    let mut sick = 0;
    let mut say = |name: &str, result: Result<String, String>| match result {
        Ok(state) => println!("ok    {name:<12} {state}"),
        Err(what_to_do) => {
            sick += 1;
            println!("FAIL  {name:<12} {what_to_do}");
        }
    };
    let complete = config.require_servers();
    let is_complete = complete.is_ok();
    say(
        "config",
        complete
            .map(|()| "complete".into())
            .map_err(|e| e.to_string()),
    );
    let tools = &config.instances.tools_dir;
    let node = tools.join("node/bin/node");
    let openclaw = tools.join("openclaw/node_modules/openclaw/openclaw.mjs");
    say("node", version(&node, &node, &[]).await);
    say(
        "openclaw",
        version(&openclaw, &node, &[openclaw.as_os_str()]).await,
    );
    let bridge = config.instances.bridge_dir.join("index.js");
    say("bridge", there(&bridge));
    if !is_complete {
        anyhow::bail!(
            "{sick} checks failed; the rest is looked at once the configuration is complete"
        );
    }
    match App::new(config).await {
        Err(error) => say("gateway", Err(format!("{error:#}"))),
        Ok(app) => {
            say(
                "vault",
                app.vault()
                    .keyring()
                    .subkey("doctor", None)
                    .await
                    .map(|(id, _)| format!("current key `{id}`"))
                    .map_err(|e| e.to_string()),
            );
            let database = async {
                app.db().ping().await.map_err(|e| {
                    format!("{e}; check that the server runs and database.url is right")
                })?;
                let system = app.db().system_at_once().await;
                system.map_err(|e| format!("{e}; check that database.system_url is right"))?;
                match db::is_migrated(app.db()).await {
                    Ok(true) => Ok("schema up to date".to_owned()),
                    Ok(false) => Err(MIGRATE.to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            };
            say("database", database.await);
            say(
                "temporal",
                app.durable()
                    .ping()
                    .await
                    .map(|()| app.config().temporal.url.clone())
                    .map_err(|e| {
                        format!("{e}; check that the server runs and temporal.url is right")
                    }),
            );
            say("sandbox", sandbox(&app).await);
        }
    }
    anyhow::ensure!(sick == 0, "{sick} checks failed");
    Ok(())
}

/// What a program says its version is. `file` is what has to be there for it.
async fn version(file: &Path, program: &Path, arguments: &[&OsStr]) -> Result<String, String> {
    const INSTALL: &str =
        "run `scripts/bootstrap node openclaw`, or set instances.tools_dir to where it put them";
    let shown = file.display();
    if !file.exists() {
        return Err(format!("{shown} is missing; {INSTALL}"));
    }
    let asked = Command::new(program)
        .args(arguments)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let answer = match timeout(VERSION_WAIT, asked).await {
        Err(_) => {
            let seconds = VERSION_WAIT.as_secs();
            return Err(format!(
                "{shown} did not say its version within {seconds} s; {INSTALL}"
            ));
        }
        Ok(Err(error)) => return Err(format!("{shown} cannot be run: {error}; {INSTALL}")),
        Ok(Ok(answer)) => answer,
    };
    let first_line = |bytes: &[u8]| -> String {
        let text = String::from_utf8_lossy(bytes);
        let line = text.lines().next().unwrap_or_default();
        line.chars().take(VERSION_CHARS_MAX).collect()
    };
    if !answer.status.success() {
        let why = first_line(&answer.stderr);
        return Err(format!(
            "{shown} does not run ({}): {why}; {INSTALL}",
            answer.status
        ));
    }
    Ok(format!("{} ({shown})", first_line(&answer.stdout)))
}

fn there(bridge: &Path) -> Result<String, String> {
    let shown = bridge.display();
    if bridge.exists() {
        return Ok(shown.to_string());
    }
    Err(format!(
        "{shown} is missing; set instances.bridge_dir to the folder plugins/openclaw-bridge of this program's sources"
    ))
}

/// Whether components are compiled, by the process that is there for it, and loaded.
async fn sandbox(app: &App) -> Result<String, String> {
    match plugins::load(app, plugins::OPERATOR, EMPTY_COMPONENT.to_vec()).await {
        Err(LoadError::Exports(_)) => Ok("compiles and loads components".to_owned()),
        Ok(_) => Err("it took a component that is no plugin; report this".to_owned()),
        Err(error) => Err(format!(
            "{error}; check that this program may start itself as a child process, and write to {}",
            app.config().plugin_cache_dir().display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_is_well_where_it_says_its_version() {
        let shell = Path::new("/bin/sh");
        let said = |script: &'static str| async move {
            version(shell, shell, &["-c", script].map(OsStr::new)).await
        };
        assert_eq!(said("echo v1; echo more").await.unwrap(), "v1 (/bin/sh)");
        let broken = said("echo no such library >&2; exit 3").await.unwrap_err();
        assert!(
            broken.contains("no such library") && broken.contains("scripts/bootstrap"),
            "{broken}"
        );
        let missing = Path::new("/nowhere/node");
        let absent = version(missing, missing, &[]).await.unwrap_err();
        assert!(absent.contains("instances.tools_dir"), "{absent}");
        let bridge = there(Path::new("/nowhere/index.js")).unwrap_err();
        assert!(
            bridge.contains("instances.bridge_dir") && !bridge.contains("bootstrap"),
            "{bridge}"
        );
    }
}
