//! Prints every request that the actions' examples lead to, for a check against the Bot API's method types.

use serde_json::json;

fn main() {
    let file = json!({ "ok": true, "result": { "file_id": "BQACAgIAAxkBAAIBQ2", "file_size": 6, "file_path": "documents/file_1.csv" } });
    let requests =
        servicetsunami_plugin::testing::requests(telegram::skill, &[("get_file", &[file])]);
    println!("{requests:#}");
}
