//! The client against a scripted gateway that holds legal conversations only, and against its worst days.

mod gateway;

use std::time::Duration;

use gateway::{FakeGateway, TOKEN, hello, options, within};
use serde_json::{Value, json};
use tsunami_openclaw::{CallError, Client, Incompatible, NotSent, Problem, State};

const DEADLINE: Duration = Duration::from_secs(5);

/// A client that is connected, and the gateway's end of its connection.
async fn connected(gateway: &FakeGateway) -> (Client, gateway::Session) {
    let client = Client::new(gateway.endpoint(), options());
    let session = gateway.accept().await.welcome(hello()).await;
    client.wait_ready(DEADLINE).await.unwrap();
    (client, session)
}

/// The problem that the client reports once it has met one.
async fn problem_of(client: &Client) -> Problem {
    let mut states = client.states();
    let state = within(states.wait_for(|state| matches!(state, State::Down(_))))
        .await
        .unwrap()
        .clone();
    let State::Down(outage) = state else {
        unreachable!("waited for it")
    };
    outage.problem
}

async fn call(client: &Client, method: &str) -> Result<Value, CallError> {
    client
        .call(method, json!({}), DEADLINE)
        .await
        .map(|answer| answer.parse().unwrap())
}

#[tokio::test]
async fn it_presents_token_and_device_and_asks_for_no_more_than_it_needs() {
    let gateway = FakeGateway::start().await;
    let client = Client::new(gateway.endpoint(), options());
    let visitor = gateway.accept().await;
    let params = &visitor.connect["params"];
    assert_eq!(params["minProtocol"], 4);
    assert_eq!(params["maxProtocol"], 4);
    assert_eq!(params["client"]["id"], "gateway-client");
    assert_eq!(params["client"]["mode"], "backend");
    assert_eq!(params["scopes"], json!(["operator.read", "operator.write"]));
    assert_eq!(params["auth"], json!({"token": TOKEN}));
    assert_eq!(params["device"]["id"], gateway.endpoint().device.id());
    assert_eq!(params["device"]["nonce"], gateway::NONCE);
    assert_eq!(params["device"]["signedAt"], gateway::CHALLENGE_TIME_MS);

    let _session = visitor.welcome(hello()).await;
    let hello = client.wait_ready(DEADLINE).await.unwrap();
    assert_eq!(hello.server.version, "2026.9.6");
    assert_eq!(hello.server.boot_id, "boot-1");
    assert!(client.hello().is_some());
}

#[tokio::test]
async fn a_gateway_that_grants_no_scopes_is_incompatible_and_calls_fail_at_once() {
    let gateway = FakeGateway::start().await;
    let client = Client::new(gateway.endpoint(), options());
    let mut granted_nothing = hello();
    granted_nothing["auth"]["scopes"] = json!([]);
    let _session = gateway.accept().await.welcome(granted_nothing).await;
    assert_eq!(
        problem_of(&client).await,
        Problem::Incompatible(Incompatible::Scope("operator.read".into()))
    );
    let error = call(&client, "status").await.unwrap_err();
    assert!(
        matches!(&error, CallError::NotConnected { reason, .. } if reason.contains("approvedDevices")),
        "{error}"
    );
}

#[tokio::test]
async fn a_gateway_without_the_bridge_is_incompatible() {
    let gateway = FakeGateway::start().await;
    let client = Client::new(gateway.endpoint(), options());
    let mut without_bridge = hello();
    without_bridge["features"]["methods"] = json!(["health"]);
    let _session = gateway.accept().await.welcome(without_bridge).await;
    assert_eq!(
        problem_of(&client).await,
        Problem::Incompatible(Incompatible::Method("servicetsunami.execute".into()))
    );
}

#[tokio::test]
async fn a_gateway_of_another_protocol_is_incompatible() {
    let gateway = FakeGateway::start().await;
    let client = Client::new(gateway.endpoint(), options());
    gateway.accept().await.turn_away(json!({"code": "INVALID_REQUEST", "message": "m", "details": {"code": "PROTOCOL_MISMATCH"}})).await;
    assert_eq!(
        problem_of(&client).await,
        Problem::Incompatible(Incompatible::Protocol)
    );
}

fn pairing_required() -> Value {
    json!({"code": "NOT_PAIRED", "message": "pairing required", "details": {"code": "PAIRING_REQUIRED", "reason": "not-paired", "requestId": "request-1"}})
}

#[tokio::test]
async fn a_device_that_is_approved_after_its_first_attempt_gets_in() {
    let gateway = FakeGateway::start().await;
    let client = Client::new(gateway.endpoint(), options());
    gateway.accept().await.turn_away(pairing_required()).await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { call(&client, "status").await }
    });
    let mut session = gateway.accept().await.welcome(hello()).await;
    let request = session.request().await;
    session.answer(&request, json!("fine")).await;
    assert_eq!(waiting.await.unwrap().unwrap(), "fine");
}

#[tokio::test]
async fn a_device_that_nobody_approves_is_reported_with_what_to_do() {
    let gateway = FakeGateway::start().await;
    let mut options = options();
    options.approval_wait = Duration::ZERO;
    let client = Client::new(gateway.endpoint(), options);
    gateway.accept().await.turn_away(pairing_required()).await;
    let Problem::NotApproved {
        device_id,
        request_id,
        overdue,
    } = problem_of(&client).await
    else {
        panic!()
    };
    assert_eq!(
        (device_id.as_str(), request_id.as_str(), overdue),
        (gateway.endpoint().device.id(), "request-1", true)
    );
    let error = call(&client, "status").await.unwrap_err().to_string();
    assert!(
        error.contains("approvedDevices") && error.contains("request-1"),
        "{error}"
    );
}

#[tokio::test]
async fn a_wrong_token_is_reported_without_showing_it() {
    let gateway = FakeGateway::start().await;
    let client = Client::new(gateway.endpoint(), options());
    gateway.accept().await.turn_away(json!({"code": "INVALID_REQUEST", "message": "unauthorized", "details": {"code": "AUTH_TOKEN_MISMATCH"}})).await;
    assert!(
        matches!(problem_of(&client).await, Problem::Rejected { code, .. } if code == "AUTH_TOKEN_MISMATCH")
    );
    let shown = format!(
        "{:?} {client:?} {:?}",
        call(&client, "status").await,
        gateway.endpoint()
    );
    assert!(!shown.contains(TOKEN), "{shown}");
}

#[tokio::test]
async fn a_lock_out_is_waited_for_as_long_as_the_gateway_says() {
    let gateway = FakeGateway::start().await;
    let client = Client::new(gateway.endpoint(), options());
    gateway.accept().await.turn_away(json!({"code": "INVALID_REQUEST", "message": "m", "retryAfterMs": 20_000, "details": {"code": "AUTH_RATE_LIMITED"}})).await;
    assert_eq!(problem_of(&client).await, Problem::LockedOut);
    let CallError::NotConnected { retry_after, .. } = call(&client, "status").await.unwrap_err()
    else {
        panic!()
    };
    assert_eq!(retry_after, Duration::from_secs(20));
}

#[tokio::test]
async fn answers_find_their_calls_in_any_order_and_second_ones_find_nobody() {
    let gateway = FakeGateway::start().await;
    let (client, mut session) = connected(&gateway).await;
    let calls: Vec<_> = ["a", "b", "c"]
        .map(|method| {
            let client = client.clone();
            tokio::spawn(async move { call(&client, method).await })
        })
        .into();
    let requests = [
        session.request().await,
        session.request().await,
        session.request().await,
    ];
    session.text("not a frame").await;
    session
        .text(r#"{"type":"res","id":"9999","ok":true}"#)
        .await;
    for request in requests.iter().rev() {
        session
            .answer(request, json!({"for": request["method"]}))
            .await;
        session.answer(request, json!("a second answer")).await;
    }
    for (call, method) in calls.into_iter().zip(["a", "b", "c"]) {
        assert_eq!(call.await.unwrap().unwrap(), json!({"for": method}));
    }
}

#[tokio::test]
async fn a_refusal_keeps_its_codes() {
    let gateway = FakeGateway::start().await;
    let (client, mut session) = connected(&gateway).await;
    let (result, ()) = tokio::join!(call(&client, "a"), async {
        let request = session.request().await;
        session
            .refuse(
                &request,
                json!({"code": "FORBIDDEN", "message": "no", "details": {"code": "MISSING_SCOPE"}}),
            )
            .await;
    });
    let CallError::Refused(refusal) = result.unwrap_err() else {
        panic!()
    };
    assert!(refusal.is("FORBIDDEN") && refusal.is("MISSING_SCOPE") && !refusal.retryable);
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_sent_calls_lost_and_carries_the_next_ones_on_a_new_one() {
    let gateway = FakeGateway::start().await;
    let (client, mut session) = connected(&gateway).await;
    let (lost, ()) = tokio::join!(call(&client, "a"), async {
        session.request().await;
        session.break_off();
    });
    assert!(matches!(lost.unwrap_err(), CallError::Lost));

    let (second, ()) = tokio::join!(call(&client, "b"), async {
        let mut session = gateway.accept().await.welcome(hello()).await;
        let request = session.request().await;
        assert_eq!(request["method"], "b");
        session.answer(&request, json!(2)).await;
    });
    assert_eq!(second.unwrap(), 2);
}

#[tokio::test]
async fn a_gateway_that_shuts_down_finishes_what_is_in_flight_and_gets_nothing_new() {
    let gateway = FakeGateway::start().await;
    let (client, mut old) = connected(&gateway).await;
    let in_flight = tokio::spawn({
        let client = client.clone();
        async move { call(&client, "old").await }
    });
    let old_request = old.request().await;
    old.event("shutdown", json!({"reason": "gateway stopping"}))
        .await;
    assert_eq!(problem_of(&client).await, Problem::Stopping);

    let (new, ()) = tokio::join!(call(&client, "new"), async {
        let mut session = gateway.accept().await.welcome(hello()).await;
        let request = session.request().await;
        assert_eq!(request["method"], "new");
        session.answer(&request, json!("new")).await;
    });
    assert_eq!(new.unwrap(), "new");
    old.answer(&old_request, json!("old")).await;
    assert_eq!(in_flight.await.unwrap().unwrap(), "old");
    old.ended().await;
}

#[tokio::test]
async fn a_call_without_an_answer_times_out_and_its_late_answer_disturbs_nobody() {
    let gateway = FakeGateway::start().await;
    let (client, mut session) = connected(&gateway).await;
    let (result, request) = tokio::join!(
        client.call("slow", json!({}), Duration::from_millis(50)),
        session.request()
    );
    assert!(
        matches!(result.unwrap_err(), CallError::TimedOut { after } if after == Duration::from_millis(50))
    );
    session.answer(&request, json!("late")).await;
    let (next, ()) = tokio::join!(call(&client, "next"), async {
        let request = session.request().await;
        session.answer(&request, json!("in time")).await;
    });
    assert_eq!(next.unwrap(), "in time");
}

#[tokio::test]
async fn a_call_that_is_dropped_before_there_is_a_connection_is_never_sent() {
    let gateway = FakeGateway::start().await;
    let client = Client::new(gateway.endpoint(), options());
    let visitor = gateway.accept().await;
    let dropped = tokio::time::timeout(Duration::from_millis(20), call(&client, "dropped")).await;
    assert!(dropped.is_err());
    let mut session = visitor.welcome(hello()).await;
    let (_, request) = tokio::join!(
        client.call("kept", json!({}), Duration::from_millis(50)),
        session.request()
    );
    assert_eq!(request["method"], "kept");
}

#[tokio::test]
async fn without_a_gateway_a_call_says_so_in_time_and_gets_through_once_there_is_one() {
    let gateway = FakeGateway::start().await;
    let endpoint = gateway.endpoint();
    let address = gateway.stop().await;
    let mut options = options();
    options.connect_wait = Duration::from_millis(50);
    let client = Client::new(endpoint, options);
    let CallError::NotConnected {
        reason,
        retry_after,
    } = call(&client, "early").await.unwrap_err()
    else {
        panic!()
    };
    assert!(reason.contains("cannot be reached"), "{reason}");
    assert!(retry_after <= gateway::RETRY_MAX);

    let gateway = FakeGateway::start_at(address).await;
    let _session = gateway.accept().await.welcome(hello()).await;
    client.wait_ready(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_call_that_waits_hastens_the_next_attempt() {
    let gateway = FakeGateway::start().await;
    let endpoint = gateway.endpoint();
    let address = gateway.stop().await;
    let mut options = options();
    options.first_retry = Duration::from_secs(3600);
    options.retry_max = Duration::from_secs(3600);
    let client = Client::new(endpoint, options);
    assert!(matches!(problem_of(&client).await, Problem::Unreachable(_)));
    let gateway = FakeGateway::start_at(address).await;
    let (result, ()) = tokio::join!(call(&client, "a"), async {
        let mut session = gateway.accept().await.welcome(hello()).await;
        let request = session.request().await;
        session.answer(&request, json!(1)).await;
    });
    assert_eq!(result.unwrap(), 1);
}

#[tokio::test]
async fn connections_that_end_during_the_handshake_are_tried_again() {
    let gateway = FakeGateway::start().await;
    let client = Client::new(gateway.endpoint(), options());
    for _ in 0..4 {
        gateway.accept().await.break_off();
    }
    gateway
        .accept()
        .await
        .turn_away(json!({"code": "UNAVAILABLE", "message": "gateway starting", "retryable": true}))
        .await;
    let _session = gateway.accept().await.welcome(hello()).await;
    client.wait_ready(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_misses_its_ticks_is_left_for_a_new_connection() {
    let gateway = FakeGateway::start().await;
    let client = Client::new(gateway.endpoint(), options());
    let mut quick = hello();
    quick["policy"]["tickIntervalMs"] = json!(50);
    let _silent = gateway.accept().await.welcome(quick).await;
    client.wait_ready(DEADLINE).await.unwrap();
    assert!(
        matches!(problem_of(&client).await, Problem::Lost(reason) if reason.contains("silent"))
    );
    let _session = gateway.accept().await.welcome(hello()).await;
    client.wait_ready(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_too_large_for_the_gateway_stays_here_and_the_connection_stands() {
    let gateway = FakeGateway::start().await;
    let client = Client::new(gateway.endpoint(), options());
    let mut narrow = hello();
    narrow["policy"]["maxPayload"] = json!(1000);
    let mut session = gateway.accept().await.welcome(narrow).await;
    let error = client
        .call("a", "x".repeat(1000), DEADLINE)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            CallError::NotSent(NotSent::TooLarge { max: 1000, .. })
        ),
        "{error}"
    );
    let (result, ()) = tokio::join!(call(&client, "b"), async {
        let request = session.request().await;
        session.answer(&request, json!(1)).await;
    });
    assert_eq!(result.unwrap(), 1);
}

#[tokio::test]
async fn an_answer_that_is_no_protocol_fails_its_call_and_no_other() {
    let gateway = FakeGateway::start().await;
    let (client, mut session) = connected(&gateway).await;
    let (broken, fine, ()) = tokio::join!(call(&client, "a"), call(&client, "b"), async {
        let (a, b) = (session.request().await, session.request().await);
        session
            .text(&format!(
                r#"{{"type":"res","id":"{}","ok":"canary"}}"#,
                a["id"].as_str().unwrap()
            ))
            .await;
        session.answer(&b, json!(2)).await;
    });
    let broken = broken.unwrap_err();
    assert!(matches!(broken, CallError::Protocol(_)));
    assert!(!broken.to_string().contains("canary"));
    assert_eq!(fine.unwrap(), 2);
}

#[tokio::test]
async fn pings_are_answered_without_a_call_under_way() {
    let gateway = FakeGateway::start().await;
    let (_client, mut session) = connected(&gateway).await;
    session.ping_and_wait_for_pong().await;
}

#[tokio::test]
async fn the_last_clone_that_is_dropped_closes_the_connection() {
    let gateway = FakeGateway::start().await;
    let (client, session) = connected(&gateway).await;
    let clone = client.clone();
    drop(client);
    assert!(clone.hello().is_some());
    let mut states = clone.states();
    drop(clone);
    session.ended().await;
    while within(states.changed()).await.is_ok() {}
}

#[tokio::test]
async fn large_frames_pass_both_ways_while_small_ones_go_on() {
    let gateway = FakeGateway::start().await;
    let (client, mut session) = connected(&gateway).await;
    let large = "x".repeat(10 * 1024 * 1024);
    let (echo, small, ()) = tokio::join!(
        client.call("large", &large, DEADLINE),
        call(&client, "small"),
        async {
            for _ in 0..2 {
                let request = session.request().await;
                session.answer(&request, request["params"].clone()).await;
            }
        }
    );
    assert_eq!(echo.unwrap().parse::<&str>().unwrap(), large);
    assert_eq!(small.unwrap(), json!({}));
}

#[tokio::test]
async fn more_executions_than_the_bridge_performs_at_once_wait_here() {
    let gateway = FakeGateway::start().await;
    let (client, mut session) = connected(&gateway).await;
    let limit = tsunami_openclaw::bridge::MAX_CONCURRENT_EXECUTIONS;
    let executions: Vec<_> = (0..limit + 1)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.execute(&gateway::execution(n)).await })
        })
        .collect();
    let mut requests = Vec::new();
    for _ in 0..limit {
        requests.push(session.request().await);
    }
    session.expect_no_request(Duration::from_millis(50)).await;
    session
        .answer(&requests[0], gateway::execution_reply(&requests[0]))
        .await;
    requests.push(session.request().await);
    for request in &requests[1..] {
        session
            .answer(request, gateway::execution_reply(request))
            .await;
    }
    for execution in executions {
        execution.await.unwrap().unwrap();
    }
}
