//! Log lines: one event a line, to standard error. Standard output belongs to what a command answers.

use crate::config::{LogConfig, LogFormat};
use std::io::IsTerminal;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, fmt, fmt::MakeWriter, layer::SubscriberExt, registry,
    util::SubscriberInitExt,
};

/// Starts logging for the process. Says what is wrong with the filter, if anything is.
pub fn start(config: &LogConfig) -> anyhow::Result<()> {
    let started = subscriber(config, std::io::stderr)?.try_init();
    started.map_err(|e| anyhow::anyhow!("logging is on already: {e}"))
}

fn subscriber<W>(config: &LogConfig, writer: W) -> anyhow::Result<impl Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&config.filter).map_err(|e| {
        anyhow::anyhow!("setting `log.filter`: {e}. Example: filter = \"tsunami=debug,info\"")
    })?;
    let lines = fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(writer);
    let lines = match config.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let heard = lines.with_filter(filter_fn(is_ours_or_no_trace));
    Ok(registry().with(filter).with(heard))
}

/// Whatever the filter says, nothing of others at TRACE: what they write there is what goes over their connections, and
/// in it credentials.
fn is_ours_or_no_trace(line: &Metadata<'_>) -> bool {
    *line.level() != Level::TRACE || line.target().split("::").next().is_some_and(is_ours)
}

fn is_ours(name: &str) -> bool {
    name == "tsunami" || name.starts_with("tsunami_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        sync::{Arc, Mutex},
    };
    use tracing::subscriber::with_default;

    /// What was written.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whatever_the_filter_says_others_write_nothing_at_trace() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let lines = Lines::default();
            let config = LogConfig {
                filter: "trace".into(),
                format,
            };
            let writer = lines.clone();
            let subscriber = subscriber(&config, move || writer.clone()).unwrap();
            with_default(subscriber, || {
                tracing::trace!(target: "h2::codec", "a frame with a credential");
                tracing::debug!(target: "h2::codec", "a connection");
                tracing::trace!(target: "tsunami::skills", "a step");
            });
            let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
            let has = |words| text.contains(words);
            assert!(has("a connection") && has("a step"), "{text}");
            assert!(!has("credential"), "{text}");
        }
    }

    #[test]
    fn only_crates_of_ours_are_heard_at_every_level() {
        for ours in ["tsunami", "tsunami_openclaw"] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in ["tungstenite", "h2", "hyper", "tsunamis", "sqlx"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
