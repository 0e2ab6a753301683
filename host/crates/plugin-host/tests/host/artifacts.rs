//! Compiled components on the disk: what is altered, moved or forged is compiled anew and never loaded.

use crate::{
    bombs,
    stage::{self, host_with, limits, load, send_message, shipped},
};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use tsunami_plugin_host::{ArtifactCache, ArtifactKeys, PluginHost};
use tsunami_sealed::{DataKey, KeyFile, Keyring};

stage::trials![
    a_second_process_loads_what_the_first_compiled,
    no_region_of_a_file_may_change,
    two_tenants_files_cannot_be_exchanged,
    another_gateways_files_are_not_loaded,
    a_folder_that_cannot_be_written_stops_nobody,
];

struct Gateway {
    folder: TempDir,
    key: DataKey,
}

impl Gateway {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            key: DataKey::generate(),
        }
    }

    /// A process of this gateway: nothing but the folder and the key is shared with the one before.
    fn start(&self) -> PluginHost {
        self.start_with(self.key.subkey("artifacts"))
    }

    fn start_with(&self, key: DataKey) -> PluginHost {
        let keys = ArtifactKeys::new("k1".into(), key);
        let cache = ArtifactCache::open(self.cache(), keys, 1 << 30).expect("the folder");
        host_with(limits(), Some(cache))
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.cache()).expect("the folder");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
        files.sort();
        files
    }
}

fn a_second_process_loads_what_the_first_compiled() {
    let gateway = Gateway::new();
    let slack = shipped("slack");
    let first = gateway.start();
    load(&first, &slack).unwrap();
    assert_eq!(first.compiled(), 1);
    let second = gateway.start();
    let plugin = load(&second, &slack).unwrap();
    assert_eq!((second.compiled(), second.artifacts_rejected()), (0, 0));
    assert!(plugin.next(&send_message(), &[]).unwrap().value.is_ok());
    assert_eq!(gateway.files().len(), 1);
    // A key that the vault derives is one like this.
    let keyring = Keyring::new(KeyFile::parse(&KeyFile::generate("k1")).unwrap());
    let (_, key) = stage::runtime()
        .block_on(keyring.subkey("plugin-artifact", None))
        .unwrap();
    let third = gateway.start_with(key);
    load(&third, &slack).unwrap();
    assert_eq!((third.compiled(), third.artifacts_rejected()), (1, 1));
}

/// The header's parts and samples of all regions of the code.
fn no_region_of_a_file_may_change() {
    let gateway = Gateway::new();
    let small = bombs::harmless();
    load(&gateway.start(), &small).unwrap();
    let path = gateway.files().remove(0);
    let good = fs::read(&path).unwrap();
    // Magic, length of the key's id, mark; then the code from its first byte to its last.
    const ID_LENGTH_AT: usize = 8;
    let header = [0, 7, ID_LENGTH_AT, 11, 42];
    let code = (0..16).map(|n| 43 + n * (good.len() - 44) / 15);
    for at in header.into_iter().chain(code) {
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        fs::write(&path, flipped).unwrap();
        // A process that has nothing in its memory.
        let fresh = gateway.start();
        load(&fresh, &small).unwrap_or_else(|e| panic!("byte {at}: {e}"));
        // With another length the key's id is another one, and the file counts as an old key's.
        let rejected = u64::from(at != ID_LENGTH_AT);
        assert_eq!(
            (fresh.compiled(), fresh.artifacts_rejected()),
            (1, rejected),
            "byte {at}"
        );
        assert!(is_good(&path, &good), "byte {at}: it was not compiled anew");
    }
    let last = gateway.start();
    load(&last, &small).unwrap();
    assert_eq!((last.compiled(), last.artifacts_rejected()), (0, 0));
}

/// The same machine code again.
fn is_good(path: &Path, good: &[u8]) -> bool {
    fs::read(path).is_ok_and(|now| now == good)
}

fn two_tenants_files_cannot_be_exchanged() {
    let gateway = Gateway::new();
    let (one, another) = (shipped("slack"), shipped("hostile"));
    let first = gateway.start();
    load(&first, &one).unwrap();
    load(&first, &another).unwrap();
    let files = gateway.files();
    let aside = gateway.cache().join("aside");
    fs::rename(&files[0], &aside).unwrap();
    fs::rename(&files[1], &files[0]).unwrap();
    fs::rename(&aside, &files[1]).unwrap();
    let second = gateway.start();
    let plugin = load(&second, &one).unwrap();
    load(&second, &another).unwrap();
    assert_eq!((second.compiled(), second.artifacts_rejected()), (2, 2));
    assert_eq!(plugin.describe().unwrap().value.skill, "slack");
}

fn another_gateways_files_are_not_loaded() {
    let gateway = Gateway::new();
    let slack = shipped("slack");
    load(&gateway.start(), &slack).unwrap();
    let other = gateway.start_with(DataKey::generate());
    load(&other, &slack).unwrap();
    assert_eq!((other.compiled(), other.artifacts_rejected()), (1, 1));
}

fn a_folder_that_cannot_be_written_stops_nobody() {
    let gateway = Gateway::new();
    let host = gateway.start();
    fs::remove_dir_all(gateway.cache()).unwrap();
    load(&host, &shipped("slack")).unwrap();
    assert_eq!(host.compiled(), 1);
}
