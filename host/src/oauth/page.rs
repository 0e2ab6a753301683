//! The page that a browser comes back to. It brings no key: the state says which sign-in it is for. It runs no script,
//! fetches nothing, and holds no secret but the code that whoever began the sign-in confirms with.

use super::flow::{Arrival, come_back};
use crate::app::App;
use axum::{
    extract::{RawQuery, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};

/// Nothing may be loaded, run, framed or sent from it.
const POLICY: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub fn callback() -> MethodRouter<App> {
    // A look at the headers must not use the state up.
    get(arrive).head(async || StatusCode::METHOD_NOT_ALLOWED)
}

async fn arrive(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    let query = zeroize::Zeroizing::new(query.unwrap_or_default());
    match come_back(&app, &query).await {
        Ok(Arrival::Confirm(code)) => page(
            StatusCode::OK,
            "Almost done",
            "Give this code to whoever sent you here, or type it where you began. If you did not mean to sign in, close this page: without the code nothing comes of it.",
            Some(&code),
        ),
        Ok(Arrival::Unknown) => page(
            StatusCode::BAD_REQUEST,
            "This sign-in is not known",
            "It was used already, or took longer than ten minutes, or was never begun. Begin again.",
            None,
        ),
        Ok(Arrival::Failed(why)) => page(
            StatusCode::BAD_REQUEST,
            "The sign-in came to nothing",
            &format!("{why} Begin again when that is put right."),
            None,
        ),
        Err(problem) => page(
            problem.status(),
            "The sign-in could not be finished",
            problem.detail(),
            None,
        ),
    }
}

fn page(status: StatusCode, title: &str, text: &str, code: Option<&str>) -> Response {
    let code = code.map_or_else(String::new, |code| {
        format!("<p><strong id=\"code\">{}</strong></p>", escaped(code))
    });
    let (title, text) = (escaped(title), escaped(text));
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title></head><body><main><h1>{title}</h1><p>{text}</p>{code}</main></body></html>\n"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ];
    (status, headers, html).into_response()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_says_is_text_on_the_page() {
        assert_eq!(
            escaped("<img src=x onerror='a(\"&\")'>"),
            "&lt;img src=x onerror=&#39;a(&quot;&amp;&quot;)&#39;&gt;"
        );
    }
}
