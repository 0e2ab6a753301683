//! A text in every spelling that it may be written in, to search for it.

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::general_purpose::{GeneralPurpose, NO_PAD},
};
use memchr::memmem::Finder;
use serde_json::Value;

pub struct Spellings(Vec<Finder<'static>>);

impl Spellings {
    pub fn of(text: &str) -> Self {
        let mut all: Vec<Vec<u8>> = vec![text.into()];
        all.extend(base64(text));
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        all.extend([hex.to_uppercase().into(), hex.into()]);
        all.extend(percent_encoded(text));
        // As it is in a JSON text, and in a JSON text within one; with and without its other characters spelled out.
        let json = quoted(text);
        all.extend([quoted(&json).into(), ascii(&json).into(), json.into()]);
        all.sort();
        all.dedup();
        Self(
            all.iter()
                .map(|one| Finder::new(one).into_owned())
                .collect(),
        )
    }

    pub fn are_in(&self, bytes: &[u8]) -> bool {
        self.0.iter().any(|one| one.find(bytes).is_some())
    }
}

/// Base64 of the text wherever it begins in a longer one: without the characters that its neighbours have a part in.
fn base64(text: &str) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for alphabet in [STANDARD, URL_SAFE] {
        let engine = GeneralPurpose::new(&alphabet, NO_PAD);
        for before in 0..3 {
            let bytes = [&vec![0; before], text.as_bytes()].concat();
            let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
            all.push(engine.encode(&bytes)[first..end].into());
        }
    }
    all
}

fn percent_encoded(text: &str) -> Vec<Vec<u8>> {
    let spell = |upper: bool, space: &str| -> Vec<u8> {
        let one = |byte: u8| match byte {
            b' ' => space.to_owned(),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ if upper => format!("%{byte:02X}"),
            _ => format!("%{byte:02x}"),
        };
        text.bytes().map(one).collect::<String>().into()
    };
    let spaces = ["%20", "+"];
    let both = |space| [spell(true, space), spell(false, space)];
    spaces.into_iter().flat_map(both).collect()
}

/// Without the quotes around it.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    json[1..json.len() - 1].to_owned()
}

fn ascii(json: &str) -> String {
    let spell = |character: char| match character.is_ascii() {
        true => character.to_string(),
        false => {
            let mut units = [0; 2];
            let units = character.encode_utf16(&mut units).iter();
            units.map(|unit| format!("\\u{unit:04x}")).collect()
        }
    };
    json.chars().map(spell).collect()
}

/// That each is found, whatever stands around it.
pub fn are_found() {
    let text = "a \"b\"/\u{fc}?cd";
    let spellings = Spellings::of(text);
    for around in ["", "x", "xy"] {
        let whole = format!("{around}{text}{around}");
        let standard = base64::prelude::BASE64_STANDARD.encode(&whole);
        let url = base64::prelude::BASE64_URL_SAFE.encode(&whole);
        for said in [&whole, &standard, &url] {
            assert!(spellings.are_in(said.as_bytes()), "{said}");
        }
    }
    for said in [
        "a%20%22b%22%2F%C3%BC%3Fcd",
        "a+%22b%22%2f%c3%bc%3fcd",
        "a \\\"b\\\"/\u{fc}?cd",
        "a \\\\\\\"b\\\\\\\"/\u{fc}?cd",
        "a \\\"b\\\"/\\u00fc?cd",
        "61202262222fc3bc3f6364",
        "61202262222FC3BC3F6364",
    ] {
        assert!(spellings.are_in(said.as_bytes()), "{said}");
    }
    assert!(!spellings.are_in(b"a \"b\""));
}
