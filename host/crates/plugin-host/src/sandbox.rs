//! What one instance gets: its quota, its log, and a WASI in which nothing happens.

use crate::{bindings::log, limits::Limits, plugin::LogLine};
use wasmtime::{
    Error, ResourceLimiter, Result, bail,
    component::{Component, HasData, Linker, ResourceTable, ResourceType, types::ComponentItem},
};
use wasmtime_wasi::{
    WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView,
    cli::{WasiCli, WasiCliView},
    p2::pipe::MemoryOutputPipe,
    random::WasiRandom,
};

/// What a guest may print, a panic's message above all, in bytes.
const OUTPUT_BYTES_MAX: usize = 4096;
/// The seed of every hash map of every guest: the same call gives the same answer.
const SEED: u128 = 0x7473_756e_616d_6921_7473_756e_616d_6921;
/// Interfaces that Rust's standard library drags in and plugins do not get: calling them traps.
const DENIED: [&str; 3] = ["wasi:clocks/", "wasi:filesystem/", "wasi:sockets/"];

/// The data of one store.
pub struct State {
    pub quota: Quota,
    pub log: Vec<LogLine>,
    log_lines_max: usize,
    log_line_bytes_max: usize,
    wasi: WasiCtx,
    table: ResourceTable,
    output: MemoryOutputPipe,
}

/// Said by a guest that writes too many log lines.
#[derive(Debug, thiserror::Error)]
#[error("log budget")]
pub struct LogBudget;

impl State {
    pub fn new(limits: &Limits) -> Self {
        let output = MemoryOutputPipe::new(OUTPUT_BYTES_MAX);
        let wasi = WasiCtxBuilder::new()
            .stderr(output.clone())
            .stdout(output.clone())
            .insecure_random_seed(SEED)
            .build();
        Self {
            quota: Quota {
                memory: 0,
                memory_max: limits.memory_bytes_max,
                table: 0,
                table_max: limits.table_elements_max,
                refused: false,
            },
            log: Vec::new(),
            log_lines_max: limits.log_lines_max,
            log_line_bytes_max: limits.log_line_bytes_max,
            wasi,
            table: ResourceTable::new(),
            output,
        }
    }

    /// What the guest printed: where it panicked, and why.
    pub fn printed(&self) -> String {
        without_nul(String::from_utf8_lossy(&self.output.contents()).trim())
    }
}

/// What a guest writes ends in databases and on terminals, which come to grief over it.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String) -> Result<()> {
        if self.log.len() >= self.log_lines_max {
            return Err(LogBudget.into());
        }
        let end = message.floor_char_boundary(self.log_line_bytes_max);
        self.log.push(LogLine {
            level: format!("{level:?}")
                .trim_start_matches("Level::")
                .to_lowercase(),
            message: without_nul(&message[..end]),
        });
        Ok(())
    }
}

impl crate::bindings::types::Host for State {}

/// Sums over every memory and table of the instance; wasmtime's own limits cap each one alone.
pub struct Quota {
    memory: usize,
    memory_max: usize,
    table: usize,
    table_max: usize,
    /// Whether memory was asked for and not given.
    pub refused: bool,
}

impl ResourceLimiter for Quota {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        let grown = desired.saturating_sub(current);
        if self.memory + grown > self.memory_max {
            self.refused = true;
            return Ok(false);
        }
        self.memory += grown;
        Ok(true)
    }
    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        let grown = desired.saturating_sub(current);
        if self.table + grown > self.table_max {
            return Ok(false);
        }
        self.table += grown;
        Ok(true)
    }
    fn instances(&self) -> usize {
        16
    }
    fn memories(&self) -> usize {
        4
    }
    fn tables(&self) -> usize {
        8
    }
}

struct Io;
impl HasData for Io {
    type Data<'a> = &'a mut ResourceTable;
}

/// What every plugin is linked with: `log`, and of WASI what a standard library needs to start, to hash and to
/// print a panic. None of it can wait, so no call can block.
pub fn base_linker(engine: &wasmtime::Engine) -> Result<Linker<State>> {
    use wasmtime_wasi::p2::bindings::{self, cli, random};
    let mut linker = Linker::<State>::new(engine);
    let l = &mut linker;
    crate::bindings::SkillAdapterPlugin::add_to_linker::<State, wasmtime::component::HasSelf<State>>(
        l,
        |state| state,
    )?;
    cli::environment::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::exit::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(l, |state| state.wasi.random())?;
    wasmtime_wasi_io::bindings::wasi::io::error::add_to_linker::<State, Io>(l, |state| {
        &mut state.table
    })?;
    bindings::sync::io::poll::add_to_linker::<State, Io>(l, |state| &mut state.table)?;
    bindings::sync::io::streams::add_to_linker::<State, Io>(l, |state| &mut state.table)?;
    Ok(linker)
}

/// Defines what the component imports of the denied interfaces, each function as one that traps by its name.
pub fn deny(linker: &mut Linker<State>, component: &Component) -> Result<()> {
    let engine = linker.engine().clone();
    for (interface, item) in component.component_type().imports(&engine) {
        if !DENIED.iter().any(|prefix| interface.starts_with(prefix)) {
            continue;
        }
        let ComponentItem::ComponentInstance(instance) = item.ty else {
            bail!("import {interface} is no interface")
        };
        let mut into = linker.instance(interface)?;
        for (name, item) in instance.exports(&engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) => {
                    let refusal = format!("{interface}#{name} is not given to plugins");
                    into.func_new(name, move |_, _, _, _| Err(Error::msg(refusal.clone())))?;
                }
                ComponentItem::Resource(_) => {
                    into.resource(name, host_resource(name), |_, _| Ok(()))?
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// A resource that a denied interface only uses from `wasi:io` has to stay that one.
fn host_resource(name: &str) -> ResourceType {
    match name {
        "pollable" => ResourceType::host::<wasmtime_wasi_io::poll::DynPollable>(),
        "input-stream" => ResourceType::host::<wasmtime_wasi_io::streams::DynInputStream>(),
        "output-stream" => ResourceType::host::<wasmtime_wasi_io::streams::DynOutputStream>(),
        "error" => ResourceType::host::<wasmtime_wasi_io::streams::Error>(),
        _ => ResourceType::host::<()>(),
    }
}
