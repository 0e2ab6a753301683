//! The kit for who builds plugins: a project to begin with (`new`), whether what was built keeps the contract (`check`),
//! whether it still does what was recorded (`test`), and all of that with each change, in a gateway that runs (`dev`).

mod check;
mod dev;
mod new;
mod project;
mod test;

pub use check::{Check, check_file};
pub use dev::{Dev, dev};
pub use new::{New, new};
pub use test::{Test, test};
