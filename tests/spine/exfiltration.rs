//! No plugin gets at the value of a credential, and no caller by way of one. `plugins/exfiltrator` tries each way
//! that the contract offers; the service helps it, and repeats the credential in every spelling.

use crate::{
    Stories, Theatre, World,
    secrets::{files_that_show, no_answer_shows, tables_that_show},
    shared,
    spellings::Spellings,
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE},
};
use memchr::memmem::Finder;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use tsunami_tests::{api::Answer, company::text, recorder::Recorder};

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    shared(
        stories,
        theatre,
        "no_credential_comes_out_by_any_way_that_the_contract_offers",
        nothing_comes_out,
    );
}

/// With what URLs, JSON, HTML and base64 mind. Its last four characters are shown as its mask.
const VALUE: &str = "xfil-\"SHUSH/quiet+SHUSH<&>=%7E'\\SHUSH-0000";
const REDACTED: &str = "[redacted]";

/// Ways whose request carries the credential to the service.
const SENT: [&str; 13] = [
    "path",
    "query",
    "header",
    "bearer",
    "basic_user",
    "basic_password",
    "basic_in_url",
    "json",
    "urlencoded",
    "multipart",
    "text",
    "among_bytes",
    "twice",
];
/// Ways whose request holds no credential in the end, and is harmless.
const SENT_WITHOUT: [&str; 2] = ["fragment", "references"];
/// Ways whose request is not made.
const REFUSED: [&str; 14] = [
    "scheme",
    "host",
    "subdomain",
    "port",
    "user",
    "password",
    "basic_host",
    "header_name",
    "content_type",
    "method_line",
    "unnamed",
    "unknown",
    "bytes_in_header",
    "another_host",
];
/// Ways to say it in a failure, and the code that the caller gets.
const FAILURES: [(&str, Option<&str>); 5] = [
    ("refusal", None),
    ("pause", None),
    ("unexpected", Some("unexpected_reply")),
    ("violations", Some("invalid_params")),
    ("panic", Some("plugin_failed")),
];

/// A part of the value that is enough to know it by, as it may be written without a spelling for it.
static SIGNS: LazyLock<Vec<Finder<'static>>> = LazyLock::new(|| {
    let numbers: Vec<_> = "SHUSH".bytes().map(|byte| byte.to_string()).collect();
    let mut signs = vec!["SHUSH".to_owned(), backwards("SHUSH"), numbers.join(", ")];
    signs.extend(spelled_out("SHUSH"));
    signs
        .iter()
        .map(|sign| Finder::new(sign).into_owned())
        .collect()
});
/// A longer one, in every spelling.
static SPELLINGS: LazyLock<[Spellings; 2]> = LazyLock::new(|| {
    let part = "SHUSH/quiet+SHUSH";
    [Spellings::of(part), Spellings::of(&backwards(part))]
});

fn backwards(text: &str) -> String {
    text.chars().rev().collect()
}

fn is_shown(bytes: &[u8]) -> bool {
    SIGNS.iter().any(|sign| sign.find(bytes).is_some())
        || SPELLINGS.iter().any(|spellings| spellings.are_in(bytes))
}

fn shows(text: &str) -> bool {
    is_shown(text.as_bytes())
}

/// Every character as an escape, also those that nobody has to escape.
fn spelled_out(text: &str) -> Vec<String> {
    let each = |write: &dyn Fn(u8) -> String| text.bytes().map(write).collect::<String>();
    vec![
        each(&|byte| format!("%{byte:02X}")),
        each(&|byte| format!("%{byte:02x}")),
        each(&|byte| format!("%25{byte:02X}")),
        each(&|byte| format!("\\u{byte:04x}")),
        each(&|byte| format!("\\\\u{byte:04X}")),
        each(&|byte| format!("&#{byte};")),
        each(&|byte| format!("&#x{byte:x};")),
        each(&|byte| format!("={byte:02X}")),
    ]
}

/// What a service may make of a value: each as its line.
fn echoes(value: &str) -> Vec<String> {
    let percent = |upper: bool| -> String {
        let one = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ if upper => format!("%{byte:02X}"),
            _ => format!("%{byte:02x}"),
        };
        value.bytes().map(one).collect()
    };
    let json = Value::from(value).to_string();
    let base64 = BASE64_STANDARD.encode(value);
    let halves = base64.split_at(base64.len() / 2);
    let html = value.replace('&', "&amp;").replace('<', "&lt;");
    let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut all = vec![
        value.to_owned(),
        percent(true),
        percent(false),
        json[1..json.len() - 1].replace('/', "\\/"),
        Value::from(json.as_str()).to_string(),
        json,
        BASE64_URL_SAFE.encode(value),
        BASE64_STANDARD.encode(format!("user:{value}")),
        BASE64_STANDARD.encode(format!("{value}:x")),
        BASE64_STANDARD.encode(format!("{value}:{value}")),
        format!("{}\r\n{}", halves.0, halves.1),
        format!("{}\\n{}", halves.0, halves.1),
        base64,
        html.replace('>', "&gt;")
            .replace('"', "&quot;")
            .replace('\'', "&#39;"),
        hex.to_uppercase(),
        hex,
    ];
    all.extend(spelled_out(value));
    all
}

/// Has the service repeat the credential in its next answer, wherever an answer has room.
fn repeat(service: &Recorder, status: u16, location: &str) {
    let headers = vec![
        ("x-echo", VALUE.to_owned()),
        ("x-echo-base64", BASE64_STANDARD.encode(VALUE)),
        ("set-cookie", format!("session={}", &VALUE[..20])),
        ("location", format!("{location}?t={}", echoes(VALUE)[1])),
    ];
    service.answer_next(status, headers, echoes(VALUE).join("\n"));
}

async fn nothing_comes_out(world: Arc<World>) {
    for echo in echoes(VALUE) {
        let joined = echo.replace("\r\n", "").replace("\\n", "");
        assert!(shows(&joined), "the search does not find {echo}");
    }
    let (acme, slack) = (&world.acme, &world.slack);
    let other = Recorder::start().await;
    acme.install("exfiltrator").await;
    let settings = json!({ "settings": { "base_url": slack.url, "other_url": other.url } });
    acme.configure("exfiltrator", &settings).await;
    the_check_says_nothing(&world).await;
    acme.store_credential("exfiltrator", "token", VALUE).await;
    acme.store_credential("exfiltrator", "spare", VALUE).await;
    for way in SENT {
        repeat(slack, 200, &slack.url);
        let arrived = tried(&world, way, 200).await;
        assert!(shows(&arrived[0].whole()), "{way}: it was not sent");
        assert_eq!(arrived.len(), 1, "{way}");
    }
    for way in SENT_WITHOUT {
        let arrived = tried(&world, way, 200).await;
        assert!(!shows(&arrived[0].whole()), "{way}: {:?}", arrived[0]);
    }
    for way in REFUSED {
        let (answer, arrived) = answered(&world, way).await;
        assert!(!shows(&answer.text), "{way}: {}", answer.text);
        assert_eq!(answer.problem(502), "call_failed", "{way}");
        let told = answer.json();
        assert_eq!(told["failure"]["code"], "request_refused", "{way}: {told}");
        assert!(arrived.is_empty(), "{way}: {arrived:?}");
    }
    for (way, code) in FAILURES {
        repeat(slack, 200, &slack.url);
        let told = tried(&world, way, 502).await.len();
        assert_eq!(told, 1, "{way}");
        let calls = acme.owner.get("/skill-calls?limit=1").await.ok();
        let error = &calls["items"][0]["error"];
        assert!(
            code.is_none_or(|code| error["code"] == code),
            "{way}: {error}"
        );
        assert!(error.to_string().contains(REDACTED), "{way}: {error}");
    }
    by_way_of_a_second_request(&world, &other).await;
    in_a_task(&world).await;
    let dry = "/skills/exfiltrator/header?dry_run=true";
    let dry = acme.owner.post(dry, &json!({ "params": {} })).await;
    assert!(
        dry.text.contains("{{token}}") && !shows(&dry.text),
        "{}",
        dry.text
    );
    nothing_is_left(&world).await;
}

/// The one function that sees a value, by each of its ends.
async fn the_check_says_nothing(world: &World) {
    for (beginning, status) in [
        ("panic", 422),
        ("exit", 422),
        ("loop", 422),
        ("index", 422),
        ("refuse", 422),
        ("fine", 201),
    ] {
        let value = format!("{beginning}-{VALUE}");
        let credential = json!({ "skill": "exfiltrator", "key": "token", "value": value });
        let answer = world.acme.owner.post("/skill-creds", &credential).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{beginning}: {}",
            answer.text
        );
        assert!(!shows(&answer.text), "{beginning}: {}", answer.text);
    }
}

type Arrivals = Vec<tsunami_tests::recorder::Arrival>;

/// The answer to a call, and what arrived at the service meanwhile.
async fn answered(world: &World, way: &str) -> (Answer, Arrivals) {
    let before = world.slack.arrivals().len();
    let path = format!("/skills/exfiltrator/{way}");
    let answer = world.acme.owner.post(&path, &json!({ "params": {} })).await;
    (answer, world.slack.arrivals().split_off(before))
}

/// The same, where the service was asked; every echo of it is masked in what the plugin saw.
async fn tried(world: &World, way: &str, status: u16) -> Arrivals {
    let (answer, arrived) = answered(world, way).await;
    assert_eq!(answer.status.as_u16(), status, "{way}: {}", answer.text);
    assert!(!shows(&answer.text), "{way}: {}", answer.text);
    let got = text(&answer.json()["output"]["got"]);
    if status == 200 && !SENT_WITHOUT.contains(&way) {
        let masked = got.matches(REDACTED).count();
        // In the body each once or twice; besides, the cookie, and the headers.
        assert!(
            masked >= echoes(VALUE).len() + 3,
            "{way}: {masked} in {got}"
        );
    }
    assert!(!arrived.is_empty(), "{way}: nothing arrived");
    arrived
}

async fn by_way_of_a_second_request(world: &World, other: &Recorder) {
    let slack = &world.slack;
    repeat(slack, 200, &slack.url);
    tried(world, "onward", 200).await;
    let onward = other.arrivals().pop().expect("the second request");
    assert!(!shows(&onward.whole()), "{onward:?}");
    assert!(onward.body.contains(REDACTED), "{onward:?}");
    // The second request names no credential, and the service has it from the first.
    repeat(slack, 200, &slack.url);
    repeat(slack, 200, &slack.url);
    let arrived = tried(world, "later", 200).await;
    assert!(shows(&arrived[0].whole()) && !shows(&arrived[1].whole()));
    // So has it here, from another call: this action names none.
    repeat(slack, 200, &slack.url);
    let arrived = tried(world, "read_back", 200).await;
    assert!(!shows(&arrived[0].whole()));
    // A redirect is not followed by itself, and not to a host that was not declared.
    let undeclared = Recorder::start().await;
    for location in ["https://other.example/steal", &undeclared.url] {
        repeat(slack, 302, location);
        let (answer, arrived) = answered(world, "redirected").await;
        assert!(!shows(&answer.text), "{}", answer.text);
        let told = answer.json();
        assert_eq!(told["failure"]["code"], "request_refused", "{told}");
        assert_eq!(arrived.len(), 1, "{location}");
    }
    assert!(undeclared.arrivals().is_empty());
    repeat(slack, 200, &slack.url);
    tried(world, "bearer", 200).await;
    repeat(slack, 200, &slack.url);
    let (answer, _) = answered(world, "cursor").await;
    let next = text(&answer.json()["output"]["next"]);
    assert!(next.contains(REDACTED) && !shows(&next), "{next}");
}

/// Through the workflow, where a pause is waited for and the call begins anew.
async fn in_a_task(world: &World) {
    let acme = &world.acme;
    for (way, end) in [
        ("json", "completed"),
        ("refusal", "failed"),
        ("pause", "failed"),
    ] {
        for _ in 0..12 {
            repeat(&world.slack, 200, &world.slack.url);
        }
        let task = json!({ "objective": "say it", "plan": { "steps": [
            { "skill": "exfiltrator", "action": way, "params": {} }] } });
        let task = acme.owner.post("/agent-tasks", &task).await.ok();
        let task = text(&task["id"]);
        let ended = acme.task_is(&task, &[end]).await;
        assert!(!shows(&ended.to_string()), "{way}: {ended}");
        let trace = Value::from(acme.trace(&task).await).to_string();
        assert!(trace.contains(REDACTED) && !shows(&trace), "{way}: {trace}");
        world.slack.forget_replies();
    }
}

/// Nor is it anywhere else: in what the API shows, the tables, the disks of all programs, and their logs.
async fn nothing_is_left(world: &World) {
    no_answer_shows(world, &shows).await;
    let mut database = world.gateway.database("postgres").await;
    let found = tables_that_show(&mut database, &shows).await;
    assert!(found.is_empty(), "in the tables {found:?}");
    sqlx::query("checkpoint")
        .execute(&mut database)
        .await
        .expect("all is on the disk");
    let (searched, found) = files_that_show(world.gateway.folder(), &is_shown);
    assert!(searched > 500, "only {searched} files were searched");
    assert!(found.is_empty(), "in the files {found:?}");
}
