//! The text of an HTML body, for readers that want no markup. A message is written by strangers and a call has
//! milliseconds: every byte is looked at a bounded number of times, whatever stands there.

/// Elements whose content nobody reads.
const UNREAD: [&str; 4] = ["script", "style", "title", "template"];
/// Elements that begin on a line of their own.
const BLOCKS: [&str; 20] = [
    "address",
    "article",
    "blockquote",
    "br",
    "div",
    "dt",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "p",
    "section",
    "table",
    "tr",
];
/// Named characters from U+00A0 on, in order.
const LATIN_1: [&str; 96] = [
    "nbsp", "iexcl", "cent", "pound", "curren", "yen", "brvbar", "sect", "uml", "copy", "ordf",
    "laquo", "not", "shy", "reg", "macr", "deg", "plusmn", "sup2", "sup3", "acute", "micro",
    "para", "middot", "cedil", "sup1", "ordm", "raquo", "frac14", "frac12", "frac34", "iquest",
    "Agrave", "Aacute", "Acirc", "Atilde", "Auml", "Aring", "AElig", "Ccedil", "Egrave", "Eacute",
    "Ecirc", "Euml", "Igrave", "Iacute", "Icirc", "Iuml", "ETH", "Ntilde", "Ograve", "Oacute",
    "Ocirc", "Otilde", "Ouml", "times", "Oslash", "Ugrave", "Uacute", "Ucirc", "Uuml", "Yacute",
    "THORN", "szlig", "agrave", "aacute", "acirc", "atilde", "auml", "aring", "aelig", "ccedil",
    "egrave", "eacute", "ecirc", "euml", "igrave", "iacute", "icirc", "iuml", "eth", "ntilde",
    "ograve", "oacute", "ocirc", "otilde", "ouml", "divide", "oslash", "ugrave", "uacute", "ucirc",
    "uuml", "yacute", "thorn", "yuml",
];
/// Characters of an entity's name; what is longer is text.
const ENTITY_CHARS_MAX: usize = 10;

/// Text with lines where blocks begin, and the addresses of links behind their words.
pub fn to_text(html: &str) -> String {
    let mut page = Page::default();
    let mut rest = html;
    while let Some(at) = rest.find(['<', '&']) {
        let (before, from) = rest.split_at(at);
        page.words(before);
        rest = match from.starts_with('&') {
            true => page.entity(from),
            false => page.tag(from),
        };
    }
    page.words(rest);
    page.out.trim().to_owned()
}

/// A short text with entities and no markup.
pub fn unescaped(text: &str) -> String {
    let mut page = Page::default();
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let (before, from) = rest.split_at(at);
        page.words(before);
        rest = page.entity(from);
    }
    page.words(rest);
    page.out
}

#[derive(Default)]
struct Page {
    out: String,
    /// Where the open link leads, and where its words begin in `out`.
    link: Option<(String, usize)>,
}

impl Page {
    /// White space runs together.
    fn words(&mut self, text: &str) {
        for c in text.chars() {
            match c.is_whitespace() && c != '\u{a0}' {
                true => self.space(),
                false => self.out.push(c),
            }
        }
    }

    fn space(&mut self) {
        if !self.out.ends_with([' ', '\n', '\t']) {
            self.out.push(' ');
        }
    }

    fn line(&mut self) {
        while self.out.ends_with([' ', '\t']) {
            self.out.pop();
        }
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    /// Gives what follows the entity at the beginning of `from`.
    fn entity<'x>(&mut self, from: &'x str) -> &'x str {
        let after = from.get(1..).unwrap_or_default();
        let end = after
            .bytes()
            .take(ENTITY_CHARS_MAX)
            .position(|b| !b.is_ascii_alphanumeric() && b != b'#')
            .unwrap_or(after.len().min(ENTITY_CHARS_MAX));
        let (name, rest) = after.split_at_checked(end).unwrap_or((after, ""));
        match (character(name), rest.strip_prefix(';')) {
            (Some(c), Some(rest)) => {
                match c {
                    '\u{a0}' => self.space(),
                    // Soft hyphens and joiners without width: senders hide text from filters with them.
                    '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{feff}' => {}
                    c => self.out.push(c),
                }
                rest
            }
            _ => {
                self.out.push('&');
                after
            }
        }
    }

    /// Gives what follows the tag at the beginning of `from`.
    fn tag<'x>(&mut self, from: &'x str) -> &'x str {
        if let Some(comment) = from.strip_prefix("<!--") {
            return after(comment, "-->");
        }
        let inside = from.get(1..).unwrap_or_default();
        if !inside.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) {
            self.out.push('<');
            return inside;
        }
        let Some((tag, rest)) = split_tag(inside) else {
            return "";
        };
        let closes = tag.starts_with('/');
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_lowercase())
            .collect();
        match name.as_str() {
            "a" => self.anchor(closes, tag),
            "li" if !closes => {
                self.line();
                self.out.push_str("- ");
            }
            "td" | "th" if closes => self.space(),
            block if BLOCKS.contains(&block) => self.line(),
            unread if UNREAD.contains(&unread) && !closes => return after_element(rest, unread),
            _ => {}
        }
        rest
    }

    fn anchor(&mut self, closes: bool, tag: &str) {
        if let Some((url, begin)) = self.link.take()
            && self
                .out
                .get(begin..)
                .is_some_and(|words| words.trim() != url)
        {
            self.space();
            self.out.push_str(&format!("<{url}>"));
        }
        if !closes && let Some(url) = href(tag) {
            self.link = Some((url, self.out.len()));
        }
    }
}

/// What follows `end`; nothing where it does not come.
fn after<'x>(text: &'x str, end: &str) -> &'x str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}

/// What follows the element's closing tag; nothing where there is none.
fn after_element<'x>(text: &'x str, name: &str) -> &'x str {
    let mut rest = text;
    while let Some((_, from)) = rest.split_once("</") {
        let closes = from
            .get(..name.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(name));
        if closes {
            return after(from, ">");
        }
        rest = from;
    }
    ""
}

/// A tag's inside and what follows its `>`, which may stand in quotation marks before.
fn split_tag(inside: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    let mut before = ' ';
    for (index, c) in inside.char_indices() {
        match quote {
            Some(mark) if c == mark => quote = None,
            Some(_) => {}
            None if c == '>' => return Some((inside.get(..index)?, inside.get(index + 1..)?)),
            None if matches!(c, '"' | '\'') && before == '=' => quote = Some(c),
            None => {}
        }
        if !c.is_whitespace() {
            before = c;
        }
    }
    None
}

/// Where a link leads, if that is a place for people.
fn href(tag: &str) -> Option<String> {
    let lower = tag.to_ascii_lowercase();
    let is_name = |at: &usize| {
        tag.get(..*at)
            .is_some_and(|before| before.ends_with(char::is_whitespace))
    };
    let at = lower
        .match_indices("href")
        .map(|(at, _)| at)
        .find(is_name)?;
    let value = tag
        .get(at + 4..)?
        .trim_start()
        .strip_prefix('=')?
        .trim_start();
    let url = match value.chars().next()? {
        mark @ ('"' | '\'') => value.get(1..)?.split(mark).next()?,
        _ => value.split(char::is_whitespace).next()?,
    };
    let is_place = ["https://", "http://", "mailto:"].iter().any(|scheme| {
        url.get(..scheme.len())
            .is_some_and(|s| s.eq_ignore_ascii_case(scheme))
    });
    is_place.then(|| unescaped(url))
}

fn character(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => number.parse(),
        };
        return char::from_u32(code.ok()?).filter(|c| !c.is_control());
    }
    let common = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "ndash" => '–',
        "mdash" => '—',
        "lsquo" => '‘',
        "rsquo" => '’',
        "sbquo" => '‚',
        "ldquo" => '“',
        "rdquo" => '”',
        "bdquo" => '„',
        "bull" => '•',
        "hellip" => '…',
        "euro" => '€',
        "trade" => '™',
        "rarr" => '→',
        "larr" => '←',
        "zwnj" => '\u{200c}',
        "zwj" => '\u{200d}',
        _ => {
            let index = LATIN_1.iter().position(|latin| *latin == name)?;
            return char::from_u32(0xa0 + u32::try_from(index).ok()?);
        }
    };
    Some(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_lines() {
        let html = "<html><head><title>x</title><style>p { color: red }</style></head><body><h1>Q4</h1>\n\
            <p>Closed &amp; <b>signed</b>&nbsp;off.<br>Caf&eacute; &#8364;12 &#x1F600;</p>\
            <ul><li>one</li><li>two</li></ul><table><tr><td>a</td><td>b</td></tr></table></body></html>";
        assert_eq!(
            to_text(html),
            "Q4\n\nClosed & signed off.\nCafé €12 😀\n\n- one\n- two\n\na b"
        );
    }

    #[test]
    fn links_keep_where_they_lead() {
        let html = r#"<a HREF = "https://example.com/a?x=1&amp;y=2">Confirm</a>, <a href=https://b.example>https://b.example</a>, <a href="javascript:x()">no</a>"#;
        assert_eq!(
            to_text(html),
            "Confirm <https://example.com/a?x=1&y=2>, https://b.example, no"
        );
    }

    #[test]
    fn what_is_no_markup_is_text() {
        assert_eq!(
            to_text("1 < 2 && a&b; &nosuch; &"),
            "1 < 2 && a&b; &nosuch; &"
        );
        assert_eq!(to_text(r#"<img alt="a > b" src=x>after"#), "after");
        assert_eq!(
            to_text("before<script>if (a</b) </SCRIPT >after"),
            "beforeafter"
        );
        assert_eq!(unescaped("it&#39;s <b>"), "it's <b>");
        assert_eq!(to_text("a&#0;b&#xD800;c"), "a&#0;b&#xD800;c");
    }

    /// Each takes a few milliseconds here; where a step looked at the rest again, minutes.
    #[test]
    fn hostile_pages_are_read_in_linear_time() {
        for piece in [
            "<a href=x>",
            "<td x=\"",
            "<script>",
            "</",
            "<",
            "&",
            "<!--",
            "<pre><a>",
            "&#x",
        ] {
            let page = piece.repeat(100_000);
            let began = std::time::Instant::now();
            to_text(&page);
            let took = began.elapsed();
            assert!(took.as_secs() < 5, "`{piece}`: {took:?}");
        }
    }
}
