//! `tsunami plugin test`: recorded replies. The built component is called in the sandbox, and must ask and answer as it
//! was recorded.

use super::{
    check::{apart, load, recorded},
    project::Project,
};
use crate::cli::commands::{Output, show};
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, sync::Arc};
use tsunami_plugin_check::{Difference, End, Golden, GoldenReply, Played, play};
use tsunami_plugin_host::Plugin;

#[derive(clap::Args)]
pub struct Test {
    /// The plugin's project.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// The component, where the project's own build does not leave it.
    #[arg(long)]
    pub component: Option<PathBuf>,
    /// Write what was seen into the recordings, and begin one for each example of an action that has none. Replies
    /// that were recorded stay; where one is lacking, an empty one stands for you to fill in.
    #[arg(long)]
    pub record: bool,
    #[command(flatten)]
    pub output: Output,
}

/// Plays every recording of a project; fails where one goes otherwise.
pub fn test(args: &Test) -> anyhow::Result<()> {
    let project = Project::at(&args.folder)?;
    let component = match &args.component {
        Some(file) => file.clone(),
        None => project.component()?,
    };
    let bytes = fs::read(&component).with_context(|| {
        let build = project
            .language
            .commands()
            .last()
            .copied()
            .unwrap_or_default();
        format!("cannot read {}; build it: {build}", component.display())
    })?;
    let golden = project.golden();
    let recordings = match golden.is_dir() {
        true => recorded(&golden)?,
        false => Vec::new(),
    };
    ensure!(
        args.record || !recordings.is_empty(),
        "nothing is recorded in {}; begin with --record",
        golden.display()
    );
    let record = args.record;
    let played = apart(move || {
        let plugin =
            load(&bytes)?.map_err(|e| anyhow::anyhow!("the component does not load: {e}"))?;
        ensure!(
            plugin.kinds().adapter,
            "only a skill's calls are recorded, and this plugin teaches none"
        );
        let mut recordings = recordings;
        if record {
            recordings.extend(begun(&plugin, &recordings)?);
        }
        let blank = record.then(GoldenReply::blank);
        let played = recordings.into_iter().map(|recording| {
            let played = play(&plugin, &recording, blank.as_ref());
            (recording, played)
        });
        Ok(played.collect::<Vec<_>>())
    })?;
    if record {
        return written(args, &golden, played);
    }
    told(args, &played)
}

/// A recording without replies for each example of the actions that have none.
fn begun(plugin: &Arc<Plugin>, recordings: &[Golden]) -> anyhow::Result<Vec<Golden>> {
    let manifest = plugin
        .describe()
        .map_err(|e| anyhow::anyhow!("`describe` failed: {e}"))?
        .value;
    let mut begun = Vec::new();
    for action in manifest.actions {
        if recordings
            .iter()
            .any(|recording| recording.action == action.name)
        {
            continue;
        }
        for (index, example) in action.examples.iter().enumerate() {
            let number = if index == 0 {
                String::new()
            } else {
                format!("_{}", index + 1)
            };
            let params = serde_json::from_str(&example.params)
                .with_context(|| format!("an example of {} is no JSON", action.name))?;
            begun.push(Golden::begin(
                format!("{}{number}.json", action.name),
                &action.name,
                params,
            ));
        }
    }
    Ok(begun)
}

fn written(
    args: &Test,
    folder: &std::path::Path,
    played: Vec<(Golden, Played)>,
) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let mut lines = Vec::new();
    for (recording, played) in played {
        let file = recording.file.clone();
        let replies = played
            .exchanges
            .len()
            .saturating_sub(recording.exchanges.len());
        let expect = match played.end {
            End::Ended(expect) => expect,
            other => bail!("golden/{file}: it has no end that could be recorded, but {other}"),
        };
        let seen = Golden {
            exchanges: played.exchanges,
            expect,
            ..recording
        };
        let mut text = serde_json::to_string_pretty(&seen)?;
        text.push('\n');
        let path = folder.join(&file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        lines.push(json!({ "file": format!("golden/{file}"), "replies_to_fill_in": replies }));
    }
    show(&args.output, &json!({ "written": lines }), |_| {
        let line = |line: &Value| match line["replies_to_fill_in"].as_u64() {
            Some(0) | None => format!("{} is written", text_of(&line["file"])),
            Some(replies) => format!(
                "{} is written; {replies} of its replies are empty: put in what the service answers, and record again",
                text_of(&line["file"])
            ),
        };
        lines.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

fn told(args: &Test, played: &[(Golden, Played)]) -> anyhow::Result<()> {
    let results: Vec<(&str, Vec<Difference>)> = played
        .iter()
        .map(|(recording, played)| (recording.file.as_str(), played.differences(recording)))
        .collect();
    let failed = results
        .iter()
        .filter(|(_, differences)| !differences.is_empty())
        .count();
    let value: Vec<Value> = results
        .iter()
        .map(|(file, differences)| result(file, differences))
        .collect();
    show(&args.output, &json!({ "recordings": value }), |_| {
        let lines = results
            .iter()
            .map(|(file, differences)| match differences.as_slice() {
                [] => format!("golden/{file}: as recorded"),
                differences => {
                    let told: Vec<String> = differences.iter().map(|d| format!("  {d}")).collect();
                    format!(
                        "golden/{file}: otherwise (- recorded, + now)\n{}",
                        told.join("\n")
                    )
                }
            });
        lines.collect::<Vec<_>>().join("\n")
    })?;
    ensure!(
        failed == 0,
        "{failed} of {} recordings went otherwise; mend the plugin, or write down what it does now with --record",
        results.len()
    );
    Ok(())
}

fn result(file: &str, differences: &[Difference]) -> Value {
    let differences = differences.iter().map(|difference| {
        json!({ "place": difference.place, "recorded": difference.wanted, "now": difference.got })
    });
    json!({ "file": format!("golden/{file}"), "differences": differences.collect::<Vec<_>>() })
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
