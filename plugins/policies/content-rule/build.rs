//! What is worked out for patterns takes more memory than plugins begin with (`.cargo/config.toml`).

/// In bytes; whole pages of 64 KiB.
const INITIAL_MEMORY_BYTES: u32 = 256 << 10;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo::rustc-link-arg-cdylib=--initial-memory={INITIAL_MEMORY_BYTES}");
    }
}
