//! Whatever is sent, the answer says what to do, and is never a 500.

use crate::{
    Stories, Theatre, World,
    isolation::{NOBODYS, body_of, operations},
    own, shared,
};
use futures::{StreamExt, future::join_all};
use reqwest::Method;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tsunami_tests::{
    api::{Answer, Api},
    company::Company,
    eventually,
    gateway::Gateway,
};

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    shared(
        stories,
        theatre,
        "no_bad_body_is_answered_with_a_500",
        bad_bodies,
    );
    shared(
        stories,
        theatre,
        "no_operation_takes_a_text_that_shows_as_another",
        texts,
    );
    shared(
        stories,
        theatre,
        "no_bad_path_or_query_is_answered_with_a_500",
        bad_paths,
    );
    shared(
        stories,
        theatre,
        "a_header_that_could_mean_two_things_is_refused",
        headers,
    );
    shared(
        stories,
        theatre,
        "a_thousand_requests_at_once_are_all_answered",
        thousand,
    );
    own(
        stories,
        theatre,
        "bodies_that_come_slowly_do_not_keep_the_others_out",
        slow_bodies,
    );
}

/// A problem that names what to do, or an answer.
fn is_decent(answer: &Answer, what: &str) {
    assert!(
        answer.status.as_u16() < 500,
        "{what}: {} {}",
        answer.status,
        answer.text
    );
    if !answer.status.is_success() {
        answer.problem(answer.status.as_u16());
    }
}

async fn bad_bodies(world: Arc<World>) {
    let owner = &world.acme.owner;
    let deep = "[".repeat(100_000);
    let large = format!("{{\"objective\": \"{}\"}}", "x".repeat(10 << 20));
    let many = format!("{{\"name\": [0{}]}}", ",0".repeat(400_000));
    let bodies: [(&str, Vec<u8>); 15] = [
        ("nothing", vec![]),
        ("half an object", b"{\"name\": ".to_vec()),
        ("no JSON", b"name=value".to_vec()),
        ("a list", b"[]".to_vec()),
        ("null", b"null".to_vec()),
        (
            "a list of fields",
            br#"["a@x.example", "A", ["auditor"]]"#.to_vec(),
        ),
        ("a name twice", br#"{"name": "a", "name": "b"}"#.to_vec()),
        ("four hundred thousand values", many.into_bytes()),
        ("a number", b"1e999".to_vec()),
        ("no UTF-8", b"{\"name\": \"\xff\xfe\"}".to_vec()),
        (
            "a NUL",
            b"{\"objective\": \"a\\u0000b\", \"name\": \"a\\u0000b\"}".to_vec(),
        ),
        ("half a surrogate", b"{\"name\": \"\\ud800\"}".to_vec()),
        ("an unknown field", b"{\"no_such_field\": 1}".to_vec()),
        ("a hundred thousand brackets", deep.into_bytes()),
        ("ten megabytes", large.into_bytes()),
    ];
    for operation in operations(owner).await {
        if !operation.has_body {
            continue;
        }
        for (what, body) in &bodies {
            for kind in ["application/json", "text/plain"] {
                // A connection of its own: one that was cut off must not fail the next request.
                let fresh = Api::new(&owner.base, &owner.key);
                let request = fresh.request(operation.method.clone(), &operation.path_to(NOBODYS));
                let request = request.header("content-type", kind).body(body.clone());
                let what = format!("{} with {what} as {kind}", operation.id);
                // A body that is too large may be refused before it is read to the end.
                match Api::try_send(request).await {
                    Ok(answer) => {
                        is_decent(&answer, &what);
                        let harmless =
                            operation.id == "deploy_instance" || operation.id == "install_plugin";
                        assert!(
                            !answer.status.is_success() || harmless || body.is_empty(),
                            "{what}: {}",
                            answer.text
                        );
                    }
                    Err(error) => assert!(body.len() > 1 << 20, "{what}: {error}"),
                }
            }
        }
    }
    let unknown = owner
        .post("/agents", &json!({ "name": "x", "no_such_field": 1 }))
        .await;
    unknown.problem(422);
    assert!(
        unknown.text.contains("no_such_field"),
        "it names the field: {}",
        unknown.text
    );
    let wrong = owner.post("/agents", &json!({ "name": 7 })).await;
    assert!(
        wrong.text.contains("/name"),
        "it names the place: {}",
        wrong.text
    );
    // In UTC it is the year 10000, which no database takes.
    let late = "9999-12-31T23:59:59-23:59";
    let bodies = [
        (
            "/api-keys",
            json!({ "name": "x", "roles": ["auditor"], "expires_at": late }),
        ),
        (
            "/skill-creds",
            json!({ "skill": "slack", "key": "bot_token", "value": "xoxb-1", "expires_at": late }),
        ),
        (
            "/policies/replay",
            json!({ "digest": "0".repeat(64), "since": late }),
        ),
    ];
    for (path, body) in bodies {
        let refused = owner.post(path, &body).await;
        assert_eq!(refused.problem(422), "invalid_body", "{path}");
        assert!(refused.text.contains("out of range"), "{}", refused.text);
    }
}

/// What people write, and whether it is one line. Names are lines that pretend no key.
const TEXTS: [(&str, bool); 7] = [
    ("name", true),
    ("display_name", true),
    ("email", true),
    ("reason", true),
    ("note", false),
    ("objective", false),
    ("description", false),
];

async fn texts(world: Arc<World>) {
    let owner = &world.acme.owner;
    let operator = world.gateway.operator();
    let document = owner.get("//openapi.json").await.ok();
    let mut looked_at = 0;
    for operation in operations(owner).await.iter().filter(|o| o.has_body) {
        let path = format!("/api/v1{}", operation.path);
        let method = operation.method.as_str().to_lowercase();
        let content = &document["paths"][&path][&method]["requestBody"]["content"];
        let schema = content["application/json"]["schema"]["$ref"].as_str();
        let schema = schema.and_then(|name| name.strip_prefix('#'));
        let Some(schema) = schema.and_then(|pointer| document.pointer(pointer)) else {
            continue;
        };
        for (field, is_line) in TEXTS {
            if schema["properties"].get(field).is_none() {
                continue;
            }
            looked_at += 1;
            let is_name = field == "name" || field == "display_name";
            let wrong = [
                ("a\u{1b}[2J", true),
                ("a\u{202e}cod", true),
                ("a\rb", true),
                ("a\nb", is_line),
                ("Ada (tsk_0123456789ab)", is_name),
            ];
            for (text, _) in wrong.iter().filter(|(_, is_wrong)| *is_wrong) {
                let mut body = body_of(&operation.id);
                body[field] = json!(text);
                let sent = |api: &Api| {
                    let request =
                        api.request(operation.method.clone(), &operation.path_to(NOBODYS));
                    Api::send(request.json(&body))
                };
                let mut answer = sent(owner).await;
                if [401, 403, 404].contains(&answer.status.as_u16()) {
                    answer = sent(&operator).await;
                }
                let what = format!("{} {field} {text:?}: {}", operation.id, answer.text);
                assert_eq!(answer.status, 422, "{what}");
                let pointer = &answer.json()["errors"][0]["pointer"];
                assert_eq!(*pointer, format!("/{field}"), "{what}");
            }
        }
    }
    assert!(looked_at > 15, "{looked_at} texts of all operations");
}

async fn bad_paths(world: Arc<World>) {
    let owner = &world.acme.owner;
    let ids = [
        "x",
        "0",
        "%00",
        "%ff",
        "..%2f..%2fetc",
        "00000000-0000-0000-0000-00000000000g",
        "'; drop table tenants; --",
        &"9".repeat(5000),
    ];
    for operation in operations(owner).await {
        if !operation.path.contains("{id}") {
            continue;
        }
        for id in ids {
            let path = operation.path_to(&id.replace(' ', "%20"));
            let answer = super::isolation::ask(owner, &operation, &path).await;
            is_decent(&answer, &path);
            assert!(!answer.status.is_success(), "{path}");
        }
    }
    for query in [
        "limit=0",
        "limit=-1",
        "limit=201",
        "limit=x",
        "limit=99999999999999999999",
        "cursor=x",
        "cursor=%00",
        "no_such=1",
        "limit=1&limit=2",
    ] {
        let answer = owner.get(&format!("/agents?{query}")).await;
        answer.problem(answer.status.as_u16());
        assert!(
            answer.status == 400 || answer.status == 422,
            "{query}: {}",
            answer.text
        );
    }
    let absent = owner.get("/no-such-path").await;
    assert_eq!(absent.problem(404), "not_found");
    let method = Api::send(owner.request(Method::DELETE, "/agents")).await;
    assert_eq!(method.problem(405), "method_not_allowed");
    for key in ["", " ", "a b", &"k".repeat(300), "ü"] {
        let request = owner
            .request(Method::POST, "/agents")
            .json(&json!({ "name": 7 }));
        let answer = Api::send(request.header("idempotency-key", key.as_bytes())).await;
        is_decent(&answer, "an odd Idempotency-Key");
    }
}

/// Whoever stands between could read another value than the gateway does, or a body that it does not.
async fn headers(world: Arc<World>) {
    let owner = &world.acme.owner;
    // Nothing comes of it either way.
    let new = json!({ "name": 7 });
    let post = || owner.request(Method::POST, "/agents");
    let configure = |version: &str| {
        let change = owner.request(Method::PATCH, &format!("/skill-configs/{NOBODYS}"));
        change.header("if-match", version).json(&json!({}))
    };
    let key = format!("Bearer {}", world.gateway.operator().key);
    for (what, request, code) in [
        (
            "two keys",
            post().header("authorization", &key).json(&new),
            "repeated_header",
        ),
        (
            "two names of one request",
            post()
                .header("idempotency-key", "a")
                .header("idempotency-key", "b")
                .json(&new),
            "repeated_header",
        ),
        (
            "two types",
            post()
                .header("content-type", "application/json")
                .header("content-type", "text/plain")
                .body(new.to_string()),
            "repeated_header",
        ),
        (
            "two versions",
            configure("\"1\"").header("if-match", "\"2\""),
            "repeated_header",
        ),
        (
            "a version without quotes",
            configure("1"),
            "invalid_if_match",
        ),
        (
            "a version in half of them",
            configure("\"1"),
            "invalid_if_match",
        ),
        (
            "a version that no answer carried in this form",
            configure("\"+1\""),
            "invalid_if_match",
        ),
    ] {
        assert_eq!(Api::send(request).await.problem(400), code, "{what}");
    }
    for encoding in ["gzip", "identity, br"] {
        let compressed = post().header("content-encoding", encoding).json(&new);
        let refused = Api::send(compressed).await;
        assert_eq!(refused.problem(415), "unsupported_content_encoding");
    }
    let plain = post().header("content-encoding", "identity, identity");
    let read = Api::send(plain.json(&new)).await;
    assert_eq!(read.problem(422), "invalid_body");
}

async fn thousand(world: Arc<World>) {
    let owner = &world.acme.owner;
    let requests = (0..1000).map(|n| async move {
        match n % 4 {
            0 => owner.get("/agent-tasks").await,
            1 => owner.get("/agents?limit=1").await,
            2 => owner.post("/agents", &json!({ "name": 7 })).await,
            _ => {
                owner
                    .post(
                        "/skills/slack/list_channels?dry_run=true",
                        &json!({ "params": {} }),
                    )
                    .await
            }
        }
    });
    let answers: Vec<Answer> = futures::stream::iter(requests)
        .buffer_unordered(1000)
        .collect()
        .await;
    assert_eq!(answers.len(), 1000);
    let mut refused = 0;
    for answer in &answers {
        match answer.status.as_u16() {
            200 | 422 => {}
            // What an organization may have at once, and what all may.
            status @ (429 | 503) => {
                answer.problem(status);
                assert!(answer.headers.contains_key("retry-after"));
                refused += 1;
            }
            other => panic!("{other}: {}", answer.text),
        }
    }
    // As many as it may have at once are served in any case.
    assert!(refused <= 1000 - PLACES, "{refused} of 1,000 were refused");
    owner.get("/agents").await.ok();
}

/// As many as the gateway serves one tenant at once: its share of `http.requests_in_flight_max`.
const PLACES: usize = 512 / 3;
/// Longer than the gateway waits for anything in the story below.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// A connection that says it will send a body, and sends less.
async fn dawdler(address: &str, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(head.as_bytes()).await.expect("it is sent");
    stream
}

/// What the gateway says until it closes the connection.
async fn until_closed(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    let read = timeout(GIVEN_UP, stream.read_to_end(&mut said)).await;
    read.expect("it closes the connection").expect("in order");
    String::from_utf8_lossy(&said).into_owned()
}

async fn slow_bodies() {
    // Few places and long pauses: all of them are taken before the first is given back, however busy the machine is.
    let gateway = Gateway::start_with(&[
        ("TSUNAMI_HTTP__REQUESTS_IN_FLIGHT_MAX", "60"),
        ("TSUNAMI_HTTP__BODY_PAUSE_SECONDS", "10"),
        ("TSUNAMI_HTTP__BODY_TIMEOUT_SECONDS", "15"),
        ("TSUNAMI_HTTP__HEAD_TIMEOUT_SECONDS", "3"),
    ])
    .await;
    let places = 60 / 3;
    let acme = Company::found(&gateway, "acme").await;
    let globex = Company::found(&gateway, "globex").await;
    let address = gateway.url().replace("http://", "");
    let head = format!(
        "POST /api/v1/agents HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 100000\r\n\r\n{{",
        acme.owner.key
    );
    let silent = (0..places * 3 / 4).map(|_| async {
        let stream = dawdler(&address, &head).await;
        until_closed(stream).await
    });
    let trickling = (0..places * 3 / 4).map(|_| async {
        let stream = dawdler(&address, &head).await;
        let (mut from, mut to) = stream.into_split();
        let trickle = tokio::spawn(async move {
            while to.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let mut said = Vec::new();
        // A byte that crosses the answer may have the system break the connection after it.
        let read = timeout(GIVEN_UP, from.read_to_end(&mut said)).await;
        let _ = read.expect("it closes the connection");
        trickle.abort();
        String::from_utf8_lossy(&said).into_owned()
    });
    let others = async {
        let mut more = Vec::new();
        let refused = loop {
            let answer = acme.owner.get("/agents").await;
            if answer.status == 429 {
                break answer;
            }
            // Whoever asks has a place while it is answered; somebody else takes that one next.
            more.push(dawdler(&address, &head).await);
            assert!(more.len() < 1000, "no place of the tenant's is kept");
        };
        assert_eq!(refused.problem(429), "too_many_requests_at_once");
        assert!(refused.headers.contains_key("retry-after"));
        globex.owner.get("/agents").await.ok();
        gateway.anybody().get("//healthz").await.ok();
        gateway.anybody().get("//readyz").await.ok();
        eventually("the tenant is served again", || async {
            acme.owner
                .get("/agents")
                .await
                .status
                .is_success()
                .then_some(())
        })
        .await;
        acme.owner.get("/agents").await.ok();
    };
    let ((), silent, trickling) = tokio::join!(others, join_all(silent), join_all(trickling));
    for said in silent.iter().chain(&trickling) {
        let told = said.starts_with("HTTP/1.1 408 ")
            && said.contains("connection: close")
            && said.contains("application/problem+json")
            && said.contains("body_too_slow");
        // Who came when every place was taken was sent away, and so was who came before the key was known, when those of
        // unknown keys were; and a connection may break on who sends all the same.
        let away = ["HTTP/1.1 429 ", "HTTP/1.1 503 "]
            .iter()
            .any(|head| said.starts_with(head));
        let away = away || said.is_empty();
        assert!(told || away, "{said}");
    }
    let too_slow = |all: &[String]| all.iter().filter(|said| said.contains("408")).count();
    let (quiet, slow) = (too_slow(&silent), too_slow(&trickling));
    let (all, each) = (places / 2, places / 8);
    assert!(
        quiet + slow > all && quiet > each && slow > each,
        "{quiet} {slow}"
    );

    let half_a_head = dawdler(&address, "POST /api/v1/agents HTTP/1.1\r\nhost:").await;
    assert_eq!(until_closed(half_a_head).await, "", "nothing to answer yet");
}
