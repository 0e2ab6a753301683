use super::*;
use serde_json::Value;
use servicetsunami_plugin::{
    Failure, Refusal,
    testing::{Conversation, examples_run},
};

const CHAT: &str = "-1001234567890";

fn ok(result: Value) -> Value {
    json!({ "ok": true, "result": result })
}

fn refusal_of(status: u16, description: &str, parameters: Value) -> Refusal {
    let mut call = Conversation::new(
        skill,
        "send_message",
        json!({ "chat_id": CHAT, "text": "x" }),
    );
    let body = json!({ "ok": false, "error_code": status, "description": description, "parameters": parameters });
    call.reply(status, body).refusal()
}

fn pointer_of(action: &str, params: Value) -> String {
    match Conversation::new(skill, action, params).failure() {
        Failure::InvalidParams(violations) => violations[0].pointer.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_token_stands_in_the_path_by_reference() {
    let params = json!({ "chat_id": CHAT, "text": "hello", "reply_to_message_id": 42, "disable_link_preview": true });
    let request = Conversation::new(skill, "send_message", params).request();
    assert_eq!(
        request.line(),
        "POST https://api.telegram.org/bot{bot_token}/sendMessage"
    );
    assert_eq!(
        request.json(),
        json!({ "chat_id": CHAT, "text": "hello", "reply_parameters": { "message_id": 42 }, "link_preview_options": { "is_disabled": true } })
    );
    let proxied = Conversation::new(skill, "get_me", json!({}))
        .settings(json!({ "base_url": "https://bots.example/" }));
    assert_eq!(
        proxied.request().line(),
        "POST https://bots.example/bot{bot_token}/getMe"
    );
}

#[test]
fn a_sent_message_gives_its_place() {
    let mut call = Conversation::new(
        skill,
        "send_message",
        json!({ "chat_id": "@finance_news", "text": "x" }),
    );
    let done = call.reply(200, ok(json!({ "message_id": 7, "chat": { "id": -1_001_234_567_890_i64, "type": "channel" }, "date": 1, "text": "x" }))).finish();
    assert_eq!(
        done.output,
        json!({ "chat_id": CHAT, "message_id": 7, "file_id": null })
    );
    assert_eq!(done.summary, "sent to @finance_news");
}

#[test]
fn buttons_are_rows_of_links() {
    let params = json!({ "chat_id": CHAT, "text": "x", "buttons": [[{ "text": "Open", "url": "https://example.com" }]] });
    let request = Conversation::new(skill, "send_message", params).request();
    assert_eq!(
        request.json()["reply_markup"],
        json!({ "inline_keyboard": [[{ "text": "Open", "url": "https://example.com" }]] })
    );
}

#[test]
fn a_file_from_here_travels_in_a_form() {
    let params = json!({ "chat_id": CHAT, "content_base64": "aGVsbG8=", "file_name": "a.txt", "reply_to_message_id": 42, "disable_notification": true });
    let mut call = Conversation::new(skill, "send_document", params);
    let request = call.request();
    assert_eq!(
        request.line(),
        "POST https://api.telegram.org/bot{bot_token}/sendDocument"
    );
    let fields: Vec<_> = request
        .form()
        .iter()
        .map(|field| (field.name.clone(), field.file_name.clone(), text_of(field)))
        .collect();
    let field = |name: &str, file: Option<&str>, text: &str| {
        (name.to_owned(), file.map(str::to_owned), text.to_owned())
    };
    assert_eq!(
        fields,
        [
            field("chat_id", None, CHAT),
            field("disable_notification", None, "true"),
            field("reply_parameters", None, r#"{"message_id":42}"#),
            field("document", Some("a.txt"), "hello"),
        ]
    );
    let message =
        json!({ "message_id": 8, "chat": { "id": 5 }, "document": { "file_id": "BQACAgIAAx" } });
    let done = call.reply(200, ok(message)).finish();
    assert_eq!(
        done.output,
        json!({ "chat_id": "5", "message_id": 8, "file_id": "BQACAgIAAx" })
    );
}

fn text_of(
    field: &servicetsunami_plugin::wit::exports::servicetsunami::plugin::skill_adapter::FormField,
) -> String {
    use servicetsunami_plugin::Part;
    let text = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    };
    field.parts.iter().map(text).collect()
}

#[test]
fn a_photo_elsewhere_is_named_and_its_largest_size_kept() {
    let params = json!({ "chat_id": CHAT, "file": "https://example.com/a.png" });
    let mut call = Conversation::new(skill, "send_photo", params);
    assert_eq!(
        call.request().json(),
        json!({ "chat_id": CHAT, "photo": "https://example.com/a.png" })
    );
    let message = json!({ "message_id": 8, "chat": { "id": 5 }, "photo": [{ "file_id": "small" }, { "file_id": "large" }] });
    assert_eq!(
        call.reply(200, ok(message)).finish().output["file_id"],
        "large"
    );
}

#[test]
fn no_file_of_the_server_itself_is_sent() {
    let with = |file: &str| json!({ "chat_id": CHAT, "file": file });
    for place in [
        "file:///etc/passwd",
        "/etc/passwd",
        "attach://x",
        "FILE:///etc/passwd",
        "https://a b",
        "../x",
    ] {
        assert_eq!(pointer_of("send_document", with(place)), "/file", "{place}");
    }
}

#[test]
fn a_file_is_given_in_one_way() {
    let content = "aGVsbG8=";
    assert_eq!(
        pointer_of("send_photo", json!({ "chat_id": CHAT })),
        "/file"
    );
    assert_eq!(
        pointer_of(
            "send_photo",
            json!({ "chat_id": CHAT, "file": "AAAAAAAAAA", "content_base64": content, "file_name": "a" })
        ),
        "/file"
    );
    assert_eq!(
        pointer_of(
            "send_photo",
            json!({ "chat_id": CHAT, "content_base64": content })
        ),
        "/file_name"
    );
    assert_eq!(
        pointer_of(
            "send_photo",
            json!({ "chat_id": CHAT, "content_base64": "?", "file_name": "a" })
        ),
        "/content_base64"
    );
    for name in ["a\r\nX: y", "a;b", "a\"b", "a/b"] {
        assert_eq!(
            pointer_of(
                "send_photo",
                json!({ "chat_id": CHAT, "content_base64": content, "file_name": name })
            ),
            "/file_name",
            "{name}"
        );
    }
}

#[test]
fn a_change_that_changes_nothing_is_done() {
    let edit = || {
        Conversation::new(
            skill,
            "edit_message",
            json!({ "chat_id": CHAT, "message_id": 7, "text": "x" }),
        )
    };
    assert_eq!(
        edit().reply(200, ok(json!({}))).finish().output["is_changed"],
        true
    );
    let same = json!({ "ok": false, "error_code": 400, "description": "Bad Request: message is not modified: specified new message content and reply markup are exactly the same" });
    assert_eq!(
        edit().reply(400, same).finish().output,
        json!({ "chat_id": CHAT, "message_id": 7, "is_changed": false })
    );
}

#[test]
fn updates_are_told_apart_and_name_the_next_page() {
    let mut call = Conversation::new(
        skill,
        "get_updates",
        json!({ "cursor": 10, "kinds": ["message", "edited_message"] }),
    );
    assert_eq!(
        call.request().json(),
        json!({ "offset": 10, "limit": 30, "timeout": 0, "allowed_updates": ["message", "edited_message"] })
    );
    let chat = json!({ "id": -100, "type": "supergroup", "title": "Finance" });
    let from = json!({ "id": 5, "is_bot": false, "first_name": "Ada", "last_name": "Lovelace", "username": "ada" });
    let updates = json!([
        { "update_id": 10, "message": { "message_id": 1, "date": 1_795_705_200, "chat": chat, "from": from, "text": "hi", "reply_to_message": { "message_id": 9 } } },
        { "update_id": 11, "channel_post": { "message_id": 2, "chat": chat, "caption": "Q4", "document": { "file_id": "BQ", "file_name": "q4.pdf", "mime_type": "application/pdf", "file_size": 3 } } },
        { "update_id": 12, "poll_answer": { "poll_id": "1" } },
    ]);
    let done = call.reply(200, ok(updates)).finish();
    let nobody = Value::Null;
    assert_eq!(
        done.output,
        json!({
            "next_cursor": 13,
            "updates": [
                { "update_id": 10, "kind": "message", "message": {
                    "message_id": 1, "chat_id": "-100", "chat_title": "Finance", "chat_type": "supergroup", "date": 1_795_705_200,
                    "from": { "id": "5", "name": "Ada Lovelace", "username": "ada", "is_bot": false }, "text": "hi",
                    "message_thread_id": null, "reply_to_message_id": 9, "file": null } },
                { "update_id": 11, "kind": "channel_post", "message": {
                    "message_id": 2, "chat_id": "-100", "chat_title": "Finance", "chat_type": "supergroup", "date": null,
                    "from": nobody, "text": "Q4", "message_thread_id": null, "reply_to_message_id": null,
                    "file": { "file_id": "BQ", "kind": "document", "file_name": "q4.pdf", "mime_type": "application/pdf", "bytes": 3 } } },
                { "update_id": 12, "kind": "poll_answer", "message": null },
            ],
        })
    );
    let mut call = Conversation::new(skill, "get_updates", json!({}));
    assert_eq!(
        call.reply(200, ok(json!([]))).finish().output,
        json!({ "updates": [], "next_cursor": null })
    );
}

#[test]
fn the_longest_updates_fit_an_answer() {
    let text = "\"\\".repeat(8_000);
    let update = |n: usize| json!({ "update_id": n, "message": { "message_id": n, "chat": { "id": 1 }, "text": text } });
    let updates: Vec<Value> = (1..=30).map(update).collect();
    let mut call = Conversation::new(skill, "get_updates", json!({}));
    assert!(
        call.reply(200, ok(json!(updates)))
            .finish()
            .output
            .to_string()
            .len()
            < 1 << 20
    );
}

#[test]
fn a_file_is_fetched_from_where_it_is() {
    let mut call = Conversation::new(skill, "get_file", json!({ "file_id": "BQACAgIAAx" }));
    assert_eq!(
        call.request().line(),
        "POST https://api.telegram.org/bot{bot_token}/getFile"
    );
    call.reply(
        200,
        ok(json!({ "file_id": "BQACAgIAAx", "file_size": 5, "file_path": "documents/file 1.txt" })),
    );
    assert_eq!(
        call.request().line(),
        "GET https://api.telegram.org/file/bot{bot_token}/documents/file%201.txt"
    );
    let done = call.reply_with(200, &[], b"\xff\x00ab\n".to_vec()).finish();
    assert_eq!(
        done.output,
        json!({ "file_name": "file 1.txt", "content_base64": "/wBhYgo=", "bytes": 5 })
    );
}

#[test]
fn a_file_that_is_too_large_or_elsewhere_is_not_fetched() {
    let asked = |place: Value| {
        let mut call = Conversation::new(skill, "get_file", json!({ "file_id": "BQACAgIAAx" }));
        call.reply(200, ok(place)).failure()
    };
    assert!(
        matches!(asked(json!({ "file_size": 750_001, "file_path": "a" })), Failure::Refused(r) if r.code == "file_too_large")
    );
    for path in ["/var/lib/bot/a", "../a", "a//b", ""] {
        assert!(
            matches!(
                asked(json!({ "file_path": path })),
                Failure::UnexpectedReply(_)
            ),
            "{path}"
        );
    }
    let mut call = Conversation::new(skill, "get_file", json!({ "file_id": "BQACAgIAAx" }));
    call.reply(200, ok(json!({ "file_path": "a" })));
    assert_eq!(
        call.reply_with(200, &[], vec![0; 750_001]).refusal().code,
        "file_too_large"
    );
}

#[test]
fn chats_and_members_are_looked_up() {
    let mut call = Conversation::new(skill, "get_chat", json!({ "chat_id": "@finance_news" }));
    let chat = json!({ "id": -100, "type": "channel", "title": "Finance", "username": "finance_news", "description": "News", "pinned_message": { "message_id": 3 } });
    assert_eq!(
        call.reply(200, ok(chat)).finish().output,
        json!({ "chat_id": "-100", "kind": "channel", "title": "Finance", "username": "finance_news", "description": "News", "is_forum": false, "pinned_message_id": 3 })
    );
    let mut call = Conversation::new(skill, "list_administrators", json!({ "chat_id": CHAT }));
    let members = json!([{ "status": "creator", "user": { "id": 5, "is_bot": false, "first_name": "Ada" }, "custom_title": "CFO" }]);
    assert_eq!(
        call.reply(200, ok(members)).finish().output,
        json!({ "members": [{ "status": "creator", "title": "CFO", "person": { "id": "5", "name": "Ada", "username": null, "is_bot": false } }] })
    );
}

#[test]
fn a_rejected_token_is_said_to_be_rejected() {
    for (status, said) in [(401, "Unauthorized"), (404, "Not Found")] {
        let refusal = refusal_of(status, said, Value::Null);
        assert!(refusal.credential_rejected, "{refusal:?}");
        assert_eq!(refusal.code, status.to_string());
    }
}

#[test]
fn a_rate_limit_says_how_long_to_wait() {
    let refusal = refusal_of(
        429,
        "Too Many Requests: retry after 35",
        json!({ "retry_after": 35 }),
    );
    assert_eq!(
        (refusal.code.as_str(), refusal.retry_after_ms),
        ("429", Some(35_000))
    );
    assert_eq!(
        refusal_of(429, "Too Many Requests", Value::Null).retry_after_ms,
        Some(5_000)
    );
}

#[test]
fn other_refusals_come_in_telegrams_own_words() {
    let refusal = refusal_of(400, "Bad Request: chat not found", Value::Null);
    assert_eq!(
        (
            refusal.code.as_str(),
            refusal.retry_after_ms,
            refusal.credential_rejected
        ),
        ("400", None, false)
    );
    assert!(
        refusal.message.starts_with("Bad Request: chat not found: "),
        "{}",
        refusal.message
    );
    assert!(
        refusal_of(403, "Forbidden: bot was blocked by the user", Value::Null)
            .message
            .contains("unblock")
    );
    let moved = refusal_of(
        400,
        "Bad Request: group chat was upgraded to a supergroup chat",
        json!({ "migrate_to_chat_id": -1_001_111_i64 }),
    );
    assert!(moved.message.contains("-1001111"), "{}", moved.message);
    assert_eq!(
        refusal_of(400, "Bad Request: something new", Value::Null).message,
        "Bad Request: something new"
    );
}

#[test]
fn an_outage_is_a_pause_only_where_nothing_can_have_happened() {
    let outage = json!({ "ok": false, "error_code": 502, "description": "Bad Gateway" });
    let mut reading = Conversation::new(skill, "get_me", json!({}));
    assert_eq!(
        reading.reply(502, outage.clone()).refusal().retry_after_ms,
        Some(5_000)
    );
    let mut reading = Conversation::new(skill, "get_me", json!({}));
    assert_eq!(
        reading
            .reply_with(502, &[], "<html>")
            .refusal()
            .retry_after_ms,
        Some(5_000)
    );
    let mut writing = Conversation::new(
        skill,
        "send_message",
        json!({ "chat_id": CHAT, "text": "x" }),
    );
    assert!(matches!(
        writing.reply(502, outage).failure(),
        Failure::UnexpectedReply(_)
    ));
}

#[test]
fn a_strange_reply_is_said_to_be_strange() {
    for body in [
        "<html>",
        "[]",
        "{}",
        r#"{"ok":false}"#,
        r#"{"ok":true}"#,
        r#"{"ok":true,"result":{}}"#,
        r#"{"ok":"yes","result":[]}"#,
    ] {
        for (action, params) in [
            ("send_message", json!({ "chat_id": CHAT, "text": "x" })),
            (
                "send_document",
                json!({ "chat_id": CHAT, "file": "AAAAAAAAAA" }),
            ),
            ("get_updates", json!({})),
            ("get_file", json!({ "file_id": "AAAAAAAAAA" })),
            ("get_chat", json!({ "chat_id": CHAT })),
            ("list_administrators", json!({ "chat_id": CHAT })),
            ("get_member", json!({ "chat_id": CHAT, "user_id": 5 })),
            ("get_me", json!({})),
        ] {
            let mut call = Conversation::new(skill, action, params);
            let failure = call.reply_with(200, &[], body).failure();
            assert!(
                matches!(failure, Failure::UnexpectedReply(_)),
                "{action}, {body}: {failure:?}"
            );
        }
    }
}

#[test]
fn a_token_is_checked_by_its_shape() {
    let check = |value: &str| Credential::check_among(&credentials(), BOT_TOKEN, value);
    let secret = "A".repeat(35);
    assert_eq!(check(&format!("123456789:{secret}")), Ok(()));
    assert_eq!(
        check(&format!("bot123456789:{secret}")),
        Err(CredentialViolation::WrongKind)
    );
    assert_eq!(
        check(&format!("123456789{secret}")),
        Err(CredentialViolation::WrongKind)
    );
    assert_eq!(check("123456789:short"), Err(CredentialViolation::TooShort));
    assert_eq!(
        check(&format!("123456789:{secret}/../x")),
        Err(CredentialViolation::WrongCharacters)
    );
    assert_eq!(check(""), Err(CredentialViolation::Empty));
}

#[test]
fn every_example_runs() {
    examples_run(skill);
}
