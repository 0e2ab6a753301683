//! Prints every request that the actions' examples lead to, for a check against Google's own description.

use serde_json::json;

fn main() {
    let found = json!({ "messages": [{ "id": "18c2f0a1b2c3d4e5" }] });
    let message = json!({ "id": "18c2f0a1b2c3d4e5", "threadId": "18c2f0a1b2c3d4e5", "payload": { "headers": [
        { "name": "Message-ID", "value": "<CA+1@mail.gmail.com>" },
        { "name": "References", "value": "<CA+0@mail.gmail.com>" },
        { "name": "Subject", "value": "Q4" },
    ] } });
    let draft = json!({ "id": "r-8123456789", "message": { "id": "18c2f0a1b2c3d4e6", "payload": { "headers": [
        { "name": "To", "value": "Ada <ada@example.com>" },
    ] } } });
    let requests = servicetsunami_plugin::testing::requests(
        gmail::skill,
        &[
            ("send_message", std::slice::from_ref(&message)),
            ("create_draft", std::slice::from_ref(&message)),
            ("send_draft", &[draft]),
            ("search_messages", &[found, message.clone()]),
        ],
    );
    println!("{requests:#}");
}
