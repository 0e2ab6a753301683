//! The kit for who builds plugins: a project to begin with (`new`), whether what was built keeps the contract (`check`).

mod check;
mod new;
mod project;

pub use check::{Check, check_file};
pub use new::{New, new};
