//! Prints every request that the actions' examples lead to, for a check against Notion's own client library.

fn main() {
    let requests = servicetsunami_plugin::testing::requests(notion::skill, &[]);
    println!("{requests:#}");
}
