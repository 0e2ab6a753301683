use super::*;
use base64::{Engine, prelude::BASE64_URL_SAFE};
use serde_json::Value;
use servicetsunami_plugin::{
    Failure, Step,
    testing::{Conversation, examples_run},
};

const MAIL_ID: &str = "18c2f0a1b2c3d4e5";

fn mail_of(body: &Value) -> String {
    let raw = body["raw"].as_str().expect("a body with `raw`");
    String::from_utf8(BASE64_URL_SAFE.decode(raw).expect("base64url")).expect("ASCII")
}

fn sent_mail(params: Value) -> String {
    mail_of(
        &Conversation::new(skill, "send_message", params)
            .request()
            .json(),
    )
}

fn pointer_of(params: Value) -> String {
    match Conversation::new(skill, "send_message", params).failure() {
        Failure::InvalidParams(violations) => violations[0].pointer.clone(),
        other => panic!("{other:?}"),
    }
}

fn encoded(text: &str) -> String {
    BASE64_URL_SAFE.encode(text)
}

#[test]
fn a_message_travels_as_rfc_5322_has_it() {
    let params = json!({ "to": ["ada@example.com"], "cc": ["grace@example.com", "joan@example.com"], "subject": "Q4", "text": "It is ready.\nBye" });
    let call = Conversation::new(skill, "send_message", params).now_ms(1_795_705_200_000);
    let request = call.request();
    assert_eq!(
        request.line(),
        "POST https://gmail.googleapis.com/gmail/v1/users/me/messages/send"
    );
    assert_eq!(
        request.header("authorization").as_deref(),
        Some("Bearer {access_token}")
    );
    assert_eq!(
        mail_of(&request.json()),
        "Date: Thu, 26 Nov 2026 15:00:00 +0000\r\n\
         To: <ada@example.com>\r\n\
         Cc: <grace@example.com>, <joan@example.com>\r\n\
         Subject: Q4\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=\"utf-8\"\r\n\
         Content-Transfer-Encoding: 7bit\r\n\
         \r\n\
         It is ready.\r\nBye"
    );
}

#[test]
fn other_alphabets_are_encoded_in_headers_and_bodies() {
    let mail = sent_mail(json!({
        "to": ["ada@example.com"], "from": { "address": "office@example.com", "name": "Büro, München" },
        "subject": "Grüße 你好", "text": "Grüße",
        "attachments": [{ "file_name": "Übersicht.pdf", "content_type": "application/pdf", "content_base64": "AAEC" }],
    }));
    assert!(mail.is_ascii(), "{mail}");
    for part in [
        "From: =?utf-8?",
        "<office@example.com>",
        "Subject: =?utf-8?",
        "Content-Type: multipart/mixed;\r\n boundary=\"=_mixed_",
        "filename*=UTF-8''%C3%9Cbersicht.pdf",
        "Content-Type: application/pdf\r\n",
        "\r\nAAEC\r\n",
    ] {
        assert!(mail.contains(part), "no `{part}` in\n{mail}");
    }
}

#[test]
fn text_and_html_are_alternatives_beside_the_files() {
    let mail = sent_mail(json!({
        "to": ["ada@example.com"], "text": "plain", "html": "<p>rich</p>",
        "attachments": [{ "file_name": "a.bin", "content_base64": "AAEC" }],
    }));
    let place = |text: &str| {
        mail.find(text)
            .unwrap_or_else(|| panic!("no `{text}` in\n{mail}"))
    };
    let order = [
        "multipart/mixed",
        "multipart/alternative",
        "plain\r\n",
        "<p>rich</p>",
        "application/octet-stream",
    ];
    assert!(order.map(place).is_sorted(), "{mail}");
}

#[test]
fn a_line_break_begins_no_header() {
    let with = |key: &str, value: Value| {
        let mut params = json!({ "to": ["ada@example.com"], "text": "x" });
        params[key] = value;
        params
    };
    let bcc = "\r\nBcc: eve@example.com";
    assert_eq!(
        pointer_of(with("subject", json!(format!("Q4{bcc}")))),
        "/subject"
    );
    assert_eq!(pointer_of(with("subject", json!("Q4\nX: y"))), "/subject");
    assert_eq!(
        pointer_of(with(
            "to",
            json!(["ada@example.com", format!("a@b.example{bcc}")])
        )),
        "/to/1"
    );
    assert_eq!(
        pointer_of(with("cc", json!(["a@b.example,eve@example.com"]))),
        "/cc/0"
    );
    assert_eq!(
        pointer_of(with("bcc", json!(["Ada <ada@example.com>"]))),
        "/bcc/0"
    );
    assert_eq!(
        pointer_of(with(
            "from",
            json!({ "address": format!("a@b.example{bcc}") })
        )),
        "/from/address"
    );
    assert_eq!(
        pointer_of(with(
            "from",
            json!({ "address": "a@b.example", "name": format!("A{bcc}") })
        )),
        "/from/name"
    );
    let file = |name: &str, kind: &str| json!([{ "file_name": name, "content_type": kind, "content_base64": "AA==" }]);
    assert_eq!(
        pointer_of(with("attachments", file("a\r\nX: y", "text/csv"))),
        "/attachments/0/file_name"
    );
    assert_eq!(
        pointer_of(with("attachments", file("a", "text/csv\r\nX: y"))),
        "/attachments/0/content_type"
    );
    assert_eq!(
        pointer_of(with("attachments", file("a", "multipart/mixed"))),
        "/attachments/0/content_type"
    );
    assert_eq!(pointer_of(with("text", json!("a\u{0}b"))), "/text");
}

#[test]
fn an_address_is_one_recipient_and_nothing_else() {
    for good in [
        "ada@example.com",
        "a.b+c_d@sub.example.co.uk",
        "o'hara@example.com",
        "x@xn--bcher-kva.example",
    ] {
        assert!(mime::is_address(good), "{good}");
    }
    for bad in [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@localhost",
        "a b@example.com",
        "a@b@example.com",
        "a..b@example.com",
        "\"a b\"@example.com",
        "a@example.com.",
        "a@-example.com",
        "a@[127.0.0.1]",
        "<a@example.com>",
        "ü@example.com",
        "a@bücher.example",
        "a@example.com, b@example.com",
        "a@example.com\n",
        "a(b)@example.com",
        "g:a@example.com;",
    ] {
        assert!(!mime::is_address(bad), "{bad}");
    }
}

#[test]
fn no_text_can_end_its_part() {
    let seed = "01890000000070008000000000000000";
    let text = format!(
        "a\r\n--=_mixed_{seed}\r\nContent-Type: text/html\r\n\r\n<p>x</p>\r\n--=_mixed_{seed}_--"
    );
    let mail = sent_mail(json!({
        "to": ["ada@example.com"], "text": text,
        "attachments": [{ "file_name": "a", "content_base64": "AA==" }],
    }));
    let boundary = mail
        .split("boundary=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("a boundary");
    assert!(!text.contains(boundary), "{boundary}");
    assert_eq!(
        mail.matches(&format!("\r\n--{boundary}")).count(),
        3,
        "{mail}"
    );
}

#[test]
fn a_message_needs_somebody_to_go_to() {
    assert_eq!(pointer_of(json!({ "text": "x" })), "/to");
}

#[test]
fn what_is_too_long_to_travel_is_said_so() {
    let content = "A".repeat(1_000_000);
    let params = json!({ "to": ["ada@example.com"], "attachments": [{ "file_name": "a", "content_base64": content }] });
    assert_eq!(pointer_of(params), "/attachments");
}

fn original() -> Value {
    json!({ "id": MAIL_ID, "threadId": "18c0000000000000", "payload": { "headers": [
        { "name": "Message-Id", "value": "<third@mail.example>" },
        { "name": "References", "value": "<first@mail.example>\r\n <second@mail.example> <x\r\nBcc: eve@example.com>" },
        { "name": "Subject", "value": "Q4\r\nBcc: eve@example.com" },
    ] } })
}

#[test]
fn an_answer_joins_the_conversation() {
    let params =
        json!({ "to": ["ada@example.com"], "text": "Thanks!", "reply_to_message_id": MAIL_ID });
    let mut call = Conversation::new(skill, "send_message", params);
    assert_eq!(
        call.request().line(),
        "GET https://gmail.googleapis.com/gmail/v1/users/me/messages/18c2f0a1b2c3d4e5?format=metadata&metadataHeaders=Message-ID&metadataHeaders=References&metadataHeaders=In-Reply-To&metadataHeaders=Subject"
    );
    let body = call.reply(200, original()).request().json();
    assert_eq!(body["threadId"], "18c0000000000000");
    let mail = mail_of(&body);
    assert!(
        mail.contains("In-Reply-To: <third@mail.example>\r\n"),
        "{mail}"
    );
    assert!(
        mail.contains(
            "References: <first@mail.example> <second@mail.example> <third@mail.example>\r\n"
        ),
        "{mail}"
    );
    assert!(
        mail.contains("Subject: Re: Q4  Bcc: eve@example.com\r\n"),
        "{mail}"
    );
    let done = call
        .reply(
            200,
            json!({ "id": "m2", "threadId": "t1", "labelIds": ["SENT"] }),
        )
        .finish();
    assert_eq!(
        done.output,
        json!({ "id": "m2", "thread_id": "t1", "label_ids": ["SENT"] })
    );
    assert_eq!(done.summary, "sent to ada@example.com");
}

#[test]
fn a_long_conversation_names_its_first_message_and_the_last_ones() {
    let references: String = (0..60).map(|n| format!("<{n}@mail.example> ")).collect();
    let mut message = original();
    message["payload"]["headers"][1]["value"] = json!(references);
    let params = json!({ "to": ["ada@example.com"], "reply_to_message_id": MAIL_ID });
    let mut call = Conversation::new(skill, "create_draft", params);
    let mail = mail_of(&call.reply(200, message).request().json()["message"]);
    assert_eq!(mail.matches("@mail.example>").count(), 21, "{mail}");
    assert!(
        mail.contains("References: <0@mail.example> <42@mail.example>"),
        "{mail}"
    );
}

fn draft_to(headers: Value) -> Conversation {
    let params =
        json!({ "draft_id": "r-8", "recipients": ["ada@example.com", "grace@example.com"] });
    let mut call = Conversation::new(skill, "send_draft", params);
    assert_eq!(
        call.request().line(),
        "GET https://gmail.googleapis.com/gmail/v1/users/me/drafts/r-8?format=metadata"
    );
    call.reply(
        200,
        json!({ "id": "r-8", "message": { "id": "m1", "payload": { "headers": headers } } }),
    );
    call
}

#[test]
fn a_draft_goes_to_the_named_recipients_and_nobody_else() {
    let header = |name: &str, value: &str| json!({ "name": name, "value": value });
    let good = draft_to(json!([
        header("To", "\"Lovelace, Ada\" <Ada@Example.com>"),
        header("Cc", "grace@example.com"),
    ]));
    assert_eq!(
        (good.request().line().as_str(), good.request().json()),
        (
            "POST https://gmail.googleapis.com/gmail/v1/users/me/drafts/send",
            json!({ "id": "r-8" })
        )
    );
    let all = "ada@example.com, grace@example.com";
    for headers in [
        json!([]),
        json!([header("To", "ada@example.com")]),
        json!([header("To", all), header("Bcc", "eve@example.com")]),
        json!([header("To", all), header("to", "eve@example.com")]),
        json!([header(
            "To",
            "ada@example.com <eve@example.com>, grace@example.com"
        )]),
        json!([header("To", &format!("{all}, eve (x) @example.com"))]),
        json!([header("To", &format!("{all}, \"e v e\"@example.com"))]),
        json!([header(
            "To",
            &format!("{all}, grace@example.com.evil.example")
        )]),
        json!([header("To", &format!("team: {all}, eve@example.com;"))]),
    ] {
        let refusal = draft_to(headers.clone()).refusal();
        assert!(
            ["other_recipients", "no_recipients"].contains(&refusal.code.as_str()),
            "{headers}: {refusal:?}"
        );
    }
}

#[test]
fn found_messages_come_with_their_headers() {
    let params = json!({ "query": "is:unread", "label_ids": ["INBOX", "Label_7"], "cursor": "p2", "limit": 2 });
    let mut call = Conversation::new(skill, "search_messages", params);
    assert_eq!(
        call.request().line(),
        "GET https://gmail.googleapis.com/gmail/v1/users/me/messages?q=is%3Aunread&pageToken=p2&maxResults=2&labelIds=INBOX&labelIds=Label_7"
    );
    call.reply(200, json!({ "messages": [{ "id": "a1", "threadId": "t1" }], "nextPageToken": "p3", "resultSizeEstimate": 201 }));
    assert!(call.request().line().starts_with(
        "GET https://gmail.googleapis.com/gmail/v1/users/me/messages/a1?format=metadata&fields=id%2CthreadId"
    ));
    let message = json!({
        "id": "a1", "threadId": "t1", "labelIds": ["UNREAD"], "snippet": "It&#39;s ready", "internalDate": "1795705200000",
        "payload": { "headers": [{ "name": "From", "value": "Ada <ada@example.com>" }, { "name": "Subject", "value": "Q4" }] },
    });
    let done = call.reply(200, message).finish();
    assert_eq!(
        done.output,
        json!({
            "messages": [{
                "id": "a1", "thread_id": "t1", "label_ids": ["UNREAD"], "from": "Ada <ada@example.com>", "to": null,
                "subject": "Q4", "date": null, "received_at_ms": 1_795_705_200_000_u64, "snippet": "It's ready",
            }],
            "next_cursor": "p3",
            "estimated_total": 201,
        })
    );
    let mut call = Conversation::new(skill, "search_messages", json!({}));
    let done = call.reply(200, json!({ "resultSizeEstimate": 0 })).finish();
    assert_eq!(
        done.output,
        json!({ "messages": [], "next_cursor": null, "estimated_total": 0 })
    );
}

#[test]
fn a_message_that_is_deleted_meanwhile_is_left_out() {
    let mut call = Conversation::new(skill, "search_messages", json!({}));
    call.reply(200, json!({ "messages": [{ "id": "a1" }, { "id": "a2" }] }));
    call.reply(
        404,
        error(404, "notFound", "Requested entity was not found."),
    );
    let done = call.reply(200, json!({ "id": "a2" })).finish();
    assert_eq!(
        (done.summary.as_str(), &done.output["messages"][0]["id"]),
        ("1 messages", &json!("a2"))
    );
}

fn part(kind: &str, body: &str) -> Value {
    json!({ "mimeType": kind, "filename": "", "body": { "size": body.len(), "data": encoded(body) } })
}

#[test]
fn a_message_is_read_with_its_text_and_files() {
    let params = json!({ "message_id": MAIL_ID, "include_html": true });
    let mut call = Conversation::new(skill, "get_message", params);
    assert_eq!(
        call.request().line(),
        "GET https://gmail.googleapis.com/gmail/v1/users/me/messages/18c2f0a1b2c3d4e5?format=full"
    );
    let inner = json!({ "mimeType": "message/rfc822", "filename": "", "body": {}, "parts": [part("text/plain", "another message")] });
    let file = json!({ "mimeType": "application/pdf", "filename": "q4.pdf", "body": { "attachmentId": "ANG_1", "size": 1234 } });
    let alternative = json!({ "mimeType": "multipart/alternative", "parts": [part("text/plain", "Grüße\r\nAda"), part("text/html", "<p>Grüße</p>")] });
    let message = json!({
        "id": MAIL_ID, "threadId": "t1", "labelIds": ["INBOX"], "snippet": "Gr", "internalDate": "1795705200000",
        "payload": {
            "mimeType": "multipart/mixed", "parts": [alternative, file, inner],
            "headers": [
                { "name": "From", "value": "Ada <ada@example.com>" }, { "name": "To", "value": "me@example.com" },
                { "name": "Subject", "value": "Q4" }, { "name": "Date", "value": "Thu, 26 Nov 2026 16:00:00 +0100" },
                { "name": "Message-ID", "value": "<a@mail.example>" },
            ],
        },
    });
    let done = call.reply(200, message).finish();
    assert_eq!(done.summary, "read \"Q4\"");
    assert_eq!(
        done.output,
        json!({
            "id": MAIL_ID, "thread_id": "t1", "label_ids": ["INBOX"], "from": "Ada <ada@example.com>", "to": "me@example.com",
            "cc": null, "bcc": null, "reply_to": null, "subject": "Q4", "date": "Thu, 26 Nov 2026 16:00:00 +0100",
            "message_id": "<a@mail.example>", "received_at_ms": 1_795_705_200_000_u64, "snippet": "Gr",
            "text": "Grüße\nAda", "is_text_cut": false, "html": "<p>Grüße</p>",
            "attachments": [{ "attachment_id": "ANG_1", "file_name": "q4.pdf", "content_type": "application/pdf", "bytes": 1234 }],
        })
    );
}

#[test]
fn a_message_of_html_alone_is_read_as_text() {
    let mut call = Conversation::new(skill, "get_message", json!({ "message_id": MAIL_ID }));
    let message = json!({ "id": MAIL_ID, "payload": part("text/html", "<style>p{}</style><p>Hello <b>Ada</b></p><p>Bye</p>") });
    let output = call.reply(200, message).finish().output;
    assert_eq!(
        (&output["text"], &output["html"]),
        (&json!("Hello Ada\n\nBye"), &Value::Null)
    );
}

#[test]
fn a_long_text_is_cut_between_characters_and_said_to_be() {
    let mut call = Conversation::new(skill, "get_message", json!({ "message_id": MAIL_ID }));
    let message = json!({ "id": MAIL_ID, "payload": part("text/plain", &"ü".repeat(400_000)) });
    let output = call.reply(200, message).finish().output;
    assert_eq!(output["is_text_cut"], true);
    assert_eq!(output["text"].as_str().map(str::len), Some(100_000));
}

#[test]
fn a_conversation_is_read_whole_and_fits_an_answer() {
    let message = |n: usize| json!({ "id": format!("m{n}"), "threadId": "t1", "payload": part("text/plain", &"\"".repeat(60_000)) });
    let messages: Vec<Value> = (0..40).map(message).collect();
    let mut call = Conversation::new(skill, "get_thread", json!({ "thread_id": "t1" }));
    assert_eq!(
        call.request().line(),
        "GET https://gmail.googleapis.com/gmail/v1/users/me/threads/t1?format=full"
    );
    let output = call
        .reply(200, json!({ "id": "t1", "messages": messages }))
        .finish()
        .output;
    assert_eq!(output["messages"].as_array().map(Vec::len), Some(40));
    assert_eq!(output["messages"][0]["is_text_cut"], true);
    assert!(output.to_string().len() < 1 << 20);
}

#[test]
fn an_attachment_comes_in_plain_base64_up_to_a_size() {
    let params = json!({ "message_id": MAIL_ID, "attachment_id": "ANG_1" });
    let mut call = Conversation::new(skill, "get_attachment", params.clone());
    assert_eq!(
        call.request().line(),
        "GET https://gmail.googleapis.com/gmail/v1/users/me/messages/18c2f0a1b2c3d4e5/attachments/ANG_1"
    );
    let done = call
        .reply(200, json!({ "size": 2, "data": "-_8" }))
        .finish();
    assert_eq!(done.output, json!({ "content_base64": "+/8=", "bytes": 2 }));
    let mut call = Conversation::new(skill, "get_attachment", params);
    let refusal = call
        .reply(200, json!({ "data": "A".repeat(1_200_000) }))
        .refusal();
    assert_eq!(refusal.code, "attachment_too_large");
}

#[test]
fn labels_are_added_and_removed_but_the_trash_is_another_action() {
    let params = json!({ "message_id": MAIL_ID, "add_label_ids": ["Label_7"], "remove_label_ids": ["INBOX"] });
    let mut call = Conversation::new(skill, "label_message", params);
    let request = call.request();
    assert_eq!(
        request.line(),
        "POST https://gmail.googleapis.com/gmail/v1/users/me/messages/18c2f0a1b2c3d4e5/modify"
    );
    assert_eq!(
        request.json(),
        json!({ "addLabelIds": ["Label_7"], "removeLabelIds": ["INBOX"] })
    );
    let done = call
        .reply(
            200,
            json!({ "id": MAIL_ID, "threadId": "t1", "labelIds": ["Label_7"] }),
        )
        .finish();
    assert_eq!(done.output["label_ids"], json!(["Label_7"]));
    for (action, key) in [
        ("label_message", "message_id"),
        ("label_thread", "thread_id"),
    ] {
        let call = Conversation::new(
            skill,
            action,
            json!({ key: "x", "add_label_ids": ["STARRED", "TRASH"] }),
        );
        assert!(
            matches!(call.failure(), Failure::InvalidParams(v) if v[0].pointer == "/add_label_ids/1")
        );
        let call = Conversation::new(skill, action, json!({ key: "x" }));
        assert!(matches!(call.failure(), Failure::InvalidParams(_)));
    }
}

fn refused(status: u16, headers: &[(&str, &str)], body: Value) -> servicetsunami_plugin::Refusal {
    let mut call = Conversation::new(skill, "list_labels", json!({})).now_ms(1_795_705_200_000);
    call.reply_with(status, headers, body.to_string()).refusal()
}

fn error(code: u16, reason: &str, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message, "errors": [{ "domain": "global", "reason": reason, "message": message }] } })
}

#[test]
fn a_rejected_token_is_said_to_be_rejected() {
    let refusal = refused(401, &[], error(401, "authError", "Invalid Credentials"));
    assert!(refusal.credential_rejected);
    assert_eq!(refusal.code, "authError");
    let lacking = json!({ "error": { "code": 403, "message": "Request had insufficient authentication scopes.", "status": "PERMISSION_DENIED",
        "errors": [{ "message": "Insufficient Permission", "domain": "global", "reason": "insufficientPermissions" }],
        "details": [{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT" }] } });
    let refusal = refused(403, &[], lacking);
    assert!(
        !refusal.credential_rejected && refusal.message.contains("gmail.modify"),
        "{refusal:?}"
    );
}

#[test]
fn a_rate_limit_says_how_long_to_wait() {
    let wait = |status, headers: &[(&str, &str)], reason, message| {
        refused(status, headers, error(status, reason, message)).retry_after_ms
    };
    assert_eq!(
        wait(
            403,
            &[],
            "userRateLimitExceeded",
            "User Rate Limit Exceeded"
        ),
        Some(30_000)
    );
    assert_eq!(
        wait(403, &[], "rateLimitExceeded", "Rate Limit Exceeded"),
        Some(30_000)
    );
    assert_eq!(
        wait(
            429,
            &[("Retry-After", "7")],
            "rateLimitExceeded",
            "Too many concurrent requests for user"
        ),
        Some(7_000)
    );
    assert_eq!(
        wait(
            429,
            &[],
            "rateLimitExceeded",
            "User-rate limit exceeded.  Retry after 2026-11-26T15:10:00.123Z"
        ),
        Some(601_000)
    );
    assert_eq!(
        wait(
            429,
            &[],
            "rateLimitExceeded",
            "User-rate limit exceeded.  Retry after 2020-01-01T00:00:00Z"
        ),
        Some(1_000)
    );
    assert_eq!(
        wait(403, &[], "dailyLimitExceeded", "Daily Limit Exceeded"),
        Some(3_600_000)
    );
    let newer = json!({ "error": { "code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED",
        "details": [{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED" }] } });
    assert_eq!(refused(429, &[], newer).retry_after_ms, Some(30_000));
}

#[test]
fn other_refusals_come_in_googles_own_words() {
    let refusal = refused(
        404,
        &[],
        error(404, "notFound", "Requested entity was not found."),
    );
    assert_eq!(
        (
            refusal.code.as_str(),
            refusal.retry_after_ms,
            refusal.credential_rejected
        ),
        ("notFound", None, false)
    );
    assert!(
        refusal
            .message
            .starts_with("Requested entity was not found.: "),
        "{}",
        refusal.message
    );
    let refusal = refused(400, &[], error(400, "invalidArgument", "Invalid To header"));
    assert_eq!(refusal.message, "Invalid To header");
    let plain = json!({ "error": { "code": 409, "message": "Label name exists or conflicts", "status": "ABORTED" } });
    assert_eq!(refused(409, &[], plain).code, "ABORTED");
}

#[test]
fn an_outage_is_a_pause_only_where_nothing_can_have_happened() {
    let outage = || error(503, "backendError", "The service is currently unavailable.");
    for (action, params) in [
        ("list_labels", json!({})),
        (
            "label_message",
            json!({ "message_id": "x", "add_label_ids": ["STARRED"] }),
        ),
        (
            "send_message",
            json!({ "to": ["ada@example.com"], "reply_to_message_id": "x" }),
        ),
    ] {
        let mut call = Conversation::new(skill, action, params);
        assert_eq!(
            call.reply(503, outage()).refusal().retry_after_ms,
            Some(30_000),
            "{action}"
        );
    }
    for (action, params) in [
        ("send_message", json!({ "to": ["ada@example.com"] })),
        ("create_draft", json!({})),
    ] {
        let failure = Conversation::new(skill, action, params)
            .reply(503, outage())
            .failure();
        assert!(
            matches!(failure, Failure::UnexpectedReply(_)),
            "{action}: {failure:?}"
        );
    }
}

#[test]
fn a_strange_reply_is_said_to_be_strange() {
    for (status, body) in [
        (400, "{}"),
        (400, "<html>"),
        (302, ""),
        (200, "no JSON"),
        (200, "{}"),
        (200, "[]"),
        (200, r#"{"id":7}"#),
    ] {
        for (action, params) in [
            ("send_message", json!({ "to": ["ada@example.com"] })),
            ("create_draft", json!({})),
            ("get_profile", json!({})),
            ("get_message", json!({ "message_id": "x" })),
            ("get_thread", json!({ "thread_id": "x" })),
            (
                "get_attachment",
                json!({ "message_id": "x", "attachment_id": "y" }),
            ),
            ("trash_message", json!({ "message_id": "x" })),
        ] {
            let mut call = Conversation::new(skill, action, params);
            let failure = call.reply_with(status, &[], body).failure();
            assert!(
                matches!(failure, Failure::UnexpectedReply(_)),
                "{action}, {status} {body}: {failure:?}"
            );
        }
    }
    let mut call = Conversation::new(skill, "search_messages", json!({}));
    call.reply(200, json!({ "messages": [{}] }));
    assert!(matches!(call.failure(), Failure::UnexpectedReply(_)));
}

#[test]
fn a_proxy_takes_googles_place() {
    let call = Conversation::new(skill, "get_profile", json!({}))
        .settings(json!({ "base_url": "https://proxy.example/" }));
    assert_eq!(
        call.request().line(),
        "GET https://proxy.example/gmail/v1/users/me/profile"
    );
}

#[test]
fn credentials_are_checked_by_their_shape() {
    let check = |key, value| Credential::check_among(&credentials(), key, value);
    assert_eq!(check(ACCESS_TOKEN, "ya29.a0AfH6SMBx-example"), Ok(()));
    assert_eq!(
        check(ACCESS_TOKEN, "ya29"),
        Err(CredentialViolation::TooShort)
    );
    assert_eq!(
        check(ACCESS_TOKEN, "ya29.a0AfH6SMBx-example\r\nX"),
        Err(CredentialViolation::WrongCharacters)
    );
    assert_eq!(
        check(CLIENT_ID, "123456789012-abc.apps.googleusercontent.com"),
        Ok(())
    );
    assert_eq!(
        check(CLIENT_ID, "GOCSPX-abcdefghijklmnop"),
        Err(CredentialViolation::WrongKind)
    );
    assert_eq!(check(CLIENT_SECRET, ""), Err(CredentialViolation::Empty));
}

#[test]
fn google_is_asked_for_a_token_that_can_be_renewed() {
    let schema = skill().credential_schema(credentials());
    let oauth = schema.fields[0].oauth.as_ref().expect("a field with OAuth");
    let keys: Vec<_> = schema
        .fields
        .iter()
        .map(|field| field.key.as_str())
        .collect();
    assert!(keys.contains(&oauth.client_id.as_str()));
    assert!(keys.contains(&oauth.client_secret.as_deref().unwrap_or_default()));
    assert!(
        oauth
            .authorize_params
            .contains(&("access_type".into(), "offline".into()))
    );
}

#[test]
fn the_same_call_asks_for_the_same_request() {
    let params = json!({ "to": ["ada@example.com"], "text": "x", "html": "y", "attachments": [{ "file_name": "a", "content_base64": "AA==" }] });
    let step = || match Conversation::new(skill, "send_message", params.clone()).step() {
        Ok(Step::Perform(request)) => request,
        other => panic!("{other:?}"),
    };
    assert_eq!(step(), step());
}

#[test]
fn every_example_runs() {
    examples_run(skill);
}
