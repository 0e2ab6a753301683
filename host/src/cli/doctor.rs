//! `tsunami doctor`: each dependency, whether it is well, and what to do if not.

use crate::{app::App, config::Config, db};

pub async fn doctor(config: Config) -> anyhow::Result<()> {
    let mut sick = 0;
    let mut say = |name: &str, result: Result<String, String>| match result {
        Ok(state) => println!("ok    {name:<12} {state}"),
        Err(what_to_do) => {
            sick += 1;
            println!("FAIL  {name:<12} {what_to_do}");
        }
    };
    say(
        "config",
        config
            .require_servers()
            .map(|()| "complete".into())
            .map_err(|e| e.to_string()),
    );
    let tools = &config.instances.tools_dir;
    for (name, path) in [
        ("node", tools.join("node/bin/node")),
        (
            "openclaw",
            tools.join("openclaw/node_modules/openclaw/openclaw.mjs"),
        ),
        ("bridge", config.instances.bridge_dir.join("index.js")),
    ] {
        let there = path.exists();
        say(
            name,
            if there {
                Ok(path.display().to_string())
            } else {
                Err(format!(
                    "{} is missing; run scripts/bootstrap, or set instances.tools_dir",
                    path.display()
                ))
            },
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
                match db::migrations_pending(app.db().app_pool()).await {
                    Ok(0) => Ok("schema up to date".to_owned()),
                    Ok(n) => Err(format!("{n} migrations are missing; run `tsunami migrate`")),
                    Err(e) => Err(format!("{e}; run `tsunami migrate`")),
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
            say("sandbox", Ok(format!("{:?}", app.plugin_host())));
        }
    }
    anyhow::ensure!(sick == 0, "{sick} checks failed");
    Ok(())
}
