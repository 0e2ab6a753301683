//! Starts a server (`postgres` or `temporal`), says its process number and address, and waits to be killed: the tests'
//! victim. Arguments: which one, the tools' folder, the server's folder.

use std::path::{Path, PathBuf};
use tsunami_embedded::{Postgres, PostgresSettings, Temporal, TemporalSettings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let mut next = || {
        args.next()
            .map(PathBuf::from)
            .ok_or("which server, the tools' folder, the server's folder")
    };
    let (which, tools, dir) = (next()?, next()?, next()?);
    if which == Path::new("postgres") {
        let server = Postgres::start(&PostgresSettings {
            install_dir: tools.join("postgres"),
            dir,
            ephemeral: true,
        })
        .await?;
        println!("{} {}", server.pid(), server.url("postgres", "postgres"));
        server.process().wait().await;
    } else {
        let server = Temporal::start(&TemporalSettings {
            program: tools.join("temporal/bin/temporal"),
            dir,
        })
        .await?;
        println!("{} {}", server.process().pid(), server.url());
        server.process().wait().await;
    }
    Ok(())
}
