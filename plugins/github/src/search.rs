//! Searches. GitHub takes one text with the words and the restrictions in it; a caller gives them apart, and what it
//! gives as words stays words: it cannot widen the search beyond the repository, which a tenant may have restricted.

use crate::{
    api::{at, read_page},
    issues::{Issue, RawIssue, State},
    page::{Cursor, page},
    repository::Repository,
};
use serde::{Deserialize, Serialize};
use servicetsunami_plugin::{Call, Done, JsonSchema, Method, Stop};

/// Puts a query together: restrictions first, then the words.
struct Query(Vec<String>);

impl Query {
    fn in_repository(repository: &Repository) -> Self {
        Self(vec![format!("repo:{repository}")])
    }

    fn is(mut self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        let may_stand = |c: char| c.is_alphanumeric() || "_.-/+#".contains(c);
        if let Some(value) = value.as_ref().map(AsRef::as_ref) {
            let value = match value.chars().all(may_stand) {
                true => value.to_owned(),
                false => quoted(value),
            };
            self.0.push(format!("{name}:{value}"));
        }
        self
    }

    /// A word that GitHub could take for more than a word is quoted.
    fn words(mut self, text: &str) -> String {
        let is_word = |word: &str| {
            word.chars()
                .all(|c| c.is_alphanumeric() || "_.-".contains(c))
                && !word.starts_with('-')
                && !["and", "or", "not"].contains(&word.to_ascii_lowercase().as_str())
        };
        for word in text.split_whitespace() {
            match is_word(word) {
                true => self.0.push(word.to_owned()),
                false => self.0.push(quoted(word)),
            }
        }
        self.0.join(" ")
    }
}

/// Quotes and backslashes end no quotation: they are left out, as the index has no punctuation.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace(['"', '\\'], " "))
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    #[default]
    Issue,
    PullRequest,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    Created,
    Updated,
    Comments,
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Comments => "comments",
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchIssues {
    repository: Repository,
    /// Words of titles, texts and comments.
    #[schemars(length(min = 1, max = 256))]
    text: Option<String>,
    /// Issues unless set.
    #[serde(default)]
    kind: Kind,
    /// Both unless set.
    state: Option<State>,
    /// The author's login.
    #[schemars(regex(pattern = crate::LOGIN))]
    author: Option<String>,
    /// A login.
    #[schemars(regex(pattern = crate::LOGIN))]
    assignee: Option<String>,
    #[schemars(length(min = 1, max = 50))]
    label: Option<String>,
    /// Changed on this day or later: `2026-01-31`.
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"))]
    updated_since: Option<String>,
    /// The best match first unless set; else the newest, or the most.
    sort: Option<Order>,
    /// `next_cursor` of the page before.
    cursor: Option<Cursor>,
    /// Entries on a page, 30 unless set. GitHub finds a thousand at most.
    #[schemars(range(min = 1, max = 100))]
    per_page: Option<u8>,
}

#[derive(Deserialize)]
struct RawFound<T> {
    total_count: u64,
    incomplete_results: bool,
    items: Vec<T>,
}

#[derive(Serialize, JsonSchema)]
pub struct FoundIssues {
    total_count: u64,
    /// Whether GitHub ran out of time, and there may be more.
    incomplete: bool,
    issues: Vec<Issue>,
    next_cursor: Option<String>,
}

pub fn search_issues(call: &mut Call, params: SearchIssues) -> Result<Done<FoundIssues>, Stop> {
    let repository = &params.repository;
    let kind = match params.kind {
        Kind::Issue => "is:issue",
        Kind::PullRequest => "is:pull-request",
    };
    let mut query = Query::in_repository(repository);
    query.0.push(kind.to_owned());
    if let Some(state) = params.state {
        query.0.push(match state {
            State::Open => "state:open".to_owned(),
            State::Closed => "state:closed".to_owned(),
        });
    }
    if let Some(day) = &params.updated_since {
        query.0.push(format!("updated:>={day}"));
    }
    let query = query
        .is("author", params.author)
        .is("assignee", params.assignee)
        .is("label", params.label)
        .words(params.text.as_deref().unwrap_or_default());
    let request = at(call, Method::Get, &["search", "issues"])
        .query("q", query)
        .query_opt("sort", params.sort.map(Order::name));
    let request = page(request, params.cursor, params.per_page);
    let (raw, next_cursor) = read_page::<RawFound<RawIssue>>(call, request)?;
    let issues: Vec<Issue> = raw
        .items
        .into_iter()
        .filter(|raw| is_of(repository, raw))
        .map(RawIssue::listed)
        .collect();
    let summary = format!(
        "{} of {} found in {repository}",
        issues.len(),
        raw.total_count
    );
    let found = FoundIssues {
        total_count: raw.total_count,
        incomplete: raw.incomplete_results,
        issues,
        next_cursor,
    };
    Ok(Done::new(found, summary))
}

/// However GitHub reads the query: nothing of another repository is handed on.
fn is_of(repository: &Repository, raw: &RawIssue) -> bool {
    let url = raw.repository_url.as_deref().unwrap_or_default();
    url.rsplit_once("/repos/")
        .is_some_and(|(_, full_name)| repository.is(full_name))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchCode {
    repository: Repository,
    /// Words of the files on the default branch.
    #[schemars(length(min = 1, max = 256))]
    text: String,
    /// `rust`, `python`, ...
    #[schemars(regex(pattern = r"^[A-Za-z0-9+#. -]{1,50}$"))]
    language: Option<String>,
    /// Only files below this folder.
    #[schemars(regex(pattern = crate::PATH), length(max = 200))]
    path: Option<String>,
    /// Only files with this ending: `rs`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,20}$"))]
    extension: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<Cursor>,
    /// Files on a page; 30 unless set.
    #[schemars(range(min = 1, max = 100))]
    per_page: Option<u8>,
}

#[derive(Deserialize)]
struct RawFile {
    path: String,
    sha: String,
    html_url: String,
    repository: RawOwner,
}

#[derive(Deserialize)]
struct RawOwner {
    full_name: String,
}

#[derive(Serialize, JsonSchema)]
pub struct FoundFile {
    /// For `get_file`.
    path: String,
    sha: String,
    html_url: String,
}

#[derive(Serialize, JsonSchema)]
pub struct FoundFiles {
    total_count: u64,
    /// Whether GitHub ran out of time, and there may be more.
    incomplete: bool,
    files: Vec<FoundFile>,
    next_cursor: Option<String>,
}

pub fn search_code(call: &mut Call, params: SearchCode) -> Result<Done<FoundFiles>, Stop> {
    let repository = &params.repository;
    let query = Query::in_repository(repository)
        .is("language", params.language)
        .is("path", params.path)
        .is("extension", params.extension)
        .words(&params.text);
    let request = at(call, Method::Get, &["search", "code"]).query("q", query);
    let request = page(request, params.cursor, params.per_page);
    let (raw, next_cursor) = read_page::<RawFound<RawFile>>(call, request)?;
    let file = |raw: RawFile| FoundFile {
        path: raw.path,
        sha: raw.sha,
        html_url: raw.html_url,
    };
    let files: Vec<FoundFile> = raw
        .items
        .into_iter()
        .filter(|raw| repository.is(&raw.repository.full_name))
        .map(file)
        .collect();
    let summary = format!(
        "{} of {} found in {repository}",
        files.len(),
        raw.total_count
    );
    let found = FoundFiles {
        total_count: raw.total_count,
        incomplete: raw.incomplete_results,
        files,
        next_cursor,
    };
    Ok(Done::new(found, summary))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        let repository = Repository::try_from("octo/hello".to_owned()).expect("a name");
        Query::in_repository(&repository).words(text)
    }

    #[test]
    fn words_stay_words() {
        assert_eq!(
            words("flaky test-run v1.2"),
            "repo:octo/hello flaky test-run v1.2"
        );
        for (text, query) in [
            ("repo:other/secret", r#""repo:other/secret""#),
            ("a OR org:other", r#"a "OR" "org:other""#),
            ("(a) or b", r#""(a)" "or" b"#),
            ("-is:private NOT x", r#""-is:private" "NOT" x"#),
            (r#"" repo:other/secret ""#, r#"" " "repo:other/secret" " ""#),
            (r#"a\" repo:x/y"#, r#""a  " "repo:x/y""#),
        ] {
            assert_eq!(words(text), format!("repo:octo/hello {query}"), "{text}");
        }
    }

    #[test]
    fn a_restriction_is_one_whatever_is_in_it() {
        let repository = Repository::try_from("octo/hello".to_owned()).expect("a name");
        let query = Query::in_repository(&repository)
            .is("label", Some(r#"x" repo:"other/secret"#))
            .words("");
        assert_eq!(query, r#"repo:octo/hello label:"x  repo: other/secret""#);
    }
}
