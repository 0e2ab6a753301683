//! A plugin in as many versions as a test wants: what stands in a block of the component's file is written over.

use crate::component;
use serde_json::{Value, json};

const MARK: &[u8] = b"CHAMELEON:";
/// As `plugins/chameleon` has it.
const BLOCK_BYTES: usize = 2048;

/// What a version says of itself, to be changed and given to [`chameleon`].
pub fn guise(version: &str) -> Value {
    json!({
        "skill": "chameleon",
        "version": version,
        "title": "Chameleon",
        "hosts": ["allowed.example"],
        "actions": [{ "name": "tell", "risk": "read", "scopes": [] }],
        "credentials": [],
    })
}

/// A component that is this.
pub fn chameleon(guise: &Value) -> Vec<u8> {
    let mut file = component("chameleon");
    let begins = |window: &[u8]| window.starts_with(MARK) && window[MARK.len()] == b'{';
    let at = file
        .windows(MARK.len() + 1)
        .position(begins)
        .expect("the block is in the file");
    let mut block = MARK.to_vec();
    block.extend(guise.to_string().into_bytes());
    assert!(block.len() <= BLOCK_BYTES, "the guise is too long");
    block.resize(BLOCK_BYTES, b' ');
    file[at..at + BLOCK_BYTES].copy_from_slice(&block);
    file
}
