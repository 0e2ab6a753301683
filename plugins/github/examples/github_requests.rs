//! Prints every request that the actions' examples lead to, for a check against GitHub's own descriptions.

use serde_json::json;

fn main() {
    let begin = [
        json!({ "ref": "refs/heads/main", "object": { "sha": "6dcb09b5b57875f334f61aebed695e2e4193db5e" } }),
    ];
    let requests =
        servicetsunami_plugin::testing::requests(github::skill, &[("create_branch", &begin)]);
    println!("{requests:#}");
}
