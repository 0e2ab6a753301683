//! Twenty thousand inputs that nobody wrote, through everything that a file goes through before it is installed: the
//! pass over its bytes, the compiler's process, and what it says of itself. They are drawn from a seed, so that a run
//! can be had again.
//!
//! They run in a process of their own: what it leaves behind is its own doing, and a panic or a hang ends it alone.

use crate::{
    image,
    stage::{self, guest, host_with, limits, read, shipped, wit},
};
use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tsunami_plugin_host::{
    ArtifactCache, ArtifactKeys, IntakeError, LoadError, Plugin, PluginHost, TenantKey,
    TenantLimits, adapter::Manifest, check_credential_schema, check_file, check_manifest,
    check_policy, credentials, policy,
};
use tsunami_sealed::DataKey;

stage::trials![generated_inputs_are_refused_or_taken_and_leave_nothing];

/// The argument that makes this program the one that tries them.
pub const GENERATE: &str = "generate-inputs";
const SEED_DEFAULT: u64 = 2026;
/// How many of each kind, and how many of these at most go on to the compiler, which takes a process and so a while: the
/// others end where they passed what comes before it.
const KINDS: [(Kind, usize, usize); 6] = [
    (Kind::Random, 4000, 100),
    (Kind::RandomAfterTheHead, 2000, 100),
    (Kind::SmallComponent, 4000, 400),
    (Kind::GoldenComponent, 3700, 60),
    (Kind::DecodedManifest, 6000, 0),
    (Kind::ManifestInMemory, 300, 300),
];
/// Components that stay loaded, each with a descriptor.
const LOADED_MAX: u32 = 32;
/// Files at work at once, each of another tenant.
const TENANTS: u128 = 3;
/// What one input may take on a busy machine.
const HANG: Duration = Duration::from_secs(120);
const WHOLE_RUN: Duration = Duration::from_secs(1200);
/// An error is for people to read, in bytes.
const ERROR_BYTES_MAX: usize = 32 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Bytes.
    Random,
    /// Bytes behind the eight with which a component begins.
    RandomAfterTheHead,
    /// A component of some hundred bytes, damaged.
    SmallComponent,
    /// A component as Rust makes them, damaged.
    GoldenComponent,
    /// What a plugin says of itself, changed here and there.
    DecodedManifest,
    /// The same as it lies in the plugin's memory, damaged there.
    ManifestInMemory,
}

/// How far an input came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    RefusedByItsBytes,
    PassedByItsBytes,
    RefusedByTheCompiler,
    FailedToDescribeItself,
    SaysWhatIsNotWellFormed,
    Taken,
}

fn generated_inputs_are_refused_or_taken_and_leave_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
    let seed = std::env::var("TSUNAMI_TEST_SEED").unwrap_or_else(|_| SEED_DEFAULT.to_string());
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args([GENERATE, &seed])
        .arg(folder.path())
        .env("TMPDIR", folder.path())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .spawn()
        .expect("it starts");
    let began = Instant::now();
    let status = stage::within(WHOLE_RUN, "the inputs were tried", || {
        child.try_wait().expect("it is our child")
    });
    eprintln!("seed {seed}: {:?}", began.elapsed());
    assert!(status.success(), "seed {seed}: {status}");
    let left: Vec<_> = fs::read_dir(folder.path())
        .expect("the folder")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["artifacts"], "something was left behind");
}

/// The process that tries them.
pub fn generate(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let seed = arguments.next().and_then(|seed| seed.parse().ok());
    let folder = arguments.next().expect("a folder");
    let artifacts = Path::new(&folder).join("artifacts");
    let keys = ArtifactKeys::new("test".into(), DataKey::generate());
    let cache = ArtifactCache::open(&artifacts, keys, 256 << 20).expect("a folder");
    let mut limits = limits();
    limits.loaded_max = LOADED_MAX;
    let host = host_with(limits, Some(cache));
    let before = descriptors();
    let tally = Tally::default();
    let jobs = Mutex::new(jobs(seed.expect("a seed")));
    let sources = Sources::gather();
    std::thread::scope(|scope| {
        for tenant in 0..TENANTS {
            let (host, jobs, sources, tally) = (&host, &jobs, &sources, &tally);
            scope.spawn(move || {
                while let Some(job) = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop() {
                    tally.add(&job, try_it(host, TenantKey(tenant), sources, &job));
                }
            });
        }
    });
    let tried = tally.print();
    let mut wrong = tally
        .wrong
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let expected: usize = KINDS.iter().map(|(_, count, _)| count).sum();
    if tried != expected {
        wrong.push(format!("{tried} of {expected} were tried"));
    }
    let children = children();
    if !children.is_empty() {
        wrong.push(format!("processes are left: {children:?}"));
    }
    let allowed = before + LOADED_MAX as usize + 8;
    stage::eventually("what is not loaded any more is closed", || {
        // Looking for something is when the cache puts itself in order.
        stage::runtime().block_on(host.loaded("nothing"));
        (descriptors() <= allowed).then_some(())
    });
    wrong.extend(unfinished(&artifacts, host.compiled()));
    for complaint in wrong.iter().take(20) {
        eprintln!("{complaint}");
    }
    match wrong.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// One input, by what it is drawn from.
#[derive(Debug)]
struct Job {
    kind: Kind,
    seed: u64,
}

fn jobs(seed: u64) -> Vec<Job> {
    let mut dice = Dice(seed);
    let all = KINDS
        .iter()
        .flat_map(|(kind, count, _)| std::iter::repeat_n(*kind, *count));
    all.map(|kind| Job {
        kind,
        seed: dice.next(),
    })
    .collect()
}

/// What inputs are made from.
struct Sources {
    small: Vec<Vec<u8>>,
    golden: Vec<Vec<u8>>,
    manifest: Manifest,
    credentials: credentials::Schema,
    policy: policy::Manifest,
    memory: Vec<u8>,
}

impl Sources {
    fn gather() -> Self {
        let of_contract = |name: &str| read(&wit().join("golden").join(format!("{name}.wasm")));
        let golden = vec![of_contract("skill"), of_contract("policy")];
        let host = stage::host();
        let described = |bytes: &[u8]| {
            let plugin = stage::load(&host, bytes).expect("it loads");
            plugin.describe_all().expect("it is well-formed")
        };
        let skill = described(&golden[0]);
        let manifest = skill.manifest.expect("a skill");
        let without_credentials = image::golden(&host);
        let memory = image::memory_of(&without_credentials);
        let again = described(&image::plugin_of(&memory)).manifest;
        assert!(
            again == Some(without_credentials),
            "it is not laid out as it should be"
        );
        let small = [
            image::plugin_of(&memory[..]),
            crate::bombs::harmless(),
            guest("routing-policy-plugin", POLICY),
        ];
        Self {
            small: small.into(),
            policy: described(&golden[1]).policy.expect("a policy"),
            credentials: skill.credentials.expect("its credentials"),
            golden: [golden, vec![shipped("exfiltrator")]].concat(),
            manifest,
            memory,
        }
    }
}

const POLICY: &str = r#"(module (memory (export "memory") 1)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "servicetsunami:plugin/routing-policy@0.1.0#describe") (result i32) unreachable)
    (func (export "servicetsunami:plugin/routing-policy@0.1.0#decide") (param i32) (result i32) unreachable))"#;

/// How far it came, or what must not be.
fn try_it(
    host: &PluginHost,
    tenant: TenantKey,
    sources: &Sources,
    job: &Job,
) -> Result<Stage, String> {
    let began = Instant::now();
    let tried = catch_unwind(AssertUnwindSafe(|| {
        let mut dice = Dice(job.seed);
        match job.kind {
            Kind::DecodedManifest => well_formed(&mut dice, sources),
            kind => intake(host, tenant, dice.file(kind, sources), || goes_on(kind)),
        }
    }));
    let took = began.elapsed();
    let (stage, error) = tried.map_err(|_| "it panicked".to_owned())?;
    if took > HANG {
        return Err(format!("it took {took:?}"));
    }
    if error.len() > ERROR_BYTES_MAX || (stage != Stage::Taken && error.len() < 10) {
        return Err(format!("its error has {} bytes", error.len()));
    }
    Ok(stage)
}

/// Whether one more of a kind may be compiled.
fn goes_on(kind: Kind) -> bool {
    static COMPILED: Mutex<BTreeMap<Kind, usize>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let count = compiled.entry(kind).or_default();
    *count += 1;
    KINDS
        .iter()
        .any(|(of, _, most)| *of == kind && *count <= *most)
}

/// What `POST /plugins` does with a file.
fn intake(
    host: &PluginHost,
    tenant: TenantKey,
    bytes: Vec<u8>,
    goes_on: impl FnOnce() -> bool,
) -> (Stage, String) {
    if let Err(error) = check_file(&bytes, &limits()) {
        return (Stage::RefusedByItsBytes, error.to_string());
    }
    if !goes_on() {
        return (Stage::PassedByItsBytes, "it was not compiled".into());
    }
    let worked = stage::runtime().block_on(async {
        let plugin = host.load(tenant, bytes).await?;
        let limits = TenantLimits::default();
        let described = host.call(tenant, &limits, &plugin, Plugin::describe_all);
        Ok::<_, LoadError>(described.await.expect("its turn"))
    });
    match worked {
        Err(error) => {
            assert!(!error.is_transient(), "{error}");
            (Stage::RefusedByTheCompiler, error.to_string())
        }
        Ok(Err(error @ IntakeError::Manifest(_))) => {
            (Stage::SaysWhatIsNotWellFormed, error.to_string())
        }
        Ok(Err(error)) => (Stage::FailedToDescribeItself, error.to_string()),
        Ok(Ok(_)) => (Stage::Taken, String::new()),
    }
}

/// What the last part of it does with what a plugin says.
fn well_formed(dice: &mut Dice, sources: &Sources) -> (Stage, String) {
    let wrong = match dice.below(4) {
        0 => {
            let schema = dice.changed(&sources.credentials);
            schema.map(|schema| check_credential_schema(&schema, Some("golden")))
        }
        1 => dice
            .changed(&sources.policy)
            .map(|policy| check_policy(&policy)),
        _ => {
            let manifest = dice.changed(&sources.manifest);
            manifest.map(|manifest| check_manifest(&manifest, Some(&sources.credentials.fields)))
        }
    };
    match wrong {
        // Not of the contract's types any more: lifting has refused it.
        None => (
            Stage::FailedToDescribeItself,
            "it has another type".to_owned(),
        ),
        Some(wrong) if wrong.is_empty() => (Stage::Taken, String::new()),
        Some(wrong) => (
            Stage::SaysWhatIsNotWellFormed,
            IntakeError::Manifest(wrong).to_string(),
        ),
    }
}

/// SplitMix64: a row of numbers that follows from its seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).expect("it fits")).expect("it fits")
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn file(&mut self, kind: Kind, sources: &Sources) -> Vec<u8> {
        let length = self.below(4096);
        match kind {
            Kind::Random | Kind::DecodedManifest => self.bytes(length),
            Kind::RandomAfterTheHead => {
                [b"\0asm\x0d\0\x01\0".to_vec(), self.bytes(length)].concat()
            }
            Kind::SmallComponent => self.damaged(&sources.small),
            Kind::GoldenComponent => self.damaged(&sources.golden),
            Kind::ManifestInMemory => {
                let mut memory = sources.memory.clone();
                for _ in 0..=self.below(4) {
                    // Mostly in the records, where pointers, lengths and cases stand.
                    let within = if self.below(3) == 0 {
                        memory.len()
                    } else {
                        400
                    };
                    let at = self.below(within.min(memory.len()));
                    memory[at] = *self.one(&[0, 1, 2, 3, 0x7f, 0x80, 0xc3, 0xff, memory[at] ^ 4]);
                }
                image::plugin_of(&memory)
            }
        }
    }

    /// One of them, damaged in one way or several.
    fn damaged(&mut self, sources: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.one(sources).clone();
        for _ in 0..=self.below(2) {
            let at = self.below(bytes.len());
            let run = 1 + self.below(64).min(bytes.len().saturating_sub(at + 1));
            match self.below(8) {
                0 => bytes.truncate(at.max(1)),
                1 => (0..=self.below(8)).for_each(|_| {
                    let at = self.below(bytes.len());
                    bytes[at] ^= 1 << self.below(8);
                }),
                2 => bytes[at] = *self.one(&[0, 1, 0x7f, 0x80, 0xff]),
                3 => {
                    let other = self.one(sources);
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[at.min(other.len())..]);
                }
                4 => drop(bytes.drain(at..at + run)),
                5 => {
                    let again = bytes[at..at + run].to_vec();
                    bytes.splice(at..at, again);
                }
                6 => {
                    let new = self.bytes(run);
                    bytes[at..at + run].copy_from_slice(&new);
                }
                _ => {
                    let new = self.bytes(run);
                    bytes.extend(new);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        bytes
    }

    /// With some of its texts, lists and numbers changed; `None` where it is of its type no more.
    fn changed<T: serde::Serialize + serde::de::DeserializeOwned>(
        &mut self,
        what: &T,
    ) -> Option<T> {
        let mut value = serde_json::to_value(what).expect("it is written");
        for _ in 0..=self.below(3) {
            self.change(&mut value);
        }
        serde_json::from_value(value).ok()
    }

    fn change(&mut self, value: &mut serde_json::Value) {
        use serde_json::Value;
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                let at = self.below(fields.len());
                if let Some(field) = fields.values_mut().nth(at) {
                    self.change(field);
                }
            }
            Value::Array(items) => match self.below(4) {
                0 => items.clear(),
                1 if !items.is_empty() => {
                    let item = self.one(items).clone();
                    let times = *self.one(&[1, 20, 100, 2000]);
                    items.extend(std::iter::repeat_n(item, times));
                }
                _ => {
                    let at = self.below(items.len());
                    if let Some(item) = items.get_mut(at) {
                        self.change(item);
                    }
                }
            },
            Value::String(text) => *text = self.changed_text(text),
            Value::Bool(it) => *it = !*it,
            other => *other = Value::Null,
        }
    }

    fn changed_text(&mut self, text: &str) -> String {
        let at = text.floor_char_boundary(self.below(text.len() + 1));
        let (before, after) = text.split_at(at);
        match self.below(6) {
            0 => before.to_owned(),
            1 => text.repeat(*self.one(&[2, 50, 3000])),
            2 => (*self.one(TEXTS)).to_owned(),
            3 => format!("{before}{}{after}", self.one(TEXTS)),
            // Names of JSON Schema's in the place of others.
            4 => {
                let (old, new) = (*self.one(KEYWORDS), *self.one(KEYWORDS));
                text.replace(old, new)
            }
            _ => {
                let drawn = char::from_u32(u32::try_from(self.below(0x11_0000)).expect("it fits"));
                format!("{before}{}{after}", drawn.unwrap_or('\u{fffd}'))
            }
        }
    }
}

const TEXTS: &[&str] = &[
    "",
    "\0",
    "{}",
    "[]",
    "null",
    "true",
    "*.com",
    "a.b",
    "127.0.0.1",
    "https://user:password@a.example/",
    "javascript:alert(1)",
    "/~",
    "/a/~01/0",
    "\u{202e}gpj.exe",
    "\u{feff}",
    "1e999999",
    "{\"$ref\":\"#\"}",
    "{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/$defs/a\"}}}",
    "{\"$ref\":\"file:///etc/passwd\"}",
    "{\"$ref\":\"https://other.example/schema\"}",
    "{\"pattern\":\"(a*)*(a*)*(a*)*b\"}",
    "{\"pattern\":\"(((((a{999}){999}){999}){999}){999})\"}",
    "{\"allOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#\"}]}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}}}",
    "{\"$schema\":\"http://json-schema.org/draft-04/schema#\"}",
    "{\"enum\":[],\"minimum\":1e400}",
    "{\"$dynamicRef\":\"#x\",\"$dynamicAnchor\":\"x\"}",
];
const KEYWORDS: &[&str] = &[
    "properties",
    "type",
    "object",
    "string",
    "additionalProperties",
    "required",
    "$ref",
    "$defs",
    "anyOf",
    "items",
    "pattern",
    "enum",
    "\"",
    "{",
    "}",
    ":",
];

/// How far the inputs of each kind came, and what must not be.
#[derive(Default)]
struct Tally {
    counts: Mutex<BTreeMap<(Kind, Stage), usize>>,
    wrong: Mutex<Vec<String>>,
}

impl Tally {
    fn add(&self, job: &Job, came: Result<Stage, String>) {
        match came {
            Ok(stage) => {
                let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
                *counts.entry((job.kind, stage)).or_default() += 1;
            }
            Err(what) => {
                let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
                wrong.push(format!("{job:?}: {what}"));
            }
        }
    }

    /// Gives how many there were.
    fn print(&self) -> usize {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for ((kind, stage), count) in counts.iter() {
            eprintln!("| {kind:?} | {stage:?} | {count} |");
        }
        counts.values().sum()
    }
}

/// What lies in the folder and is no finished artifact: at most one for each component that was compiled.
fn unfinished(artifacts: &Path, compiled: u64) -> Option<String> {
    let files = fs::read_dir(artifacts).into_iter().flatten().flatten();
    let names: Vec<_> = files.map(|entry| entry.file_name()).collect();
    let odd: Vec<_> = names
        .iter()
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    let many = names.len() > usize::try_from(compiled).unwrap_or(usize::MAX);
    (many || !odd.is_empty()).then(|| format!("{} files for {compiled}: {odd:?}", names.len()))
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Processes that this one started and that still run.
fn children() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .filter(|children| !children.trim().is_empty())
        .collect()
}
