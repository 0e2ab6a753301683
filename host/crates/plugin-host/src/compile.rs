//! Has a component compiled by a child process, which is killed where it takes too much.

use crate::{
    ClassLimits, CompileError, LoadError,
    limits::COMPILE_TIME_MAX,
    worker::{ANSWER_ARTIFACT, ANSWER_REFUSED},
};
use rustix::process::Signal;
use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
};

/// What is read of the words of a child that failed, in bytes.
const WORDS_BYTES_MAX: u64 = 4096;

/// The program that compiles, and the arguments that make it do so.
#[derive(Clone, Debug)]
pub struct Compiler {
    program: PathBuf,
    arguments: Vec<OsString>,
    time_max: Duration,
}

/// Machine code that this gateway compiled, or kept under its own mark. Nothing else is ever loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Artifact(pub(crate) Vec<u8>);

impl Compiler {
    /// This program itself: with these arguments it must hand over to [`crate::compile_worker`] at once.
    ///
    /// # Errors
    /// Where the system does not say which program this is.
    pub fn this_program<A: Into<OsString>>(
        arguments: impl IntoIterator<Item = A>,
    ) -> std::io::Result<Self> {
        // The file may have been replaced since by a newer version; this one still runs.
        let running = PathBuf::from("/proc/self/exe");
        let program = if running.exists() {
            running
        } else {
            std::env::current_exe()?
        };
        Ok(Self {
            program,
            arguments: arguments.into_iter().map(Into::into).collect(),
            time_max: COMPILE_TIME_MAX,
        })
    }

    /// Has it wait longer by the clock on the wall: a child yields to everything else on a machine that is busy.
    #[must_use]
    pub fn patient(self, time_max: Duration) -> Self {
        Self { time_max, ..self }
    }

    pub(crate) async fn compile(
        &self,
        bytes: &[u8],
        limits: &ClassLimits,
    ) -> Result<Artifact, LoadError> {
        let answered = self.ask(bytes, limits);
        match tokio::time::timeout(self.time_max, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(CompileError::Slow {
                seconds: self.time_max.as_secs(),
            }
            .into()),
        }
    }

    /// Dropped before its end, it kills the child.
    async fn ask(&self, bytes: &[u8], limits: &ClassLimits) -> Result<Artifact, LoadError> {
        let unavailable = |e: &dyn std::fmt::Display| CompileError::Unavailable(e.to_string());
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .arg(limits.component_bytes_max.to_string())
            .arg(limits.compile_cpu_seconds_max.to_string())
            .arg(limits.compile_memory_bytes_max.to_string())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| unavailable(&e))?;
        let (Some(mut input), Some(output), Some(words)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(unavailable(&"it has no pipes").into());
        };
        let give = async move {
            // A child that refuses early stops reading; its answer says why.
            let _ = input.write_all(bytes).await;
        };
        let answer_bytes_max = limits.artifact_bytes_max as u64 + 1;
        let ((), answer, words) = tokio::join!(
            give,
            read_at_most(output, answer_bytes_max + 1),
            read_at_most(words, WORDS_BYTES_MAX)
        );
        if answer.len() as u64 > answer_bytes_max {
            return Err(CompileError::ArtifactTooLarge {
                bytes_max: limits.artifact_bytes_max,
            }
            .into());
        }
        let status = child.wait().await.map_err(|e| unavailable(&e))?;
        understand(status, answer, &words, limits)
    }
}

/// Up to so many bytes; then the pipe is closed, and whoever writes on is told.
async fn read_at_most(pipe: impl AsyncRead + Unpin, bytes_max: u64) -> Vec<u8> {
    let mut read = Vec::new();
    let _ = pipe.take(bytes_max).read_to_end(&mut read).await;
    read
}

fn understand(
    status: ExitStatus,
    mut answer: Vec<u8>,
    words: &[u8],
    limits: &ClassLimits,
) -> Result<Artifact, LoadError> {
    if status.success() && !answer.is_empty() {
        return match answer.remove(0) {
            ANSWER_ARTIFACT => Ok(Artifact(answer)),
            ANSWER_REFUSED => Err(refusal(&String::from_utf8_lossy(&answer), limits)),
            other => Err(CompileError::Died(format!("it answered {other}")).into()),
        };
    }
    let words = String::from_utf8_lossy(words);
    let signal = status.signal();
    if signal == Some(Signal::XCPU.as_raw()) {
        let seconds = limits.compile_cpu_seconds_max.into();
        return Err(CompileError::Time { seconds }.into());
    }
    if is_out_of_memory(&words) {
        let bytes_max = limits.compile_memory_bytes_max;
        return Err(CompileError::Memory { bytes_max }.into());
    }
    let last = words.lines().next_back().unwrap_or_default();
    Err(CompileError::Died(format!("{status}; {last}")).into())
}

fn is_out_of_memory(words: &str) -> bool {
    [
        "memory allocation of",
        "Cannot allocate memory",
        "out of memory",
    ]
    .iter()
    .any(|hint| words.contains(hint))
}

/// The words of wasmtime, as one of our errors.
pub(crate) fn refusal(text: &str, limits: &ClassLimits) -> LoadError {
    let too_much = [
        "exceeds the limit",
        "exceeds pool",
        "too many",
        "memory index",
        "exceeds the maximum",
        "has a minimum",
        "larger than the maximum",
    ];
    if is_out_of_memory(text) {
        let bytes_max = limits.compile_memory_bytes_max;
        CompileError::Memory { bytes_max }.into()
    } else if too_much.iter().any(|hint| text.contains(hint)) {
        LoadError::TooMuch(text.to_owned())
    } else {
        LoadError::Invalid(text.to_owned())
    }
}
