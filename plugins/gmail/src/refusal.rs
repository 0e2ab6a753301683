//! How Gmail says no (<https://developers.google.com/workspace/gmail/api/guides/handle-errors>): a status, a reason
//! in `error.errors[]` or `error.details[]`, and a message.

use serde_json::Value;
use servicetsunami_plugin::{Reply, Stop};

/// Waited where Gmail asks to slow down without saying for how long, in milliseconds.
const RETRY_AFTER_DEFAULT_MS: u64 = 30_000;
/// Waited where the project has used up its day, in milliseconds.
const RETRY_AFTER_DAY_MS: u64 = 3_600_000;

/// The body of a reply that says yes; the refusal in Google's own words otherwise.
pub fn accepted(reply: &Reply, now_ms: u64) -> Result<Value, Stop> {
    if reply.is_success() {
        return reply.json();
    }
    let body: Value = reply.parse()?;
    let error = &body["error"];
    let Some(message) = error["message"].as_str() else {
        return Err(Stop::unexpected(format!(
            "status {} without `error.message`",
            reply.status()
        )));
    };
    let reason = reason(error);
    let code = reason.or(error["status"].as_str()).unwrap_or("unknown");
    Err(match (reply.status(), code) {
        (401, _) => Stop::credential_rejected(
            code,
            format!(
                "Google does not accept the access token ({message}); sign in again, or store a new token"
            ),
        ),
        (_, "dailyLimitExceeded" | "quotaExceeded") => {
            Stop::later(code, said(message, code), RETRY_AFTER_DAY_MS)
        }
        (429, _) | (_, "rateLimitExceeded" | "userRateLimitExceeded" | "RATE_LIMIT_EXCEEDED") => {
            Stop::later(code, said(message, code), pause_ms(reply, message, now_ms))
        }
        (500.., _) => Stop::unexpected(format!(
            "status {} with `{code}`: {message}",
            reply.status()
        )),
        _ => Stop::refused(code, said(message, code)),
    })
}

/// Nothing can have happened, and the same request may work later.
pub fn outage(reply: &Reply) -> Stop {
    let pause = reply.retry_after_ms().unwrap_or(RETRY_AFTER_DEFAULT_MS);
    Stop::later(reply.status().to_string(), "Gmail has an outage", pause)
}

/// The older errors name it in `errors`, the newer ones in `details` of the type `ErrorInfo`.
fn reason(error: &Value) -> Option<&str> {
    let details = error["details"].as_array().into_iter().flatten();
    let errors = error["errors"].as_array().into_iter().flatten();
    let named = |item: &'_ Value| item["reason"].as_str().is_some();
    let first = errors.chain(details).find(|item| named(item))?;
    first["reason"].as_str()
}

/// The header, a time in the message (`Retry after 2026-11-26T15:00:00.000Z`), or half a minute.
fn pause_ms(reply: &Reply, message: &str, now_ms: u64) -> u64 {
    let named = message
        .split_once("Retry after ")
        .and_then(|(_, time)| unix_ms(time))
        .map(|at| at.saturating_sub(now_ms).max(1000));
    reply
        .retry_after_ms()
        .or(named)
        .unwrap_or(RETRY_AFTER_DEFAULT_MS)
}

/// `2026-11-26T15:00:00.000Z` at the beginning of a text (RFC 3339 in UTC), rounded up to whole seconds.
fn unix_ms(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let marks = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")];
    if !marks
        .iter()
        .all(|(at, mark)| text.get(*at..).is_some_and(|rest| rest.starts_with(mark)))
    {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // Days since 1970-01-01 of a year that begins in March, so that the leap day is its last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 719_469;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second + 1;
    u64::try_from(seconds.checked_mul(1000)?).ok()
}

/// What to do about the errors that people meet; Google's own message for the others.
fn said(message: &str, code: &str) -> String {
    let hint = match code {
        "insufficientPermissions" | "ACCESS_TOKEN_SCOPE_INSUFFICIENT" => {
            "sign in again and agree to the scope https://www.googleapis.com/auth/gmail.modify"
        }
        "accessNotConfigured" | "SERVICE_DISABLED" => {
            "switch the Gmail API on in the Google Cloud project of the OAuth client"
        }
        "domainPolicy" => "an administrator of the Google Workspace must allow this application",
        "failedPrecondition" => {
            "the account has no Gmail, or the request does not fit the state of what it names"
        }
        "notFound" => "nothing in this mailbox has that id",
        "dailyLimitExceeded" | "quotaExceeded" => {
            "the Google Cloud project has used up its quota for the day"
        }
        "rateLimitExceeded" | "userRateLimitExceeded" | "RATE_LIMIT_EXCEEDED" => {
            "Gmail asks to slow down"
        }
        _ => return message.to_owned(),
    };
    format!("{message}: {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_a_message_is_read_up_to_the_second() {
        assert_eq!(unix_ms("1970-01-01T00:00:00Z"), Some(1000));
        assert_eq!(
            unix_ms("2026-11-26T15:00:00.250Z and more"),
            Some(1_795_705_201_000)
        );
        assert_eq!(unix_ms("2024-02-29T23:59:59Z"), Some(1_709_251_200_000));
        assert_eq!(unix_ms("2024-03-01T00:00:00Z"), Some(1_709_251_201_000));
        for strange in [
            "",
            "soon",
            "2026-11-26",
            "2026-11-26 15:00:00",
            "9999-99-9öT99:99:99",
            "-001-01-01T00:00:00Z",
        ] {
            assert_eq!(unix_ms(strange), None, "{strange}");
        }
    }
}
