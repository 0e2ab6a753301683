use super::*;
use servicetsunami_plugin::{
    CredentialViolation, Failure, Refusal,
    testing::{Conversation, examples_run},
};

const TO: &str = "+16505551234";
const NUMBER: &str = "106540352242922";
const MEDIA: &str = "1013859600285441";

fn call(action: &str, params: Value) -> Conversation {
    let settings = json!({ "phone_number_id": NUMBER, "business_account_id": "102290129340398" });
    Conversation::new(skill, action, params).settings(settings)
}

fn refusal_of(status: u16, headers: &[(&str, &str)], error: Value) -> Refusal {
    let mut call = call("send_text", json!({ "to": TO, "text": "x" }));
    call.reply_with(status, headers, json!({ "error": error }).to_string())
        .refusal()
}

fn error(code: u64, message: &str, details: &str) -> Value {
    json!({ "message": message, "type": "OAuthException", "code": code, "error_data": { "messaging_product": "whatsapp", "details": details }, "fbtrace_id": "Az8or2yhqkZfEZ-_4Qn_Bam" })
}

fn pointer_of(action: &str, params: Value) -> String {
    match call(action, params).failure() {
        Failure::InvalidParams(violations) => violations[0].pointer.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_text_goes_from_the_number_of_the_setting_or_the_call() {
    let params = json!({ "to": TO, "text": "hello", "reply_to_message_id": "wamid.1" });
    let mut sending = call("send_text", params);
    let request = sending.request();
    assert_eq!(
        request.line(),
        "POST https://graph.facebook.com/v26.0/106540352242922/messages"
    );
    assert_eq!(
        request.header("authorization").as_deref(),
        Some("Bearer {access_token}")
    );
    assert_eq!(
        request.json(),
        json!({ "messaging_product": "whatsapp", "recipient_type": "individual", "to": TO, "type": "text",
            "text": { "body": "hello" }, "context": { "message_id": "wamid.1" } })
    );
    let reply = json!({ "messaging_product": "whatsapp", "contacts": [{ "input": TO, "wa_id": "16505551234" }],
        "messages": [{ "id": "wamid.2", "message_status": "accepted" }] });
    let done = sending.reply(200, reply).finish();
    assert_eq!(
        done.output,
        json!({ "message_id": "wamid.2", "wa_id": "16505551234", "status": "accepted" })
    );
    assert_eq!(done.summary, "sent to +16505551234");

    let other = call(
        "send_text",
        json!({ "to": TO, "text": "x", "phone_number_id": "99999" }),
    );
    assert!(other.request().url().contains("/99999/"));
    let settings = json!({ "phone_number_id": NUMBER, "api_version": "v25.0", "base_url": "https://proxy.example/meta/" });
    let proxied = call("send_text", json!({ "to": TO, "text": "x" })).settings(settings);
    assert_eq!(
        proxied.request().line(),
        "POST https://proxy.example/meta/v25.0/106540352242922/messages"
    );
}

#[test]
fn a_number_that_nobody_named_is_asked_for() {
    for (action, params, pointer) in [
        (
            "send_text",
            json!({ "to": TO, "text": "x" }),
            "/phone_number_id",
        ),
        ("get_profile", json!({}), "/phone_number_id"),
        ("list_templates", json!({}), "/business_account_id"),
    ] {
        let failure = Conversation::new(skill, action, params).failure();
        assert!(
            matches!(&failure, Failure::InvalidParams(v) if v[0].pointer == pointer),
            "{action}: {failure:?}"
        );
    }
}

#[test]
fn a_template_is_filled_in_part_by_part() {
    let request = call(
        "send_template",
        json!({
            "to": TO, "name": "order_shipped", "language": "de",
            "header": { "image": { "media_id": MEDIA } },
            "body": [{ "text": "Ada", "name": "customer" }],
            "buttons": [{ "index": 1, "kind": "url", "value": "4711" }],
        }),
    )
    .request();
    assert_eq!(
        request.json()["template"],
        json!({ "name": "order_shipped", "language": { "code": "de" }, "components": [
            { "type": "header", "parameters": [{ "type": "image", "image": { "id": MEDIA } }] },
            { "type": "body", "parameters": [{ "type": "text", "parameter_name": "customer", "text": "Ada" }] },
            { "type": "button", "sub_type": "url", "index": 1, "parameters": [{ "type": "text", "text": "4711" }] },
        ] })
    );
    let plain = call(
        "send_template",
        json!({ "to": TO, "name": "hello_world", "language": "en_US" }),
    )
    .request();
    assert_eq!(plain.json()["template"].get("components"), None);
}

#[test]
fn a_file_is_given_in_one_way_and_with_what_its_kind_has() {
    let send = |kind: &str, more: Value| {
        let mut params = json!({ "to": TO, "kind": kind });
        for (key, value) in more.as_object().into_iter().flatten() {
            params[key] = value.clone();
        }
        params
    };
    let link = "https://example.com/a";
    assert_eq!(pointer_of("send_media", send("image", json!({}))), "/link");
    assert_eq!(
        pointer_of(
            "send_media",
            send("image", json!({ "link": link, "media_id": MEDIA }))
        ),
        "/link"
    );
    assert_eq!(
        pointer_of(
            "send_media",
            send("audio", json!({ "link": link, "caption": "x" }))
        ),
        "/caption"
    );
    assert_eq!(
        pointer_of(
            "send_media",
            send("image", json!({ "link": link, "file_name": "x" }))
        ),
        "/file_name"
    );
    assert_eq!(
        pointer_of(
            "send_template",
            json!({ "to": TO, "name": "a", "language": "en", "header": { "video": {} } })
        ),
        "/header/video/link"
    );
    let video = call(
        "send_media",
        send("video", json!({ "link": link, "caption": "Q4" })),
    )
    .request();
    assert_eq!(
        video.json()["video"],
        json!({ "link": link, "caption": "Q4" })
    );
}

#[test]
fn a_message_is_marked_as_read() {
    let mut marking = call(
        "mark_read",
        json!({ "message_id": "wamid.1", "show_typing": true }),
    );
    assert_eq!(
        marking.request().json(),
        json!({ "messaging_product": "whatsapp", "status": "read", "message_id": "wamid.1", "typing_indicator": { "type": "text" } })
    );
    assert_eq!(
        marking
            .reply(200, json!({ "success": true }))
            .finish()
            .output,
        json!({})
    );
}

#[test]
fn a_file_is_uploaded_in_a_form() {
    let params =
        json!({ "file_name": "a.txt", "content_type": "text/plain", "content_base64": "aGVsbG8=" });
    let mut uploading = call("upload_media", params);
    let request = uploading.request();
    assert_eq!(
        request.line(),
        "POST https://graph.facebook.com/v26.0/106540352242922/media"
    );
    let names: Vec<_> = request
        .form()
        .iter()
        .map(|field| field.name.as_str())
        .collect();
    assert_eq!(names, ["messaging_product", "type", "file"]);
    assert_eq!(
        request.form()[2].content_type.as_deref(),
        Some("text/plain")
    );
    assert_eq!(
        uploading.reply(200, json!({ "id": MEDIA })).finish().output,
        json!({ "media_id": MEDIA, "bytes": 5 })
    );
    let with = |name: &str, kind: &str, content: &str| json!({ "file_name": name, "content_type": kind, "content_base64": content });
    assert_eq!(
        pointer_of("upload_media", with("a\r\nb", "text/plain", "AAAA")),
        "/file_name"
    );
    assert_eq!(
        pointer_of("upload_media", with("a", "text/plain\r\nX: y", "AAAA")),
        "/content_type"
    );
    assert_eq!(
        pointer_of("upload_media", with("a", "text/plain", "????")),
        "/content_base64"
    );
}

fn place(url: &str, bytes: Value) -> Value {
    json!({ "messaging_product": "whatsapp", "url": url, "mime_type": "image/jpeg", "sha256": "ab", "file_size": bytes, "id": MEDIA })
}

#[test]
fn a_file_is_fetched_with_the_token_from_metas_host_alone() {
    let url = "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1&ext=2&hash=3";
    let mut reading = call("download_media", json!({ "media_id": MEDIA }));
    assert_eq!(
        reading.request().line(),
        "GET https://graph.facebook.com/v26.0/1013859600285441?phone_number_id=106540352242922"
    );
    reading.reply(200, place(url, json!("5")));
    let request = reading.request();
    assert_eq!(request.line(), format!("GET {url}"));
    assert_eq!(
        request.header("authorization").as_deref(),
        Some("Bearer {access_token}")
    );
    let done = reading
        .reply_with(200, &[], b"\xff\x00ab\n".to_vec())
        .finish();
    assert_eq!(
        done.output,
        json!({ "mime_type": "image/jpeg", "content_base64": "/wBhYgo=", "bytes": 5 })
    );
    for other in [
        "https://evil.example/x",
        "https://lookaside.fbsbx.com.evil.example/x",
        "http://lookaside.fbsbx.com/x",
        "https://lookaside.fbsbx.com@evil.example/",
    ] {
        let mut reading = call("download_media", json!({ "media_id": MEDIA }));
        let failure = reading.reply(200, place(other, json!(5))).failure();
        assert!(
            matches!(failure, Failure::UnexpectedReply(_)),
            "{other}: {failure:?}"
        );
    }
}

#[test]
fn a_file_that_is_too_large_is_not_fetched() {
    let url = "https://lookaside.fbsbx.com/x";
    let mut reading = call("download_media", json!({ "media_id": MEDIA }));
    assert_eq!(
        reading
            .reply(200, place(url, json!(750_001)))
            .refusal()
            .code,
        "file_too_large"
    );
    let mut reading = call("download_media", json!({ "media_id": MEDIA }));
    reading.reply(200, place(url, json!(5)));
    assert_eq!(
        reading
            .reply_with(200, &[], vec![0; 750_001])
            .refusal()
            .code,
        "file_too_large"
    );
    let mut looking = call("get_media", json!({ "media_id": MEDIA }));
    assert_eq!(
        looking
            .reply(200, place(url, json!("61901")))
            .finish()
            .output,
        json!({ "media_id": MEDIA, "url": url, "mime_type": "image/jpeg", "bytes": 61901, "sha256": "ab" })
    );
}

#[test]
fn templates_show_what_is_to_be_filled_in_and_name_the_next_page() {
    let mut listing = call(
        "list_templates",
        json!({ "status": "IN_APPEAL", "cursor": "MjQZD", "limit": 5 }),
    );
    assert_eq!(
        listing.request().line(),
        "GET https://graph.facebook.com/v26.0/102290129340398/message_templates?fields=id%2Cname%2Clanguage%2Cstatus%2Ccategory%2Cparameter_format%2Ccomponents&status=IN_APPEAL&limit=5&after=MjQZD"
    );
    let template = json!({ "id": "1", "name": "order_shipped", "language": "de", "status": "APPROVED", "category": "UTILITY",
        "parameter_format": "POSITIONAL", "components": [
            { "type": "BODY", "text": "Hallo {{1}}", "example": { "body_text": [["Ada"]] } },
            { "type": "BUTTONS", "buttons": [{ "type": "URL", "text": "Ansehen", "url": "https://example.com/{{1}}" }] },
        ] });
    let paging =
        |next: Value| json!({ "cursors": { "before": "MAZDZD", "after": "MjQ1" }, "next": next });
    let page = |paging: Value| json!({ "data": [template], "paging": paging });
    let output = listing
        .reply(200, page(paging(json!("https://graph.facebook.com/..."))))
        .finish()
        .output;
    assert_eq!(
        output,
        json!({ "next_cursor": "MjQ1", "templates": [{
            "id": "1", "name": "order_shipped", "language": "de", "status": "APPROVED", "category": "UTILITY", "parameter_format": "POSITIONAL",
            "components": [
                { "kind": "BODY", "format": null, "text": "Hallo {{1}}", "buttons": [] },
                { "kind": "BUTTONS", "format": null, "text": null, "buttons": [{ "kind": "URL", "text": "Ansehen", "url": "https://example.com/{{1}}" }] },
            ],
        }] })
    );
    let mut listing = call("list_templates", json!({}));
    assert_eq!(
        listing
            .reply(200, page(paging(Value::Null)))
            .finish()
            .output["next_cursor"],
        Value::Null
    );
}

#[test]
fn the_profile_is_read_and_changed() {
    let mut reading = call("get_profile", json!({}));
    let profile = json!({ "data": [{ "about": "Hi", "websites": ["https://example.com/"], "vertical": "RETAIL", "messaging_product": "whatsapp" }] });
    let output = reading.reply(200, profile).finish().output;
    assert_eq!(
        (&output["about"], &output["websites"], &output["email"]),
        (&json!("Hi"), &json!(["https://example.com/"]), &Value::Null)
    );
    let mut changing = call(
        "update_profile",
        json!({ "about": "Hi", "phone_number_id": "99999" }),
    );
    assert_eq!(
        changing.request().line(),
        "POST https://graph.facebook.com/v26.0/99999/whatsapp_business_profile"
    );
    assert_eq!(
        changing.request().json(),
        json!({ "about": "Hi", "messaging_product": "whatsapp" })
    );
    assert_eq!(
        changing
            .reply(200, json!({ "success": true }))
            .finish()
            .output,
        json!({})
    );
    assert_eq!(
        pointer_of("update_profile", json!({ "phone_number_id": "99999" })),
        ""
    );
}

#[test]
fn a_rejected_token_is_said_to_be_rejected() {
    let expired = error(
        190,
        "Error validating access token: Session has expired",
        "",
    );
    let refusal = refusal_of(401, &[], expired.clone());
    assert!(
        refusal.credential_rejected && refusal.code == "190",
        "{refusal:?}"
    );
    assert!(refusal_of(400, &[], expired).credential_rejected);
    let lacking = refusal_of(
        403,
        &[],
        error(
            10,
            "(#10) Application does not have permission for this action",
            "",
        ),
    );
    assert!(
        !lacking.credential_rejected && lacking.message.contains("whatsapp_business_messaging"),
        "{lacking:?}"
    );
}

#[test]
fn each_rate_limit_has_its_own_pause() {
    let wait = |status, headers: &[(&str, &str)], code| {
        refusal_of(status, headers, error(code, "limit", "")).retry_after_ms
    };
    assert_eq!(wait(429, &[], 130_429), Some(5_000));
    assert_eq!(wait(400, &[], 131_056), Some(6_000));
    assert_eq!(wait(400, &[], 131_048), Some(3_600_000));
    assert_eq!(wait(400, &[], 80_007), Some(300_000));
    assert_eq!(wait(429, &[("Retry-After", "9")], 999), Some(9_000));
    let usage = r#"{"102290129340398":[{"type":"whatsapp","call_count":100,"estimated_time_to_regain_access":19},{"estimated_time_to_regain_access":2}]}"#;
    assert_eq!(
        wait(429, &[("X-Business-Use-Case-Usage", usage)], 80_007),
        Some(19 * 60_000)
    );
    assert_eq!(
        wait(
            429,
            &[(
                "X-App-Usage",
                r#"{"call_count":100,"estimated_time_to_regain_access":3}"#
            )],
            4
        ),
        Some(3 * 60_000)
    );
    assert_eq!(wait(429, &[("X-App-Usage", "no JSON")], 4), Some(300_000));
    assert_eq!(wait(400, &[], 131_047), None);
}

#[test]
fn other_refusals_come_in_metas_own_words() {
    let refusal = refusal_of(
        400,
        &[],
        error(
            131_047,
            "(#131047) Re-engagement message",
            "Message failed to send because more than 24 hours have passed",
        ),
    );
    assert_eq!(
        (
            refusal.code.as_str(),
            refusal.retry_after_ms,
            refusal.credential_rejected
        ),
        ("131047", None, false)
    );
    assert!(refusal.message.starts_with("(#131047) Re-engagement message: Message failed to send because more than 24 hours have passed: "), "{}", refusal.message);
    assert!(refusal.message.contains("send_template"));
    assert_eq!(
        refusal_of(400, &[], json!({ "code": 999, "message": "something new" })).message,
        "something new"
    );
    let busy = refusal_of(500, &[], error(131_000, "Something went wrong", ""));
    assert_eq!(
        (busy.code.as_str(), busy.retry_after_ms),
        ("131000", None),
        "whether it was sent is not said"
    );
}

#[test]
fn an_outage_is_a_pause_only_where_nothing_can_have_happened() {
    assert_eq!(
        call("get_profile", json!({}))
            .reply_with(503, &[], "<html>")
            .refusal()
            .retry_after_ms,
        Some(30_000)
    );
    let reading = |code| {
        let mut reading = call("get_profile", json!({}));
        reading
            .reply(500, json!({ "error": error(code, "no", "") }))
            .refusal()
    };
    assert_eq!(reading(131_016).retry_after_ms, Some(30_000));
    assert_eq!(
        (reading(3).code.as_str(), reading(3).retry_after_ms),
        ("3", None)
    );
    let failure = call("send_text", json!({ "to": TO, "text": "x" }))
        .reply_with(503, &[], "<html>")
        .failure();
    assert!(
        matches!(failure, Failure::UnexpectedReply(_)),
        "{failure:?}"
    );
}

#[test]
fn a_strange_reply_is_said_to_be_strange() {
    for (status, body) in [
        (200, "<html>"),
        (200, "[]"),
        (200, "{}"),
        (200, r#"{"messages":[],"data":7,"success":"yes"}"#),
        (400, "{}"),
        (302, ""),
    ] {
        for (action, params) in [
            ("send_text", json!({ "to": TO, "text": "x" })),
            ("mark_read", json!({ "message_id": "wamid.1" })),
            (
                "upload_media",
                json!({ "file_name": "a", "content_type": "text/plain", "content_base64": "AAAA" }),
            ),
            ("get_media", json!({ "media_id": MEDIA })),
            ("delete_media", json!({ "media_id": MEDIA })),
            ("list_templates", json!({})),
            ("list_phone_numbers", json!({})),
            ("get_profile", json!({})),
            ("update_profile", json!({ "about": "x" })),
        ] {
            let failure = call(action, params).reply_with(status, &[], body).failure();
            assert!(
                matches!(failure, Failure::UnexpectedReply(_)),
                "{action}, {status} {body}: {failure:?}"
            );
        }
    }
}

#[test]
fn a_token_is_checked_by_its_shape() {
    let check = |value: &str| Credential::check_among(&credentials(), ACCESS_TOKEN, value);
    let token = format!("EAAG{}", "a".repeat(60));
    assert_eq!(check(&token), Ok(()));
    assert_eq!(
        check(&format!("Bearer {token}")),
        Err(CredentialViolation::WrongCharacters)
    );
    assert_eq!(check(&token[1..]), Err(CredentialViolation::WrongPrefix));
    assert_eq!(check("EAAG"), Err(CredentialViolation::TooShort));
    assert_eq!(check(""), Err(CredentialViolation::Empty));
}

#[test]
fn every_example_runs() {
    examples_run(skill);
}
