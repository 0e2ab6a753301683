//! Prints every request that the actions' examples lead to, for a check against a client library.

use serde_json::json;

fn main() {
    let place = json!({
        "messaging_product": "whatsapp", "url": "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1&ext=2&hash=3",
        "mime_type": "image/jpeg", "sha256": "00", "file_size": "5", "id": "1013859600285441",
    });
    let requests =
        servicetsunami_plugin::testing::requests(whatsapp::skill, &[("download_media", &[place])]);
    println!("{requests:#}");
}
