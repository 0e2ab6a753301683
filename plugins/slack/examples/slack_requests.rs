//! Prints every request that the actions' examples lead to, for a check against Slack's own client libraries.

use serde_json::json;

fn main() {
    let uploading = [
        json!({ "ok": true, "upload_url": "https://files.slack.com/upload/v1/x", "file_id": "F1" }),
        json!({}),
    ];
    let requests =
        servicetsunami_plugin::testing::requests(slack::skill, &[("upload_file", &uploading)]);
    println!("{requests:#}");
}
