//! A plugin that means harm: a clear error, within its limits, while other calls go on.

use crate::{Stories, Theatre, World, shared};
use serde_json::{Value, json};
use std::{
    net::{TcpListener, ToSocketAddrs},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tsunami_tests::{api::Answer, company::Company, component, gateway::Gateway};

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
    shared(
        stories,
        theatre,
        "a_request_that_breaks_the_contract_is_not_made",
        not_made,
    );
    shared(
        stories,
        theatre,
        "a_name_or_a_redirect_leads_to_no_private_address",
        not_private,
    );
    shared(
        stories,
        theatre,
        "two_tenants_call_two_builds_of_one_plugin_at_once",
        two_builds,
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
    hostile_at(&world, &world.slack.url).await;
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
    // Short as a text, and many times that in memory.
    let many = "/skills/hostile/many_values";
    let many = acme.owner.post(many, &json!({ "params": {} })).await;
    assert_eq!(many.problem(502), "call_failed");
    assert!(
        many.text.contains("more than 50000 values"),
        "{}",
        many.text
    );
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

/// URLs of requests that the plugin may not make. It declared `allowed.example`, and its settings name the recorder.
/// U+2400 becomes U+0000, which no parameter holds.
const URLS: &[&str] = &[
    // Hosts that were not declared, some of which look like the one that was.
    "https://other.example/",
    "https://allowed.example.other.example/",
    "https://notallowed.example/",
    "https://sub.allowed.example/",
    "https://allowed.example./",
    "https://other.example/allowed.example",
    "https://other.example?allowed.example",
    "https://other.example#allowed.example",
    // Letters that look like others, or become them.
    "https://\u{430}llowed.example/",
    "https://xn--llowed-2nf.example/",
    "https://\u{ff41}llowed.example/",
    "https://allowed\u{3002}example/",
    "https://allowed.exa\u{ad}mple/",
    "https://al\u{200b}lowed.example/",
    "https://%D0%B0llowed.example/",
    // User info.
    "https://allowed.example@other.example/",
    "https://allowed.example:443@other.example/",
    "https://user@allowed.example/",
    "https://user:password@allowed.example/",
    "https://allowed.example%40other.example/",
    // What parsers do not agree about.
    "https://allowed.example\\@other.example/",
    "https:\\\\other.example\\",
    "https://other.example\\.allowed.example/",
    "https://allowed.example\n.other.example/",
    "https://allowed.example/\r\nhost: other.example",
    "https://allowed.example/ HTTP/1.1",
    "https://allowed.example/\u{2400}",
    " https://other.example/",
    "https://[allowed.example]/",
    // Relative ones, and none.
    "",
    "/relative",
    "//other.example/",
    "?query",
    "../up",
    "allowed.example/",
    // Other schemes, and no TLS.
    "http://allowed.example/",
    "ftp://allowed.example/",
    "ws://allowed.example/",
    "file:///etc/passwd",
    "data:text/plain,hello",
    "javascript:alert(1)",
    "unix:/run/docker.sock",
    // Ports that were not declared.
    "https://allowed.example:8443/",
    "https://allowed.example:0/",
    "https://allowed.example:99999/",
    // Addresses, in the spellings that there are.
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://0/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://169.254.169.254/latest/meta-data/",
    "http://127.0.0.1:1/",
    "http://localhost:1/",
    "https://localhost/",
];
/// Headers that it may not set.
const HEADERS: &[(&str, &str)] = &[
    ("x", "a\r\nhost: other.example"),
    ("x", "a\nb"),
    ("x", "a\rb"),
    ("x", "a\u{2400}b"),
    ("x", "\u{7f}"),
    ("x\r\ny", "z"),
    ("x y", "z"),
    ("x:", "z"),
    ("", "z"),
    ("\u{445}", "z"),
    ("Host", "other.example"),
    ("Content-Length", "0"),
    ("Transfer-Encoding", "chunked"),
    ("Connection", "close"),
    ("Upgrade", "websocket"),
    ("Proxy-Authorization", "Basic eDp5"),
];
/// Headers that the instance refuses, rather than the router.
const HEADERS_OF_THE_INSTANCE: &[(&str, &str)] = &[
    ("expect", "100-continue"),
    ("te", "trailers"),
    ("trailer", "x"),
    ("keep-alive", "timeout=1"),
    ("proxy-connection", "close"),
    ("x", "\u{4e2d}"),
];

/// With the plugin, at this place.
async fn hostile_at(world: &World, base: &str) {
    let acme = &world.acme;
    acme.install("hostile").await;
    acme.store_credential("hostile", "token", "a token of no service")
        .await;
    acme.configure("hostile", &json!({ "settings": { "base_url": base } }))
        .await;
}

async fn ask(world: &World, params: Value) -> Answer {
    let call = json!({ "params": params });
    world.acme.owner.post("/skills/hostile/ask", &call).await
}

async fn not_made(world: Arc<World>) {
    hostile_at(&world, &world.slack.url).await;
    let arrived = world.slack.arrivals().len();
    let urls = URLS.iter().map(|url| json!({ "url": url }));
    let headers = HEADERS
        .iter()
        .map(|(name, value)| json!({ "headers": [[name, value]] }));
    let many = vec![json!(["x", "y"]); 65];
    let others = [
        json!({ "headers": many }),
        json!({ "fields": 65 }),
        json!({ "type": "text/plain\r\nhost: other.example" }),
        json!({ "type": "text" }),
    ];
    for params in urls.chain(headers).chain(others) {
        let answer = ask(&world, params.clone()).await;
        assert_eq!(answer.problem(502), "call_failed", "{params}");
        let failure = &answer.json()["failure"];
        assert_eq!(failure["code"], "request_refused", "{params}: {failure}");
        let message = failure["message"].as_str().unwrap_or_default();
        assert!(message.len() > 40, "{params}: {message}");
    }
    let long = format!("{}/{}", world.slack.url, "x".repeat(17 << 10));
    let refused = HEADERS_OF_THE_INSTANCE
        .iter()
        .map(|(name, value)| json!({ "headers": [[name, value]] }));
    for params in refused.chain([json!({ "url": long })]) {
        let answer = ask(&world, params.clone()).await;
        let failure = &answer.json()["failure"];
        assert_eq!(failure["code"], "instance_refused", "{failure}");
    }
    assert_eq!(world.slack.arrivals().len(), arrived, "something was sent");
    let fine = ask(&world, json!({ "headers": [["x", "y"]] })).await.ok();
    assert_eq!(fine["output"]["status"], 200);
    assert_eq!(world.slack.arrivals().len(), arrived + 1);
}

/// The settings may name any host, and the operator allows private ones by their ports; the instance looks at the addresses.
async fn not_private(world: Arc<World>) {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    listener.set_nonblocking(true).expect("it does not wait");
    let port = listener.local_addr().expect("an address").port();
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("this machine's name");
    for host in [
        "127.0.0.2",
        "127.2",
        "2130706434",
        "0x7f000002",
        "0177.0.0.2",
        "[::ffff:127.0.0.1]",
        "[::1]",
        "0.0.0.0",
        "169.254.169.254",
        "10.0.0.1",
        name.trim(),
    ] {
        hostile_at(&world, &format!("https://{host}:{port}")).await;
        let answer = ask(&world, json!({})).await;
        assert_eq!(answer.problem(502), "call_failed", "{host}");
        let failure = &answer.json()["failure"];
        assert_eq!(failure["code"], "service_unreachable", "{host}: {failure}");
        let message = failure["message"].as_str().unwrap_or_default();
        let is_known = format!("{}:1", host.trim_matches(['[', ']'])).to_socket_addrs();
        // A machine need not know itself by its own name.
        if host != name.trim() || is_known.is_ok() {
            assert!(message.contains("public internet"), "{host}: {message}");
        }
    }
    // A redirect is an answer like any other.
    hostile_at(&world, &world.slack.url).await;
    let location = format!("http://127.0.0.1:{port}/");
    world
        .slack
        .answer_next(307, vec![("location", location)], String::new());
    let answer = ask(&world, json!({})).await.ok();
    assert_eq!(answer["output"]["status"], 307);
    let nobody = listener.accept().expect_err("somebody connected");
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

/// What `hostile` says of itself, where another text of the same length may stand.
const BUILD: &str = "the build as it is, and no other";
/// Calls that each of the two makes at once, and for how long.
const CALLERS: usize = 3;
const SECONDS_DEFAULT: u64 = 10;

/// The plugin as this tenant built it.
fn build_of(tenant: &str) -> (String, Vec<u8>) {
    let mark = format!("{tenant:-<width$}", width = BUILD.len());
    let mut bytes = component("hostile");
    let places: Vec<_> = memchr::memmem::find_iter(&bytes, BUILD).collect();
    assert!(!places.is_empty(), "the mark is not in the component");
    for at in places {
        bytes[at..at + mark.len()].copy_from_slice(mark.as_bytes());
    }
    (mark, bytes)
}

async fn two_builds(world: Arc<World>) {
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
    let seconds = std::env::var("TSUNAMI_TEST_BUILDS_SECONDS");
    let seconds = seconds.map_or(SECONDS_DEFAULT, |text| text.parse().expect("a number"));
    let globex = Company::ready(
        &world.gateway,
        "globex-builds",
        &world.slack,
        "xoxb-161803398874-globexglobex",
    )
    .await;
    let acme = with_build(&world.acme, "acme").await;
    let globex = with_build(&globex, "globex").await;
    assert_ne!(acme.digest, globex.digest, "it is one build");
    let over = Instant::now() + Duration::from_secs(seconds);
    let (one, other) = futures::join!(acme.calls_until(over), globex.calls_until(over));
    eprintln!("{seconds} s: {one} calls of one build, {other} of the other");
    assert!(one > 10 && other > 10, "{one} and {other} calls");
}

/// A tenant that has a build of its own.
struct Builder {
    company: Company,
    mark: String,
    digest: Value,
}

async fn with_build(company: &Company, tenant: &str) -> Builder {
    let (mark, bytes) = build_of(tenant);
    let installed = company.owner.upload("/plugins", bytes).await.ok();
    let token = format!("the token of {tenant}");
    company.store_credential("hostile", "token", &token).await;
    Builder {
        company: company.clone(),
        mark,
        digest: installed["digest"].clone(),
    }
}

impl Builder {
    /// Calls its build, several times at once; gives how often.
    async fn calls_until(&self, over: Instant) -> usize {
        let owner = &self.company.owner;
        let callers = (0..CALLERS).map(|_| async move {
            let mut calls = 0;
            while Instant::now() < over {
                let call = json!({ "params": {} });
                let done = owner.post("/skills/hostile/fine", &call).await.ok();
                assert_eq!(done["output"]["build"], self.mark, "{done}");
                calls += 1;
            }
            calls
        });
        let calls: usize = futures::future::join_all(callers).await.into_iter().sum();
        let page = owner.get("/skill-calls?limit=200").await.ok();
        let page = page["items"].as_array().cloned().unwrap_or_default();
        let mut latest = page.iter().take(calls);
        assert!(latest.all(|call| call["plugin_digest"] == self.digest));
        calls
    }
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
