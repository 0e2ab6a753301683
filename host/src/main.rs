//! One program with many roles; `tsunami --help` lists them.

fn main() -> std::process::ExitCode {
    tsunami::cli::main()
}
