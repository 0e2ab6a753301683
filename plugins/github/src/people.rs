//! Who did it, and texts that people wrote.

use serde::Deserialize;

/// Characters of a text that a list repeats.
const EXCERPT_CHARS_MAX: usize = 300;

/// An account; none where it was deleted.
#[derive(Deserialize)]
pub struct Login {
    pub login: Option<String>,
}

pub fn name_of(account: Option<Login>) -> Option<String> {
    account?.login
}

pub fn names_of(accounts: Vec<Login>) -> Vec<String> {
    accounts.into_iter().filter_map(|a| a.login).collect()
}

/// The beginning of a text, for lists.
pub fn excerpt(text: Option<String>) -> Option<String> {
    cut(text, EXCERPT_CHARS_MAX)
}

/// At most so many characters of it; an ellipsis stands for the rest.
pub fn cut(text: Option<String>, chars_max: usize) -> Option<String> {
    let mut text = text.filter(|text| !text.is_empty())?;
    if let Some((end, _)) = text.char_indices().nth(chars_max) {
        text.truncate(end);
        text.push('…');
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut(Some("éé".into()), 2).as_deref(), Some("éé"));
        assert_eq!(cut(Some("ééé".into()), 2).as_deref(), Some("éé…"));
        assert_eq!(cut(Some(String::new()), 2), None);
    }
}
