//! A plugin that means harm: a clear error, within its limits, while other calls go on.

use crate::{Stories, Theatre, World, shared};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tsunami_tests::{component, gateway::Gateway};

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    shared(
        stories,
        theatre,
        "a_hostile_plugin_harms_nobody",
        harms_nobody,
    );
    shared(
        stories,
        theatre,
        "a_file_that_is_no_plugin_is_refused",
        no_plugin,
    );
}

/// What it tries, and the code that its caller gets.
const ATTACKS: [(&str, &str); 12] = [
    ("loop", "plugin_failed"),
    ("allocate", "plugin_failed"),
    ("recurse", "plugin_failed"),
    ("huge_answer", "plugin_failed"),
    ("panic", "plugin_failed"),
    ("long_line", "plugin_failed"),
    ("print", "plugin_failed"),
    ("exit", "plugin_failed"),
    ("endless_steps", "too_many_steps"),
    ("other_host", "request_refused"),
    ("user_info", "request_refused"),
    ("crlf", "request_refused"),
];

async fn harms_nobody(world: Arc<World>) {
    let acme = &world.acme;
    acme.install("hostile").await;
    acme.store_credential("hostile", "token", "a token of no service")
        .await;
    acme.configure(
        "hostile",
        &json!({ "settings": { "base_url": world.slack.url } }),
    )
    .await;
    let over = AtomicBool::new(false);
    let others = AtomicUsize::new(0);
    let honest = async {
        while !over.load(Ordering::Relaxed) {
            acme.owner
                .post("/skills/slack/list_channels", &json!({ "params": {} }))
                .await
                .ok();
            others.fetch_add(1, Ordering::Relaxed);
        }
    };
    let attacks = async {
        for (action, code) in ATTACKS {
            let before = memory_kib(&world.gateway);
            let answer = acme
                .owner
                .post(
                    &format!("/skills/hostile/{action}"),
                    &json!({ "params": {} }),
                )
                .await;
            let told = answer.json();
            assert_eq!(answer.problem(502), "call_failed", "{action}");
            assert_eq!(told["failure"]["code"], code, "{action}: {}", answer.text);
            let grown = memory_kib(&world.gateway).saturating_sub(before);
            assert!(grown < 200 << 10, "{action} left {grown} KiB behind");
        }
        over.store(true, Ordering::Relaxed);
    };
    futures::join!(honest, attacks);
    assert!(others.load(Ordering::Relaxed) > 10, "other calls went on");
    let fine = acme
        .owner
        .post("/skills/hostile/fine", &json!({ "params": {} }))
        .await
        .ok();
    assert_eq!(fine["status"], "succeeded");
}

fn memory_kib(gateway: &Gateway) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("its memory");
    line.trim()
        .trim_end_matches(" kB")
        .trim()
        .parse()
        .expect("a number")
}

async fn no_plugin(world: Arc<World>) {
    let slack = component("slack");
    let mut flipped = slack.clone();
    let middle = flipped.len() / 2;
    flipped[middle..middle + 64]
        .iter_mut()
        .for_each(|byte| *byte = !*byte);
    let files: [(&str, Vec<u8>); 6] = [
        ("an empty file", vec![]),
        ("text", b"not a component at all".to_vec()),
        ("a core module", b"\0asm\x01\0\0\0".to_vec()),
        ("a component without exports", b"\0asm\x0d\0\x01\0".to_vec()),
        ("half a component", slack[..slack.len() / 2].to_vec()),
        ("a damaged component", flipped),
    ];
    for (what, file) in files {
        let answer = world.acme.owner.upload("/plugins", file).await;
        assert!(
            answer.status == 422 || answer.status == 400,
            "{what}: {} {}",
            answer.status,
            answer.text
        );
        answer.problem(answer.status.as_u16());
    }
    for (name, import) in [
        ("hostile_file", "wasi:filesystem/preopens@0.2."),
        ("hostile_socket", "wasi:sockets/tcp@0.2."),
    ] {
        let answer = world.acme.owner.upload("/plugins", component(name)).await;
        assert_eq!(answer.problem(422), "invalid_plugin", "{name}");
        assert!(answer.text.contains(import), "{name}: {}", answer.text);
    }
    let large = world.acme.owner.upload("/plugins", vec![0; 25 << 20]).await;
    large.problem(413);
}
