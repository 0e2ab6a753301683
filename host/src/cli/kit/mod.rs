//! The kit for who builds plugins: a project to begin with (`new`), whether what was built keeps the contract (`check`),
//! and whether it still does what was recorded (`test`).

mod check;
mod new;
mod project;
mod test;

pub use check::{Check, check_file};
pub use new::{New, new};
pub use test::{Test, test};
