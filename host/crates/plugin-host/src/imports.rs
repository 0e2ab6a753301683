//! What a component may import, by name. Each is linked in `sandbox.rs` as something that knows nothing of the
//! machine and cannot wait; whatever is not here is refused at installation.

/// The contract's own, of version 0.1.
const CONTRACT: [&str; 2] = ["servicetsunami:plugin/log", "servicetsunami:plugin/types"];

/// Of WASI 0.2, what the standard libraries of languages import whether a plugin uses it or not.
const WASI: [&str; 18] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// Whether an interface of this name is there to be imported. Versions within 0.1 and 0.2 fit each other; those
/// before a release, as `0.2.0-rc-1`, fit none.
pub fn is_given(name: &str) -> bool {
    let Some((interface, version)) = name.split_once('@') else {
        return false;
    };
    (CONTRACT.contains(&interface) && is_patch_of("0.1.", version))
        || (WASI.contains(&interface) && is_patch_of("0.2.", version))
}

fn is_patch_of(minor: &str, version: &str) -> bool {
    version
        .strip_prefix(minor)
        .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()))
}
