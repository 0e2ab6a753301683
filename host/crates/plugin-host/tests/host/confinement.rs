//! The process that compiles: what it holds, what it may take, and that it never outlives its use.

use crate::{
    bombs,
    stage::{self, OTHER_TENANT, TENANT, eventually, host, host_with, load, runtime, shipped},
};
use rustix::io::{FdFlags, fcntl_setfd};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tsunami_plugin_host::{CompileError, LoadError, PluginHost};

stage::trials![
    it_is_given_nothing_but_three_pipes,
    it_is_killed_where_it_takes_too_long,
    it_is_killed_where_the_machine_is_too_busy,
    it_is_killed_where_it_takes_too_much_memory,
    what_it_answers_has_a_size,
    nobody_compiles_for_whoever_left,
    one_tenant_compiles_one_at_a_time_and_others_go_on,
    the_serving_process_compiles_nothing_itself,
];

/// These look at all children of this process, so one at a time.
static CHILDREN: Mutex<()> = Mutex::new(());

/// Takes some seconds, which are enough to look at it.
fn slow() -> Vec<u8> {
    bombs::live_locals(1, 6000)
}

/// The compilers that run for this process, by the folder that the system keeps of them.
fn compilers() -> Vec<PathBuf> {
    let me = std::process::id().to_string();
    let processes = fs::read_dir("/proc").expect("the processes");
    let mut found = Vec::new();
    for process in processes.flatten() {
        let path = process.path();
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1));
        let command = fs::read_to_string(path.join("cmdline")).unwrap_or_default();
        if parent == Some(&me) && command.contains(stage::COMPILE) {
            found.push(path);
        }
    }
    found
}

fn descriptors(process: &Path) -> Vec<String> {
    let entries = fs::read_dir(process.join("fd")).into_iter().flatten();
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn it_is_given_nothing_but_three_pipes() {
    let _alone = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    // Somebody's library opened this, and children inherit it.
    let secret = fs::File::open("/etc/hostname").or_else(|_| fs::File::open("/dev/null"));
    let secret = secret.expect("a file");
    fcntl_setfd(&secret, FdFlags::empty()).expect("it is inherited");
    let host = host();
    let compiling = runtime().spawn(async move { host.load(TENANT, slow()).await });
    let child = eventually("it confined itself", || {
        let child = compilers().pop()?;
        (descriptors(&child) == ["0", "1", "2"]).then_some(child)
    });
    let file = |name: &str| fs::read_to_string(child.join(name)).expect("it runs");
    assert_eq!(file("environ"), "");
    assert_eq!(
        fs::read_link(child.join("cwd")).unwrap().to_str(),
        Some("/")
    );
    assert!(file("status").contains("Threads:\t1\n"));
    let limits = file("limits");
    let seconds = stage::limits().small.compile_cpu_seconds_max.to_string();
    for (name, value) in [
        ("Max core file size", "0"),
        ("Max file size", "0"),
        ("Max open files", "8"),
        ("Max address space", "2147483648"),
        ("Max cpu time", &seconds),
    ] {
        let line = limits.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name}: {limits}"));
        assert!(line[name.len()..].trim_start().starts_with(value), "{line}");
    }
    let niceness = file("stat");
    let after_name = niceness.rsplit(')').next().unwrap_or_default();
    assert_eq!(after_name.split_whitespace().nth(16), Some("10"));
    compiling.abort();
}

fn it_is_killed_where_it_takes_too_long() {
    let mut limits = stage::limits();
    limits.small.compile_cpu_seconds_max = 1;
    let host = host_with(limits, None);
    let error = load(&host, &bombs::live_locals(2, 8000)).expect_err("too slow");
    assert!(
        matches!(error, LoadError::Compile(CompileError::Time { seconds: 1 })),
        "{error}"
    );
    assert!(error.to_string().contains("more than 1 s"), "{error}");
}

/// A busy machine is not the plugin's fault: whoever asked is told to come again.
fn it_is_killed_where_the_machine_is_too_busy() {
    let _guard = runtime().enter();
    let hurried = stage::compiler().patient(Duration::from_secs(1));
    let host = PluginHost::new(stage::limits(), hurried, None).expect("an engine");
    let error = load(&host, &bombs::live_locals(4, 9000)).expect_err("too slow");
    assert!(
        matches!(error, LoadError::Compile(CompileError::Slow { seconds: 1 })),
        "{error}"
    );
    assert!(error.is_transient());
}

fn it_is_killed_where_it_takes_too_much_memory() {
    let mut limits = stage::limits();
    limits.large.compile_memory_bytes_max = 256 << 20;
    let host = host_with(limits, None);
    let error = load(&host, &bombs::live_locals(1, 60_000)).expect_err("too large");
    assert!(
        matches!(error, LoadError::Compile(CompileError::Memory { .. })),
        "{error}"
    );
}

fn what_it_answers_has_a_size() {
    let mut limits = stage::limits();
    limits.small.artifact_bytes_max = 100_000;
    let host = host_with(limits, None);
    let error = load(&host, &shipped("slack")).expect_err("too large");
    assert!(
        matches!(
            error,
            LoadError::Compile(CompileError::ArtifactTooLarge { bytes_max: 100_000 })
        ),
        "{error}"
    );
}

fn nobody_compiles_for_whoever_left() {
    let _alone = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    let host = host();
    let asked = {
        let host = host.clone();
        runtime().spawn(async move { host.load(TENANT, slow()).await })
    };
    eventually("it compiles", || compilers().pop());
    asked.abort();
    eventually("it is gone", || compilers().is_empty().then_some(()));
    // And the place is free again.
    load(&host, &bombs::harmless()).expect("another is compiled");
}

fn one_tenant_compiles_one_at_a_time_and_others_go_on() {
    let _alone = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    let host = host();
    let bombs: Vec<_> = (0..3)
        .map(|n| {
            let host = host.clone();
            runtime().spawn(async move { host.load(TENANT, bombs::live_locals(1, 6000 + n)).await })
        })
        .collect();
    eventually("it compiles", || compilers().pop());
    let loaded = runtime().block_on(host.load(OTHER_TENANT, bombs::harmless()));
    loaded.expect("the other tenant's is compiled");
    assert!(bombs.iter().any(|bomb| !bomb.is_finished()));
    // The other tenant's is collected, and the bombs go one after the other.
    eventually("one of them compiles", || {
        (compilers().len() <= 1).then_some(())
    });
    for bomb in bombs {
        bomb.abort();
    }
    eventually("they are gone", || compilers().is_empty().then_some(()));
}

/// Loading a component twice asks the compiler once, and two that ask at once share one answer.
fn the_serving_process_compiles_nothing_itself() {
    let host = host();
    let slack = shipped("slack");
    let loaded = runtime().block_on(async {
        futures::future::join(
            host.load(TENANT, slack.clone()),
            host.load(OTHER_TENANT, slack.clone()),
        )
        .await
    });
    let digests = (loaded.0.unwrap(), loaded.1.unwrap());
    assert_eq!(digests.0.digest(), digests.1.digest());
    load(&host, &slack).unwrap();
    assert_eq!(host.compiled(), 1);
}
