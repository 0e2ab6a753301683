//! The program holds the migrations, and what each query gives and takes; cargo sees neither in its sources.

fn main() {
    for folder in ["../migrations", "../.sqlx"] {
        println!("cargo::rerun-if-changed={folder}");
    }
}
