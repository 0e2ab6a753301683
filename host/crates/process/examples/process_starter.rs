//! Starts a process in the folder of its first argument, says its pid, and waits to be killed. The tests' victim.

use tsunami_process::{Process, Spec};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::path::PathBuf::from(std::env::args_os().nth(1).ok_or("a folder is missing")?);
    let process = Process::spawn(&Spec {
        name: "sleeper".into(),
        program: "/bin/sh".into(),
        args: vec!["-c".into(), "sleep 600".into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        log_file: dir.join("log"),
        pid_file: dir.join("pid"),
        dir,
        run_as: None,
    })?;
    println!("{}", process.pid());
    process.wait().await;
    Ok(())
}
