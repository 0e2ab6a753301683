//! Twenty thousand inputs through intake: none makes it panic, hang or leave a file behind. The same ones each time;
//! what fails is printed.

use crate::stage::{self, guest, host_with, limits, runtime};
use serde_json::Value;
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tsunami_plugin_host::{
    ArtifactCache, ArtifactKeys, CompileError, LoadError, PluginHost, TenantKey, TenantLimits,
    adapter::Manifest, check_file, check_manifest,
};
use tsunami_sealed::DataKey;

stage::trials![
    the_seed_is_a_plugin,
    no_bytes_make_intake_panic_hang_or_leave_a_file,
    no_manifest_makes_intake_panic_or_hang,
];

const RANDOM: usize = 9000;
const MUTATED: usize = 6000;
const MANIFESTS: usize = 6000;
/// Tenants that send them, each one at a time.
const SENDERS: usize = 3;
/// Far above what one takes, on a machine that is busy with other things: a hang.
const IN_TIME: Duration = Duration::from_secs(60);

/// Xorshift (Marsaglia, 2003): enough to choose with, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound.max(1) as u64) as usize
    }
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.roll() as u8).collect()
    }
}

/// The data of a guest: records as the component model lays them out, and what they point at.
struct Data {
    bytes: Vec<u8>,
    begins: u32,
}

impl Data {
    fn put(&mut self, bytes: &[u8]) -> u32 {
        while self.bytes.len() % 8 != 0 {
            self.bytes.push(0);
        }
        let at = self.begins + self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        at
    }
    /// A text, or a list of so many records: where it lies and how long it is.
    fn of(&mut self, bytes: &[u8], length: usize) -> Vec<u8> {
        let at = self.put(bytes);
        [at.to_le_bytes(), (length as u32).to_le_bytes()].concat()
    }
    fn text(&mut self, text: &str) -> Vec<u8> {
        self.of(text.as_bytes(), text.len())
    }
}

/// A small plugin that describes one action and finishes every call.
fn seed() -> Vec<u8> {
    const NONE: [u8; 4] = [0; 4];
    const EMPTY: [u8; 8] = [0; 8];
    let mut data = Data {
        bytes: vec![],
        begins: 1024,
    };
    let example = [data.text("Now"), data.text("{}")].concat();
    let action = [
        data.text("try"),
        data.text("Try"),
        data.text("Tries."),
        vec![0; 4],
        data.text(r#"{"type":"object"}"#),
        data.text(r#"{"type":"object","properties":{"a":{"type":"string"}}}"#),
        data.of(&example, 1),
        EMPTY.to_vec(),
        EMPTY.to_vec(),
        vec![1, 0, 0, 0],
        [NONE.to_vec(), vec![0; 16]].concat(),
    ]
    .concat();
    let category = data.text("test");
    let host = data.text("seed.example");
    let manifest = [
        data.text("seed"),
        data.text("Seed"),
        data.text("A seed."),
        data.text("0.1.0"),
        data.text("MIT"),
        data.of(&category, 1),
        [NONE.to_vec(), EMPTY.to_vec()].concat(),
        data.text("# Seed"),
        data.of(&action, 1),
        data.of(&host, 1),
        EMPTY.to_vec(),
        data.text("{}"),
    ]
    .concat();
    let manifest = data.put(&manifest);
    let output = data.text("{}");
    let step = [vec![0; 8], vec![1, 0, 0, 0], output.clone(), output].concat();
    let step = data.put(&step);
    let escaped: String = data.bytes.iter().map(|b| format!("\\{b:02x}")).collect();
    guest(
        "skill-adapter-plugin",
        &format!(
            r#"(module
  (memory (export "memory") 1)
  (data (i32.const {begins}) "{escaped}")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 32768))
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#describe") (result i32) (i32.const {manifest}))
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#next")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32) (result i32) (i32.const {step})))"#,
            begins = data.begins
        ),
    )
}

fn the_seed_is_a_plugin() {
    let host = stage::host();
    let plugin = stage::load(&host, &seed()).expect("it loads");
    let described = plugin.describe_all().expect("it is well-formed");
    assert_eq!(described.manifest.expect("a skill").skill, "seed");
    assert!(
        plugin
            .next(&stage::invocation("try", "{}"), &[])
            .unwrap()
            .value
            .is_ok()
    );
}

/// Bytes without sense, half of them with the beginning of a component.
fn random(dice: &mut Dice) -> Vec<u8> {
    let count = dice.below(400);
    let mut bytes = dice.bytes(count);
    if dice.below(2) == 0 {
        bytes.splice(0..0, *b"\0asm\x0d\0\x01\0");
    }
    bytes
}

/// The seed with some of it changed, doubled, moved, left out or replaced.
fn mutated(dice: &mut Dice, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len());
        let count = dice.below(16).min(bytes.len() - at);
        match dice.below(8) {
            0..=2 => bytes[at] ^= 1 << dice.below(8),
            3 => bytes[at] = dice.roll() as u8,
            4 => bytes.truncate(at.max(8)),
            5 => drop(bytes.drain(at..at + count)),
            6 => {
                let copy = bytes[at..at + count].to_vec();
                let to = dice.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => {
                let fresh = dice.bytes(count);
                bytes.splice(at..at + count, fresh);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

#[derive(Default)]
struct Tally {
    refused: AtomicUsize,
    not_compiled: AtomicUsize,
    not_believed: AtomicUsize,
    taken: AtomicUsize,
}

impl Tally {
    fn count(counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn no_bytes_make_intake_panic_hang_or_leave_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = ArtifactKeys::new("k1".into(), DataKey::generate());
    let cache = ArtifactCache::open(folder.path().join("cache"), keys, 1 << 30).expect("a cache");
    let mut limits = limits();
    limits.compilations.running_max = SENDERS;
    let host = host_with(limits, Some(cache));
    let (seed, tally) = (Arc::new(seed()), Arc::new(Tally::default()));
    let slowest = Arc::new(RwLock::new((Duration::ZERO, 0)));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (host, seed) = (host.clone(), seed.clone());
            let (tally, slowest) = (tally.clone(), slowest.clone());
            runtime().spawn(async move {
                for number in (sender..RANDOM + MUTATED).step_by(SENDERS) {
                    let mut dice = Dice::new(number);
                    let bytes = if number < RANDOM {
                        random(&mut dice)
                    } else {
                        mutated(&mut dice, &seed)
                    };
                    let began = Instant::now();
                    let tenant = TenantKey(sender as u128);
                    let taken = intake(&host, tenant, bytes.clone(), &tally).await;
                    if let Err(what) = taken {
                        panic!("input {number}: {what}\n{}", hex::encode(bytes));
                    }
                    let took = began.elapsed();
                    assert!(
                        took < IN_TIME,
                        "input {number} took {took:?}\n{}",
                        hex::encode(bytes)
                    );
                    let mut slowest = slowest.write().unwrap_or_else(PoisonError::into_inner);
                    *slowest = (*slowest).max((took, number));
                }
            })
        })
        .collect();
    for sender in senders {
        if let Err(error) = runtime().block_on(sender) {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    eprintln!(
        "{} refused without a compiler, {} by it, {} not believed, {} taken; the slowest: {:?}",
        tally.refused.load(Ordering::Relaxed),
        tally.not_compiled.load(Ordering::Relaxed),
        tally.not_believed.load(Ordering::Relaxed),
        tally.taken.load(Ordering::Relaxed),
        slowest.read().unwrap_or_else(PoisonError::into_inner)
    );
    // Each kind of end is reached, or these inputs say nothing.
    assert!(tally.not_compiled.load(Ordering::Relaxed) > 100);
    assert!(tally.not_believed.load(Ordering::Relaxed) > 20);
    assert!(tally.taken.load(Ordering::Relaxed) > 20);
    let left: Vec<_> = fs::read_dir(folder.path().join("cache"))
        .expect("the cache")
        .map(|entry| entry.expect("a file").file_name())
        .filter(|name| !name.to_string_lossy().ends_with(".artifact"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What comes of one input; an error is a fault of ours.
async fn intake(
    host: &PluginHost,
    tenant: TenantKey,
    bytes: Vec<u8>,
    tally: &Tally,
) -> Result<(), String> {
    let checked = catch_unwind(AssertUnwindSafe(|| check_file(&bytes, host.limits())));
    let checked = checked.map_err(|_| "the check panicked".to_owned())?;
    let plugin = match host.load(tenant, bytes).await {
        Ok(plugin) => plugin,
        Err(LoadError::Compile(CompileError::Died(how))) => {
            return Err(format!("the compiler died: {how}"));
        }
        Err(error) if error.is_transient() => return Err(error.to_string()),
        // A panic beside the async threads comes out in these words.
        Err(LoadError::Invalid(words)) if words.contains("reading it failed") => {
            return Err(words);
        }
        Err(_) => {
            Tally::count(if checked.is_err() {
                &tally.refused
            } else {
                &tally.not_compiled
            });
            return Ok(());
        }
    };
    let limits = TenantLimits::default();
    let described = host
        .call(tenant, &limits, &plugin, |plugin| plugin.describe_all())
        .await
        .map_err(|e| e.to_string())?;
    Tally::count(match described {
        Ok(_) => &tally.taken,
        Err(_) => &tally.not_believed,
    });
    Ok(())
}

fn manifest() -> Value {
    let host = stage::host();
    let plugin = stage::load(&host, &seed()).expect("it loads");
    let manifest = plugin.describe().expect("an answer").value;
    serde_json::to_value(manifest).expect("it is JSON")
}

/// Texts that somebody may hope are not looked at.
const TEXTS: [&str; 14] = [
    "",
    "\u{0}",
    "\u{202e}moc.elpmaxe",
    "{",
    r##"{"$ref":"#"}"##,
    r##"{"allOf":[{"$ref":"#/allOf/0"}]}"##,
    r#"{"pattern":"(((((((((((((((("}"#,
    r#"{"pattern":"^(a|aa)+$"}"#,
    r##"{"type":"object","properties":{"a":{"$ref":"#/properties/a"}}}"##,
    r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","minimum":1e400}"#,
    "https://user:password@example.com/",
    "*.*.example",
    "999999999.0.0",
    "日本語のテキスト",
];

fn mutate(dice: &mut Dice, value: &mut Value) {
    match value {
        Value::String(text) => match dice.below(4) {
            0 => *text = TEXTS[dice.below(TEXTS.len())].to_owned(),
            1 => *text = String::from_utf8_lossy(&dice.bytes(20)).into_owned(),
            2 => *text = text.repeat(1 + dice.below(2000)),
            _ => {
                let at = text.floor_char_boundary(dice.below(text.len() + 1));
                text.insert(at, char::from_u32(dice.below(0x3000) as u32).unwrap_or('x'));
            }
        },
        Value::Array(items) => {
            if !items.is_empty() && dice.below(2) == 0 {
                let at = dice.below(items.len());
                if dice.below(2) == 0 {
                    let copy = items[at].clone();
                    items.extend(std::iter::repeat_n(copy, dice.below(100)));
                } else {
                    items.remove(at);
                }
            } else if let Some(at) = (!items.is_empty()).then(|| dice.below(items.len())) {
                mutate(dice, &mut items[at]);
            }
        }
        Value::Object(members) => {
            let at = dice.below(members.len());
            if let Some(member) = members.values_mut().nth(at) {
                mutate(dice, member);
            }
        }
        Value::Bool(it) => *it = !*it,
        _ => {}
    }
}

fn no_manifest_makes_intake_panic_or_hang() {
    let good = manifest();
    let (mut well_formed, mut wrong) = (0, 0);
    for number in 0..MANIFESTS {
        let mut dice = Dice::new(number);
        let mut value = good.clone();
        for _ in 0..=dice.below(3) {
            mutate(&mut dice, &mut value);
        }
        let Ok(manifest) = serde_json::from_value::<Manifest>(value.clone()) else {
            continue;
        };
        let began = Instant::now();
        let found = catch_unwind(|| check_manifest(&manifest, &[]));
        let Ok(found) = found else {
            panic!("manifest {number} makes it panic:\n{value}");
        };
        assert!(
            began.elapsed() < IN_TIME,
            "manifest {number} took {:?}:\n{value}",
            began.elapsed()
        );
        if found.is_empty() {
            well_formed += 1;
        } else {
            wrong += 1;
        }
    }
    eprintln!("{well_formed} well-formed, {wrong} not");
    assert!(well_formed > 20 && wrong > 1000, "{well_formed} {wrong}");
}
