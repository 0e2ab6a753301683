//! A plugin that says of itself whatever a test wants: its memory is written out beforehand, as the Canonical ABI lays
//! a manifest out, and `describe` only says where it begins.

use crate::stage::{self, guest};
use std::fmt::Write;
use tsunami_plugin_host::{
    PluginHost,
    adapter::{Action, Example, Manifest, Pagination, Scope},
    types::{About, Risk},
};

/// Where the manifest begins.
const BASE: usize = 1024;
const PAGE: usize = 64 << 10;

/// What the golden plugin says of itself, without its credentials: here nobody describes them.
pub fn golden(host: &PluginHost) -> Manifest {
    let bytes = stage::read(&stage::wit().join("golden/skill.wasm"));
    let plugin = stage::load(host, &bytes).expect("it loads");
    let described = plugin.describe_all().expect("it is well-formed");
    let mut manifest = described.manifest.expect("a skill");
    for action in &mut manifest.actions {
        action.credentials.clear();
    }
    manifest
}

/// A plugin with this manifest.
pub fn plugin(manifest: &Manifest) -> Vec<u8> {
    plugin_of(&memory_of(manifest))
}

/// A plugin with this manifest, whose `next` takes something else than replies.
pub fn with_another_next(manifest: &Manifest) -> Vec<u8> {
    let changed = tempfile::tempdir().expect("a folder");
    for file in std::fs::read_dir(stage::wit()).expect("the contract") {
        let path = file.expect("a file of it").path();
        if path.extension().is_some_and(|e| e == "wit") {
            let text = std::fs::read_to_string(&path).expect("its text");
            let text = text.replace("replies: list<reply>", "replies: list<string>");
            let name = path.file_name().expect("its name");
            std::fs::write(changed.path().join(name), text).expect("it is written");
        }
    }
    let module = module_of(&memory_of(manifest));
    stage::guest_of(changed.path(), "skill-adapter-plugin", &module)
}

/// A plugin whose memory holds these bytes where its manifest is expected.
pub fn plugin_of(memory: &[u8]) -> Vec<u8> {
    guest("skill-adapter-plugin", &module_of(memory))
}

fn module_of(memory: &[u8]) -> String {
    let pages = (BASE + memory.len()).div_ceil(PAGE);
    let mut data = String::with_capacity(memory.len() * 3);
    for byte in memory {
        let _ = write!(data, "\\{byte:02x}");
    }
    format!(
        r#"(module (memory (export "memory") {pages})
            (data (i32.const {BASE}) "{data}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 16))
            (func (export "servicetsunami:plugin/skill-adapter@0.1.0#describe") (result i32) (i32.const {BASE}))
            (func (export "servicetsunami:plugin/skill-adapter@0.1.0#next")
                (param i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32) (result i32) unreachable))"#
    )
}

/// The bytes of a manifest, the record itself first.
pub fn memory_of(manifest: &Manifest) -> Vec<u8> {
    let mut heap = Heap(vec![0; Manifest::SIZE]);
    let record = manifest.written(&mut heap);
    heap.0[..record.len()].copy_from_slice(&record);
    heap.0
}

/// What records point at, behind the first of them.
struct Heap(Vec<u8>);

impl Heap {
    /// Puts bytes down; gives where, and the length that goes with it.
    fn put(&mut self, bytes: &[u8], length: usize) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        let at = BASE + self.0.len();
        self.0.extend_from_slice(bytes);
        [number(at), number(length)].concat()
    }
    fn text(&mut self, text: &str) -> Vec<u8> {
        self.put(text.as_bytes(), text.len())
    }
    fn list<T: Written>(&mut self, items: &[T]) -> Vec<u8> {
        let written: Vec<_> = items.iter().flat_map(|item| item.written(self)).collect();
        self.put(&written, items.len())
    }
    /// Of a type that is aligned to four bytes.
    fn option<T: Written>(&mut self, value: Option<&T>) -> Vec<u8> {
        let content = value.map_or_else(|| vec![0; T::SIZE], |value| value.written(self));
        [number(usize::from(value.is_some())), content].concat()
    }
}

fn number(value: usize) -> Vec<u8> {
    let value = u32::try_from(value).expect("it is in a small memory");
    value.to_le_bytes().into()
}

trait Written {
    /// In bytes.
    const SIZE: usize;
    fn written(&self, heap: &mut Heap) -> Vec<u8>;
}

impl Written for String {
    const SIZE: usize = 8;
    fn written(&self, heap: &mut Heap) -> Vec<u8> {
        heap.text(self)
    }
}

impl Written for Manifest {
    const SIZE: usize = 100;
    fn written(&self, heap: &mut Heap) -> Vec<u8> {
        [
            heap.text(&self.skill),
            self.about.written(heap),
            heap.list(&self.actions),
            heap.list(&self.hosts),
            heap.list(&self.host_settings),
            heap.text(&self.settings_schema),
        ]
        .concat()
    }
}

impl Written for About {
    const SIZE: usize = 60;
    fn written(&self, heap: &mut Heap) -> Vec<u8> {
        [
            heap.text(&self.title),
            heap.text(&self.summary),
            heap.text(&self.version),
            heap.text(&self.licence),
            heap.list(&self.categories),
            heap.option(self.homepage.as_ref()),
            heap.text(&self.readme),
        ]
        .concat()
    }
}

impl Written for Action {
    const SIZE: usize = 92;
    fn written(&self, heap: &mut Heap) -> Vec<u8> {
        let risk = match self.risk {
            Risk::Read => 0,
            Risk::Write => 1,
            Risk::Destructive => 2,
        };
        [
            heap.text(&self.name),
            heap.text(&self.title),
            heap.text(&self.summary),
            number(risk),
            heap.text(&self.params_schema),
            heap.text(&self.output_schema),
            heap.list(&self.examples),
            heap.list(&self.scopes),
            heap.list(&self.credentials),
            number(usize::from(self.idempotent)),
            heap.option(self.pagination.as_ref()),
        ]
        .concat()
    }
}

/// Records of two texts.
macro_rules! pairs {
    ($($record:ident { $first:ident, $second:ident })+) => {
        $(impl Written for $record {
            const SIZE: usize = 16;
            fn written(&self, heap: &mut Heap) -> Vec<u8> {
                [heap.text(&self.$first), heap.text(&self.$second)].concat()
            }
        })+
    };
}

pairs! {
    Example { title, params }
    Scope { name, pointer }
    Pagination { cursor, next }
}
