//! What one instance gets: its quota, its log, and a WASI in which nothing happens.

use crate::{
    bindings::log,
    limits::{ClassLimits, Limits, MEMORIES_MAX, TABLES_MAX},
    plugin::LogLine,
    streams::{HasIo, Io},
    wasi::{Chance, Instant},
};
use wasmtime::{
    ResourceLimiter, Result,
    component::{HasData, HasSelf, Linker, ResourceTable},
};
use wasmtime_wasi::{
    WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView,
    cli::{WasiCli, WasiCliView},
    p2::pipe::MemoryOutputPipe,
};

/// What a guest may print, a panic's message above all, in bytes.
const OUTPUT_BYTES_MAX: usize = 4096;
/// Streams, errors and pollables that a guest may hold at once.
pub const HANDLES_MAX: usize = 256;

/// The data of one store.
pub struct State {
    pub quota: Quota,
    pub log: Vec<LogLine>,
    log_lines_max: usize,
    log_line_bytes_max: usize,
    pub now: Instant,
    pub chance: Chance,
    /// Made for the first that needs it: hardly any call does.
    wasi: Option<Wasi>,
    pub table: ResourceTable,
}

struct Wasi {
    ctx: WasiCtx,
    output: MemoryOutputPipe,
}

impl Wasi {
    fn new() -> Self {
        let output = MemoryOutputPipe::new(OUTPUT_BYTES_MAX);
        let mut builder = WasiCtxBuilder::new();
        builder.stderr(output.clone()).stdout(output.clone());
        Self {
            ctx: builder.build(),
            output,
        }
    }
}

/// Said by a guest that writes too many log lines.
#[derive(Debug, thiserror::Error)]
#[error("log budget")]
pub struct LogBudget;

impl State {
    pub fn new(
        limits: &Limits,
        class: &ClassLimits,
        memory_max: usize,
        now: Instant,
        chance: Chance,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        Self {
            quota: Quota {
                memory: 0,
                memory_max,
                table: 0,
                table_max: class.table_elements_max,
                instances_max: class.core_instances_max,
                refused: false,
            },
            now,
            chance,
            log: Vec::new(),
            log_lines_max: limits.log_lines_max,
            log_line_bytes_max: limits.log_line_bytes_max,
            wasi: None,
            table,
        }
    }

    /// What the guest printed: where it panicked, and why.
    pub fn printed(&self) -> String {
        let output = self.wasi.as_ref().map(|wasi| wasi.output.contents());
        without_nul(String::from_utf8_lossy(&output.unwrap_or_default()).trim())
    }
}

/// What a guest writes ends in databases and on terminals, which come to grief over it.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl State {
    fn io(&mut self) -> Io<'_> {
        Io(&mut self.table)
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi.get_or_insert_with(Wasi::new).ctx,
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
    instances_max: u32,
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
        self.instances_max as usize
    }
    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }
}

struct Errors;
impl HasData for Errors {
    type Data<'a> = &'a mut ResourceTable;
}

/// What every plugin is linked with: what `imports.rs` names, and nothing else. None of it can wait, so no call can
/// block.
pub fn linker(engine: &wasmtime::Engine) -> Result<Linker<State>> {
    use wasmtime_wasi::p2::bindings::{self, cli, clocks, random};
    let mut linker = Linker::<State>::new(engine);
    let l = &mut linker;
    type Own = HasSelf<State>;
    crate::bindings::SkillAdapterPlugin::add_to_linker::<State, Own>(l, |state| state)?;
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
    clocks::monotonic_clock::add_to_linker::<State, Own>(l, |state| state)?;
    clocks::wall_clock::add_to_linker::<State, Own>(l, |state| state)?;
    random::insecure::add_to_linker::<State, Own>(l, |state| state)?;
    random::insecure_seed::add_to_linker::<State, Own>(l, |state| state)?;
    random::random::add_to_linker::<State, Own>(l, |state| state)?;
    wasmtime_wasi_io::bindings::wasi::io::error::add_to_linker::<State, Errors>(l, |state| {
        &mut state.table
    })?;
    bindings::sync::io::poll::add_to_linker::<State, HasIo>(l, State::io)?;
    bindings::sync::io::streams::add_to_linker::<State, HasIo>(l, State::io)?;
    Ok(linker)
}
