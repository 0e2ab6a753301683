//! The client and the bridge in a real OpenClaw process. A start of that takes 10 to 20 s, so one test
//! tells the whole story, on one instance that is killed twice.

mod gateway;
mod recorder;

use std::{path::Path, time::Duration};

use gateway::Gateway;
use recorder::Recorder;
use tsunami_openclaw::{
    CallError, Client,
    bridge::{
        Advice, ExecuteError, ExecuteReply, ExecuteRequest, HttpRequest, PrivateNetwork,
        RecallRequest,
    },
};

const CREDENTIAL: &str = "canary-credential/5f0c+x";
const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bridge_acts_once_in_a_real_openclaw_whatever_dies() {
    let mut gateway = Gateway::start().await;
    let recorder = Recorder::start().await;
    let client = gateway.client();

    a_device_gets_its_scopes_and_finds_the_bridge(&client).await;
    let first =
        a_request_arrives_whole_and_its_credential_does_not_come_back(&client, &recorder).await;
    a_redirect_is_an_answer(&client, &recorder).await;
    a_private_address_is_refused(&client, &recorder).await;
    an_unknown_field_and_an_unknown_method_are_refused(&client).await;
    many_calls_at_once_all_arrive_once(&client, &recorder).await;
    a_large_body_passes_both_ways(&client, &recorder).await;

    let held = tokio::spawn(execute(client.clone(), held_request(&recorder)));
    recorder.arrived("/hold", 1).await;
    gateway.kill();
    assert!(matches!(
        held.await.unwrap().unwrap_err(),
        ExecuteError::Call(CallError::Lost)
    ));
    gateway.start_again().await;

    a_call_over_which_the_process_died_is_unknown_and_not_repeated(&client, &recorder, &first)
        .await;
    a_finished_call_is_answered_from_the_journal(&client, &recorder, &first).await;
    what_became_of_a_call_can_be_asked_without_performing_it(&client, &recorder, &first).await;
    trying_again_is_possible_where_somebody_says_so(&mut gateway, &client, &recorder).await;
    no_file_of_the_instance_holds_the_credential(gateway.home.path());
}

fn request(call_id: &str, url: String) -> ExecuteRequest {
    ExecuteRequest {
        call_id: call_id.into(),
        resend: false,
        journal_id: None,
        sent_ago: Duration::ZERO,
        retry_unknown: false,
        digest: format!("sha256:{call_id}"),
        timeout: DEADLINE,
        max_response_bytes: 8 * 1024 * 1024,
        secrets: vec![CREDENTIAL.into()],
        private_network: PrivateNetwork::Allow,
        journal_reply: true,
        request: HttpRequest {
            method: "POST".into(),
            url: url.into(),
            headers: vec![(
                "authorization".into(),
                format!("Bearer {CREDENTIAL}").into(),
            )],
            body: Some(
                format!("{{\"token\":\"{CREDENTIAL}\"}}")
                    .into_bytes()
                    .into(),
            ),
        },
    }
}

fn held_request(recorder: &Recorder) -> ExecuteRequest {
    request("held", recorder.url("/hold"))
}

async fn execute(client: Client, request: ExecuteRequest) -> Result<ExecuteReply, ExecuteError> {
    client.execute(&request).await
}

async fn a_device_gets_its_scopes_and_finds_the_bridge(client: &Client) {
    let hello = client.wait_ready(DEADLINE).await.unwrap();
    assert_eq!(hello.auth.scopes, ["operator.read", "operator.write"]);
    let status = client.bridge_status(DEADLINE).await.unwrap();
    assert_eq!((status.in_flight, status.journal_entries), (0, 0));
}

async fn a_request_arrives_whole_and_its_credential_does_not_come_back(
    client: &Client,
    recorder: &Recorder,
) -> ExecuteReply {
    let reply = client
        .execute(&request("first", recorder.url("/echo?a=b")))
        .await
        .unwrap();
    let [seen] = recorder.seen("/echo").try_into().unwrap();
    assert!(
        seen.head.starts_with("POST /echo?a=b HTTP/1.1\r\n"),
        "{}",
        seen.head
    );
    assert!(
        seen.head
            .contains(&format!("authorization: Bearer {CREDENTIAL}\r\n")),
        "{}",
        seen.head
    );
    assert_eq!(
        seen.body,
        format!("{{\"token\":\"{CREDENTIAL}\"}}").as_bytes()
    );

    let echoed = String::from_utf8(reply.reply.body.clone().unwrap()).unwrap();
    assert!(
        echoed.contains("authorization: Bearer [redacted]"),
        "{echoed}"
    );
    assert!(echoed.ends_with(r#"{"token":"[redacted]"}"#), "{echoed}");
    assert_eq!(
        (reply.reply.status, reply.replayed, reply.reply.truncated),
        (200, false, false)
    );
    reply
}

async fn a_redirect_is_an_answer(client: &Client, recorder: &Recorder) {
    let reply = client
        .execute(&request("redirect", recorder.url("/redirect")))
        .await
        .unwrap();
    assert_eq!(reply.reply.status, 302);
    assert!(recorder.seen("/elsewhere").is_empty());
}

async fn a_private_address_is_refused(client: &Client, recorder: &Recorder) {
    let mut private = request("private", recorder.url("/private"));
    private.private_network = PrivateNetwork::Refuse;
    let error = client.execute(&private).await.unwrap_err();
    assert!(
        matches!(&error, ExecuteError::NotSent { reason, .. } if reason == "PRIVATE_ADDRESS"),
        "{error:?}"
    );
    assert_eq!(error.advice(), Advice::GiveUp);
    assert!(recorder.seen("/private").is_empty());
}

async fn an_unknown_field_and_an_unknown_method_are_refused(client: &Client) {
    let refused = client
        .call(
            "servicetsunami.execute",
            serde_json::json!({"calId": "x"}),
            DEADLINE,
        )
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, CallError::Refused(refusal) if refusal.is("INVALID_REQUEST")),
        "{refused:?}"
    );
    let refused = client
        .call("servicetsunami.nothing", serde_json::json!({}), DEADLINE)
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, CallError::Refused(refusal) if refusal.is("FORBIDDEN")),
        "{refused:?}"
    );
}

async fn many_calls_at_once_all_arrive_once(client: &Client, recorder: &Recorder) {
    const CALLS: usize = 200;
    let calls: Vec<_> = (0..CALLS)
        .map(|n| {
            tokio::spawn(execute(
                client.clone(),
                request(&format!("many-{n}"), recorder.url(&format!("/many/{n}"))),
            ))
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().reply.status, 200);
    }
    assert_eq!(recorder.seen("/many").len(), CALLS);
    assert_eq!(client.bridge_status(DEADLINE).await.unwrap().in_flight, 0);
}

async fn a_large_body_passes_both_ways(client: &Client, recorder: &Recorder) {
    let mut large = request("large", recorder.url("/echo-large"));
    let body = vec![0xa5; 7 * 1024 * 1024];
    large.request.body = Some(body.clone().into());
    let reply = client.execute(&large).await.unwrap();
    assert!(reply.reply.body.unwrap().ends_with(&body));
    large.resend = true;
    let again = client.execute(&large).await.unwrap();
    assert_eq!(
        (again.replayed, again.reply.body, &again.reply.digest),
        (true, None, &reply.reply.digest)
    );
}

async fn a_call_over_which_the_process_died_is_unknown_and_not_repeated(
    client: &Client,
    recorder: &Recorder,
    first: &ExecuteReply,
) {
    client.wait_ready(DEADLINE).await.unwrap();
    let mut again = held_request(recorder);
    again.resend = true;
    again.journal_id = Some(first.journal_id.clone());
    for _ in 0..2 {
        let error = client.execute(&again).await.unwrap_err();
        assert_eq!(error.advice(), Advice::AskPerson);
        let ExecuteError::OutcomeUnknown {
            reason, started_at, ..
        } = error
        else {
            panic!("{error:?}")
        };
        assert_eq!(reason, "PROCESS_DIED");
        assert!(started_at.is_some());
    }
    assert_eq!(recorder.seen("/hold").len(), 1);
}

async fn a_finished_call_is_answered_from_the_journal(
    client: &Client,
    recorder: &Recorder,
    first: &ExecuteReply,
) {
    let mut again = request("first", recorder.url("/echo?a=b"));
    again.resend = true;
    again.journal_id = Some(first.journal_id.clone());
    let reply = client.execute(&again).await.unwrap();
    assert!(reply.replayed);
    assert_eq!(reply.reply, first.reply);
    assert_eq!(reply.journal_id, first.journal_id);
    assert_eq!(recorder.seen("/echo?").len(), 1);

    again.digest = "sha256:another-request".into();
    assert!(matches!(
        client.execute(&again).await.unwrap_err(),
        ExecuteError::CallIdReused
    ));
}

async fn what_became_of_a_call_can_be_asked_without_performing_it(
    client: &Client,
    recorder: &Recorder,
    first: &ExecuteReply,
) {
    let ask = |call_id: &str| {
        let question = RecallRequest {
            call_id: call_id.into(),
            digest: format!("sha256:{call_id}"),
            journal_id: Some(first.journal_id.clone()),
            sent_ago: Duration::from_secs(1),
        };
        async move { client.recall(&question, DEADLINE).await }
    };
    assert_eq!(ask("first").await.unwrap().reply, first.reply);
    assert_eq!(ask("held").await.unwrap_err().advice(), Advice::AskPerson);
    let never = ask("never-sent").await.unwrap_err();
    assert!(
        matches!(&never, ExecuteError::NotSent { reason, .. } if reason == "WITHDRAWN"),
        "{never:?}"
    );
    let late = client
        .execute(&request("never-sent", recorder.url("/never")))
        .await
        .unwrap_err();
    assert!(
        matches!(&late, ExecuteError::NotSent { reason, .. } if reason == "WITHDRAWN"),
        "{late:?}"
    );
    assert_eq!(late.advice(), Advice::GiveUp);
    assert!(recorder.seen("/never").is_empty());
}

/// The second kill: this time over a call that a person had sent again.
async fn trying_again_is_possible_where_somebody_says_so(
    gateway: &mut Gateway,
    client: &Client,
    recorder: &Recorder,
) {
    let mut again = held_request(recorder);
    again.resend = true;
    again.retry_unknown = true;
    let held = tokio::spawn(execute(client.clone(), again));
    recorder.arrived("/hold", 2).await;
    gateway.kill();
    assert_eq!(held.await.unwrap().unwrap_err().advice(), Advice::AskAgain);
    gateway.start_again().await;

    client.wait_ready(DEADLINE).await.unwrap();
    let mut asking = held_request(recorder);
    asking.resend = true;
    assert_eq!(
        client.execute(&asking).await.unwrap_err().advice(),
        Advice::AskPerson
    );
    assert_eq!(recorder.seen("/hold").len(), 2);
}

fn no_file_of_the_instance_holds_the_credential(home: &Path) {
    let needles: Vec<Vec<u8>> = [
        "canary-credential",
        "Y2FuYXJ5LWNyZWRlbnRpYWwv",
        "NhbmFyeS1jcmVkZW50aWFsL",
        "jYW5hcnktY3JlZGVudGlhbC",
    ]
    .map(|needle| needle.as_bytes().to_vec())
    .into();
    let mut files = 0;
    let mut folders = vec![home.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.file_type().unwrap().is_file() {
                files += 1;
                let content = std::fs::read(entry.path()).unwrap();
                let found = needles.iter().find(|needle| {
                    content
                        .windows(needle.len())
                        .any(|window| window == **needle)
                });
                assert!(
                    found.is_none(),
                    "{} holds the credential",
                    entry.path().display()
                );
            }
        }
    }
    assert!(files > 3, "the instance's files were looked at");
}
