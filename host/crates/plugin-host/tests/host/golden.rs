//! The components of `wit/v0.1/golden`: built when the contract was frozen, loaded and called by every later host.

use crate::stage::{self, host, invocation, load, read, wit};
use serde_json::json;
use std::sync::Arc;
use tsunami_plugin_host::{
    Class, Plugin,
    adapter::{Body, Failure, Method, Reply, Step},
    credentials::Violation,
    policy::{Actor, ActorKind, Decision, Instance, Model, Request, Usage},
    types::{BasicAuth, Operand, Part, Risk, ScopeValue},
};

stage::trials![
    the_golden_skill_describes_itself,
    the_golden_skill_makes_each_kind_of_request,
    the_golden_skill_ends_in_each_way,
    the_golden_skill_looks_at_credentials,
    the_golden_policy_decides_in_each_way,
    the_golden_files_are_those_that_were_published,
];

fn golden(name: &str) -> Arc<Plugin> {
    let bytes = read(&wit().join("golden").join(format!("{name}.wasm")));
    let plugin = load(&host(), &bytes).expect("it loads");
    assert_eq!(plugin.class(), Class::Small);
    plugin
}

fn the_golden_files_are_those_that_were_published() {
    for (name, digest) in DIGESTS {
        assert_eq!(
            golden(name).digest(),
            digest,
            "{name}: do not build it anew"
        );
    }
}

const DIGESTS: [(&str, &str); 2] = [
    (
        "skill",
        "88323dd1e78c1309b1dbed7b3d15adea1db1a327290f86989cab4c6d826f2f8a",
    ),
    (
        "policy",
        "b448511bf3cc2d199b133f68f9854491df9116ef94fc265857ac49e1a76559bb",
    ),
];

fn the_golden_skill_describes_itself() {
    let described = golden("skill").describe_all().expect("it is well-formed");
    let manifest = described.manifest.expect("a skill");
    assert_eq!(manifest.skill, "golden");
    assert_eq!(
        manifest.about.homepage.as_deref(),
        Some("https://golden.example/docs")
    );
    assert_eq!(manifest.hosts, ["golden.example", "*.golden.example"]);
    assert_eq!(manifest.host_settings, ["/base_url"]);
    let told: Vec<_> = manifest
        .actions
        .iter()
        .map(|a| {
            (
                a.name.as_str(),
                a.risk,
                a.idempotent,
                a.pagination.is_some(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("list", Risk::Read, true, true),
            ("send", Risk::Write, false, false),
            ("remove", Risk::Destructive, false, false)
        ]
    );
    let schema = described.credentials.expect("credentials");
    let oauth = schema.fields[0].oauth.as_ref().expect("a sign-in");
    assert_eq!(oauth.token_url, "https://golden.example/token");
    assert_eq!(
        oauth.authorize_params,
        [("access_type".into(), "offline".into())]
    );
    assert!(schema.fields[1].oauth.is_none());
}

fn step(action: &str, settings: &str, replies: &[Reply]) -> Result<Step, Failure> {
    let mut call = invocation(action, r#"{"channel":"a"}"#);
    call.settings = settings.into();
    let called = golden("skill").next(&call, replies).expect("an answer");
    assert_eq!(called.log.len(), 1);
    assert_eq!(
        called.log[0].message,
        format!("{action} after {}", replies.len())
    );
    assert_eq!(called.log[0].level, "info");
    called.value
}

fn text(text: &str) -> Part {
    Part::Text(text.into())
}

fn the_golden_skill_makes_each_kind_of_request() {
    let Ok(Step::Perform(list)) = step("list", "{}", &[]) else {
        panic!("no request")
    };
    assert_eq!(list.method, Method::Get);
    assert_eq!(
        list.url,
        [
            text("https://golden.example/list/"),
            Part::Credential("token".into())
        ]
    );
    assert_eq!(list.query[0].value, [text("1700000000123")]);
    let basic = BasicAuth {
        username: Operand::Text("golden".into()),
        password: Operand::Credential("client_secret".into()),
    };
    assert_eq!(list.headers[0].value, [Part::Basic(basic)]);
    assert_eq!(list.body, None);

    let Ok(Step::Perform(send)) = step("send", "{}", &[]) else {
        panic!("no request")
    };
    assert_eq!(send.headers[0].value, [text("k")]);
    let Some(Body::Content(content)) = send.body else {
        panic!("{:?}", send.body)
    };
    let bytes = Part::Bytes(vec![0, 159, 146, 150]);
    assert_eq!(
        content.parts,
        [
            text(r#"{"channel":"a"}"#),
            bytes.clone(),
            Part::Credential("token".into())
        ]
    );

    let Ok(Step::Perform(upload)) = step("send", r#"{"form":true}"#, &[]) else {
        panic!("no request")
    };
    let Some(Body::Form(fields)) = upload.body else {
        panic!("{:?}", upload.body)
    };
    assert_eq!(fields[0].file_name.as_deref(), Some("a.bin"));
    assert_eq!(fields[0].parts, [bytes]);
}

fn reply(status: u16) -> Reply {
    Reply {
        status,
        headers: vec![("a".into(), "b".into()), ("a".into(), "c".into())],
        body: br#"{"ok":true}"#.to_vec(),
    }
}

fn the_golden_skill_ends_in_each_way() {
    let Ok(Step::Finish(outcome)) = step("list", "{}", &[reply(200)]) else {
        panic!("not finished")
    };
    assert_eq!(outcome.output, json!({ "ok": true }).to_string());
    assert_eq!(outcome.summary, "2 headers");
    let Err(Failure::Refused(slow)) = step("list", "{}", &[reply(200), reply(429)]) else {
        panic!("not refused")
    };
    assert_eq!(
        (slow.code.as_str(), slow.retry_after_ms),
        ("slow_down", Some(1500))
    );
    let Err(Failure::Refused(unknown)) = step("list", "{}", &[reply(401)]) else {
        panic!("not refused")
    };
    assert!(unknown.credential_rejected && unknown.retry_after_ms.is_none());
    let unexpected = step("list", "{}", &[reply(500)]);
    assert!(matches!(unexpected, Err(Failure::UnexpectedReply(words)) if words == "status 500"));
    let invalid = step("remove", "{}", &[]);
    assert!(
        matches!(invalid, Err(Failure::InvalidParams(found)) if found[0].pointer == "/channel")
    );
}

fn the_golden_skill_looks_at_credentials() {
    let skill = golden("skill");
    for (value, verdict) in [
        ("", Err(Violation::Empty)),
        ("silver", Err(Violation::WrongPrefix)),
        ("gold-1", Err(Violation::TooShort)),
        ("gold-123456", Ok(())),
    ] {
        assert_eq!(skill.check("token", value).unwrap(), verdict, "{value}");
    }
}

fn request(risk: Risk, kind: ActorKind, trust: f64, cost: Option<u64>) -> Request {
    let instance = |id: &str, in_flight, latency_p50_ms| Instance {
        id: id.into(),
        labels: vec![("region".into(), "eu".into())],
        in_flight,
        latency_p50_ms,
    };
    let model = |id: &str, quality| Model {
        id: id.into(),
        provider: "any".into(),
        name: id.into(),
        input_micro_usd_per_mtok: 1,
        output_micro_usd_per_mtok: 2,
        quality,
        speed: 50,
    };
    Request {
        skill: "slack".into(),
        action: "send_message".into(),
        risk,
        params: "{}".into(),
        scopes: vec![ScopeValue {
            scope: "channels".into(),
            value: "#finance".into(),
        }],
        actor: Actor {
            kind,
            id: "someone".into(),
            roles: vec!["owner".into()],
            trust,
            delegation_depth: 1,
        },
        usage: Usage {
            calls_in_window: 3,
            day_spend_micro_usd: 4,
            month_spend_micro_usd: 5,
            estimated_cost_micro_usd: cost,
        },
        instances: vec![instance("busy", 5, Some(1)), instance("idle", 0, None)],
        models: vec![model("small", 10), model("good", 90)],
        settings: r#"{"trust_min":0.5}"#.into(),
        now: 1_700_000_000_000,
    }
}

fn the_golden_policy_decides_in_each_way() {
    let policy = golden("policy");
    let described = policy.describe_all().expect("it is well-formed");
    assert_eq!(described.policy.expect("a policy").name, "golden-policy");
    let decide = |request: &Request| {
        let called = policy.decide(request).expect("a decision");
        assert_eq!(called.log[0].level, "warn");
        called.value
    };
    let allowed = decide(&request(Risk::Write, ActorKind::Person, 1.0, None));
    let Decision::Allow(route) = allowed else {
        panic!("{allowed:?}")
    };
    assert_eq!(route.instance.as_deref(), Some("idle"));
    assert_eq!(route.model.as_deref(), Some("good"));
    let denied = decide(&request(Risk::Read, ActorKind::Agent, 0.25, None));
    assert!(matches!(denied, Decision::Deny(why) if why == "someone is trusted 0.25"));
    for asked in [
        decide(&request(Risk::Destructive, ActorKind::Person, 1.0, None)),
        decide(&request(Risk::Read, ActorKind::Agent, 0.5, Some(2_000_000))),
    ] {
        let Decision::Ask(approval) = asked else {
            panic!("{asked:?}")
        };
        assert!(approval.second_person);
        assert_eq!(approval.roles, ["owner"]);
        assert_eq!(approval.reason, "{} of 1 scopes");
    }
}
