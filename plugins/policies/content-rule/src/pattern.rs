//! Regular expressions that need no backtracking: a lazy DFA, which looks at each byte of a text once.

use regex_automata::{
    Input,
    hybrid::dfa::{Cache, DFA},
    nfa::thompson::{self, WhichCaptures},
    util::syntax,
};
use regex_syntax::ast::parse::ParserBuilder;

/// Longest pattern, in characters.
const PATTERN_CHARS_MAX: usize = 500;
/// What one pattern may come to, in bytes: a repetition of repetitions is short to write and long to run.
const COMPILED_BYTES_MAX: usize = 64 << 10;
/// How deep groups and classes may stand within each other: compiling them takes stack, of which plugins have little.
const NESTING_MAX: u32 = 50;
/// What one DFA remembers of the states that it came through, in bytes; it forgets them where they are more.
const CACHE_BYTES_MAX: usize = 128 << 10;

pub struct Pattern(DFA);

impl Pattern {
    /// A pattern in the syntax of Rust's `regex`, where `\d`, `\w`, `\s` and `\b` know ASCII only, as in RE2 and
    /// JavaScript: their Unicode tables are large, and so is what a repetition of them comes to.
    pub fn new(pattern: &str, ignore_case: bool) -> Result<Self, String> {
        let chars = pattern.chars().count();
        if !(1..=PATTERN_CHARS_MAX).contains(&chars) {
            return Err(format!(
                "has {chars} characters: write 1 to {PATTERN_CHARS_MAX}, or several rules"
            ));
        }
        let mut parser = ParserBuilder::new().nest_limit(NESTING_MAX).build();
        if let Err(error) = parser.parse(pattern) {
            let at = error.span().start.column;
            return Err(format!(
                "is no regular expression: {} (at character {at})",
                error.kind()
            ));
        }
        let ascii = with_ascii_classes(pattern);
        if ascii.has_word_boundary && !pattern.is_ascii() {
            return Err(r"has `\b` beside letters that are not ASCII, which it takes for no letters of a word: leave it out, or say what may stand there, as in `(^|[^a-zß-ÿ])`".into());
        }
        Self::compiled(&ascii.pattern, ignore_case)
    }

    fn compiled(pattern: &str, ignore_case: bool) -> Result<Self, String> {
        let nfa = thompson::Compiler::new()
            .syntax(syntax::Config::new().case_insensitive(ignore_case))
            .configure(
                thompson::Config::new()
                    .nfa_size_limit(Some(COMPILED_BYTES_MAX))
                    .which_captures(WhichCaptures::None),
            )
            .build(pattern)
            .map_err(|error| match error.size_limit() {
                Some(limit) => format!("comes to more than {limit} bytes when it is compiled: repeat less, or split it into several rules"),
                None => "has a part that is not known here: classes as `\\p{Greek}` are not; list the characters, as in `[α-ω]`".into(),
            })?;
        // Without a count of how often it may forget, it never gives up.
        let config = DFA::config()
            .cache_capacity(CACHE_BYTES_MAX)
            .skip_cache_capacity_check(true);
        let dfa = DFA::builder().configure(config).build_from_nfa(nfa);
        dfa.map(Self)
            .map_err(|error| format!("cannot be used: {error}"))
    }

    /// What a search remembers; for any number of texts.
    pub fn cache(&self) -> Cache {
        self.0.create_cache()
    }

    pub fn is_in(&self, text: &str, cache: &mut Cache) -> bool {
        let found = self
            .0
            .try_search_fwd(cache, &Input::new(text).earliest(true));
        // It could fail only where it gave up or met a byte that it does not take, and it is built to do neither.
        found.expect("a DFA that never gives up").is_some()
    }
}

struct Ascii {
    pattern: String,
    has_word_boundary: bool,
}

/// The same pattern with its classes and word boundaries written as those of ASCII. A class may stand within another.
fn with_ascii_classes(pattern: &str) -> Ascii {
    let mut ascii = Ascii {
        pattern: String::with_capacity(pattern.len()),
        has_word_boundary: false,
    };
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('\\') {
        ascii.pattern.push_str(before);
        let escape = Escape::at_start_of(after);
        match escape {
            Escape::Class(class) => ascii.pattern.push_str(class),
            Escape::WordBoundary(length) => {
                let boundary = after.get(..length).unwrap_or_default();
                ascii.pattern.push_str(&format!(r"(?-u:\{boundary})"));
                ascii.has_word_boundary = true;
            }
            Escape::Other(length) => {
                ascii.pattern.push('\\');
                ascii
                    .pattern
                    .push_str(after.get(..length).unwrap_or_default());
            }
        }
        rest = after.get(escape.length()..).unwrap_or_default();
    }
    ascii.pattern.push_str(rest);
    ascii
}

/// What follows a backslash, by its length in bytes.
enum Escape {
    Class(&'static str),
    WordBoundary(usize),
    Other(usize),
}

impl Escape {
    fn at_start_of(text: &str) -> Self {
        match text.chars().next() {
            Some('d') => Self::Class("[[:digit:]]"),
            Some('D') => Self::Class("[[:^digit:]]"),
            Some('w') => Self::Class("[[:word:]]"),
            Some('W') => Self::Class("[[:^word:]]"),
            Some('s') => Self::Class("[[:space:]]"),
            Some('S') => Self::Class("[[:^space:]]"),
            // `\b{start}` and its like.
            Some('b') if text.starts_with("b{start") || text.starts_with("b{end") => {
                Self::WordBoundary(text.find('}').map_or(1, |end| end + 1))
            }
            Some('b' | 'B' | '<' | '>') => Self::WordBoundary(1),
            other => Self::Other(other.map_or(0, char::len_utf8)),
        }
    }

    fn length(&self) -> usize {
        match self {
            Self::Class(_) => 1,
            Self::WordBoundary(length) | Self::Other(length) => *length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(pattern: &str, text: &str) -> bool {
        finds_ignoring(false, pattern, text)
    }

    fn finds_ignoring(case: bool, pattern: &str, text: &str) -> bool {
        let pattern = Pattern::new(pattern, case).expect("a pattern");
        pattern.is_in(text, &mut pattern.cache())
    }

    fn refused(pattern: &str) -> String {
        Pattern::new(pattern, false).err().expect("it is refused")
    }

    #[test]
    fn what_a_pattern_finds() {
        let cases = [
            ("b", "abc", true),
            ("^b", "abc", false),
            ("^abc$", "abc", true),
            ("^abc$", "abc\n", false),
            ("(?m)^b$", "a\nb\nc", true),
            ("a.c", "a\nc", false),
            ("(?s)a.c", "a\nc", true),
            (r"\d{4}", "in 2026", true),
            (r"\d", "٣", false),
            (r"[\d-]+x", "1-2x", true),
            (r"[^\d]", "123", false),
            (r"\D", "123", false),
            (r"\D", "12é", true),
            (r"^[\D]$", "é", true),
            (r"^\S+$", "a b", false),
            (r"\s", "a\u{b}b", true),
            (r"^\w+$", "snake_case1", true),
            (r"^\w+$", "señor", false),
            (r"\W", "señor", true),
            (r"\bkey\b", "a key.", true),
            (r"\bkey\b", "monkey", false),
            (r"\Bkey", "monkey", true),
            (r"\b{start}key", "a key", true),
            (r"\b{end}key", "a key", false),
            (r"\\d", r"a\d", true),
            (r"\\d", "1", false),
            (r"\.", "a", false),
            (r"\x41", "A", true),
            ("[à-ü]", "señor", true),
            ("^.{5}$", "señor", true),
        ];
        for (pattern, text, found) in cases {
            assert_eq!(finds(pattern, text), found, "{pattern} in {text:?}");
        }
    }

    #[test]
    fn case_is_ignored_of_every_alphabet() {
        for (pattern, text) in [
            ("secret", "SeCrEt"),
            ("übernahme", "ÜBERNAHME"),
            ("[ä-ü]", "Ö"),
        ] {
            assert!(finds_ignoring(true, pattern, text), "{pattern}");
            assert!(!finds_ignoring(false, pattern, text), "{pattern}");
        }
        assert!(finds_ignoring(true, r"(?-i)a", "a") && !finds_ignoring(true, r"(?-i)a", "A"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_what_to_mend() {
        let long = "a".repeat(PATTERN_CHARS_MAX + 1);
        let cases = [
            ("", "has 0 characters: write 1 to 500"),
            (long.as_str(), "has 501 characters"),
            (
                "a(b",
                "is no regular expression: unclosed group (at character 2)",
            ),
            ("[z-a]", "invalid character class range"),
            ("a{5,2}", "invalid repetition count range"),
            (r"(a)\1", "backreferences are not supported"),
            (
                "(?=a)b",
                "look-around, including look-ahead and look-behind, is not supported",
            ),
            ("(?:a{100}){100}", "comes to more than 65536 bytes"),
            ("((a{50}){50}){50}", "comes to more than 65536 bytes"),
            (r"\p{Greek}", r"classes as `\p{Greek}` are not"),
            (
                r"\bÜbernahme\b",
                r"has `\b` beside letters that are not ASCII",
            ),
            (r"[\b]", "invalid escape sequence found in character class"),
        ];
        for (pattern, complaint) in cases {
            let said = refused(pattern);
            assert!(said.contains(complaint), "{pattern}: {said}");
        }
        let nested = |depth: usize| format!("{}{}", "(".repeat(depth), ")".repeat(depth));
        let deepest = NESTING_MAX as usize;
        assert!(Pattern::new(&nested(deepest), false).is_ok());
        let said = refused(&nested(deepest + 1));
        assert!(said.contains("nest"), "{said}");
    }

    #[test]
    fn a_pattern_that_backtracking_would_never_end_ends() {
        let text = format!("{}!", "a".repeat(100_000));
        for pattern in ["^(a+)+$", "^(a|aa)+$", "(a*)*b", "(x+x+)+y"] {
            assert!(!finds(pattern, &text), "{pattern}");
        }
    }

    #[test]
    fn what_a_search_forgets_it_finds_all_the_same() {
        // The DFA of this pattern has 2^12 states and more, which do not fit into its cache.
        let pattern = Pattern::new("[ab]*a[ab]{12}c", false).expect("a pattern");
        let mut cache = pattern.cache();
        let mut bits: u32 = 1;
        let mut text: String = (0..50_000)
            .map(|_| {
                bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if bits >> 31 == 0 { 'a' } else { 'b' }
            })
            .collect();
        assert!(!pattern.is_in(&text, &mut cache));
        text.push_str("abbbbbbbbbbbbc");
        assert!(pattern.is_in(&text, &mut cache));
        assert!(cache.clear_count() > 0);
        assert!(
            cache.memory_usage() <= 2 * CACHE_BYTES_MAX,
            "{}",
            cache.memory_usage()
        );
    }
}
