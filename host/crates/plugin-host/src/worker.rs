//! The child process that compiles. It confines itself before it reads a byte of the component: what it may take
//! is bounded by the operating system, and it holds nothing that it could give away.

use crate::engine::compiling_engine;
use rustix::process::{Resource, Rlimit, Signal, nice, setrlimit};
use std::{
    io::{Read, Write},
    process::ExitCode,
};

/// The first byte of an answer: machine code follows, or words that say what is wrong.
pub(crate) const ANSWER_ARTIFACT: u8 = b'A';
pub(crate) const ANSWER_REFUSED: u8 = b'R';

/// Descriptors that it may hold: the three of every process, and one to look at its own.
const DESCRIPTORS_MAX: u64 = 8;
/// Behind everything that serves somebody.
const NICENESS: i32 = 10;

/// Compiles one component from standard input to standard output, within the limits that the arguments name: bytes of
/// the component, seconds of a processor, bytes of address space. [`crate::Compiler`] starts it.
pub fn compile_worker(arguments: impl Iterator<Item = String>) -> ExitCode {
    match work(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compile-plugin: {error}");
            ExitCode::FAILURE
        }
    }
}

fn work(arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<u64> = arguments.map(|a| a.parse()).collect::<Result<_, _>>()?;
    let [component_bytes_max, cpu_seconds_max, memory_bytes_max] = numbers[..] else {
        return Err("the gateway starts this by itself, to compile a plugin".into());
    };
    confine(cpu_seconds_max, memory_bytes_max)?;
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(component_bytes_max + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > component_bytes_max {
        return Err("the component is larger than was said".into());
    }
    let compiled = compiling_engine().and_then(|engine| engine.precompile_component(&bytes));
    let (kind, answer) = match compiled {
        Ok(code) => (ANSWER_ARTIFACT, code),
        Err(error) => (ANSWER_REFUSED, format!("{error:#}").into_bytes()),
    };
    let mut output = std::io::stdout().lock();
    output.write_all(&[kind])?;
    output.write_all(&answer)?;
    output.flush()?;
    Ok(())
}

fn confine(cpu_seconds_max: u64, memory_bytes_max: u64) -> std::io::Result<()> {
    // Whoever started this is gone: nobody wants the answer any more.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    close_what_was_inherited()?;
    for (resource, limit) in [
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, DESCRIPTORS_MAX),
        (Resource::As, memory_bytes_max),
    ] {
        setrlimit(resource, both(limit, limit))?;
    }
    // The first limit ends it with a signal that tells why, the second in any case.
    setrlimit(Resource::Cpu, both(cpu_seconds_max, cpu_seconds_max + 1))?;
    nice(NICENESS)?;
    Ok(())
}

fn both(soft: u64, hard: u64) -> Rlimit {
    Rlimit {
        current: Some(soft),
        maximum: Some(hard),
    }
}

/// Rust opens everything so that children do not inherit it; this is for what other code opened.
fn close_what_was_inherited() -> std::io::Result<()> {
    let open: Vec<i32> = std::fs::read_dir("/dev/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    for descriptor in open {
        // The one of the listing itself is closed by now.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}
