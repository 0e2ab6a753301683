//! How an execution can end without an answer of the service, and what may be done about it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use crate::error::{CallError, NotSent, Refusal};

/// A call without an answer of the service.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The request may have arrived. It is never sent again by itself.
    #[error("{message}")]
    OutcomeUnknown {
        /// `PROCESS_DIED`, `RESPONSE_TIMEOUT`, `JOURNAL_LOST` and so on.
        reason: String,
        /// What to do.
        message: String,
        /// When the attempt in question began, if an earlier one is.
        started_at: Option<SystemTime>,
        /// The status, if that much of an answer came.
        status: Option<u16>,
    },
    /// Not a byte was sent to the service. The same id may be sent again.
    #[error("{message}")]
    NotSent {
        /// `PRIVATE_ADDRESS`, `CONNECTION_FAILED` and so on.
        reason: String,
        /// What to do.
        message: String,
        /// Whether trying again may help.
        retryable: bool,
    },
    /// The id belongs to another request.
    #[error("the call id was used for another request; use a new id for a new request")]
    CallIdReused,
    /// The bridge did nothing and can be asked again.
    #[error("{message}")]
    Unavailable {
        /// What to do.
        message: String,
        /// When.
        retry_after: Option<Duration>,
    },
    /// The bridge does not take this request. Nothing was done.
    #[error("the bridge refused the request: {0}")]
    InvalidRequest(String),
    /// The gateway did not deliver the call or its answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// What may be done about a call without an answer. It is about this sending of the call: after one that was
/// `AskAgain`, every later one goes with `resend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing happened. The same call may be sent again, later.
    SendAgain,
    /// It is not known here what happened, and the bridge may know: send the call again with `resend`.
    /// That acts at most once.
    AskAgain,
    /// Nobody knows. A person has to look, unless the action is idempotent.
    AskPerson,
    /// Nothing happened, and sending the same again would lead to the same.
    GiveUp,
}

impl ExecuteError {
    /// What may be done about it.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::OutcomeUnknown { .. } => Advice::AskPerson,
            Self::NotSent { retryable, .. } => {
                if *retryable {
                    Advice::SendAgain
                } else {
                    Advice::GiveUp
                }
            }
            Self::Unavailable { .. } => Advice::SendAgain,
            Self::CallIdReused | Self::InvalidRequest(_) => Advice::GiveUp,
            Self::Call(error) => advice_on_delivery(error),
        }
    }
}

fn advice_on_delivery(error: &CallError) -> Advice {
    match error {
        CallError::NotConnected { .. } | CallError::NotSent(NotSent::NoTurn) => Advice::SendAgain,
        CallError::NotSent(_) => Advice::GiveUp,
        CallError::Lost | CallError::TimedOut { .. } | CallError::Protocol(_) => Advice::AskAgain,
        CallError::Refused(refusal) if refusal.retryable => Advice::SendAgain,
        CallError::Refused(refusal) if refusal.code == "UNAVAILABLE" => Advice::AskAgain,
        CallError::Refused(_) => Advice::GiveUp,
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    reason: String,
    started_at: Option<u64>,
    status: Option<u16>,
}

pub(super) fn refused(refusal: Refusal) -> ExecuteError {
    let details = refusal
        .details
        .as_deref()
        .and_then(|details| serde_json::from_str::<Details>(details.get()).ok())
        .unwrap_or_default();
    let Refusal {
        message,
        retryable,
        retry_after,
        ..
    } = refusal;
    match refusal.details_code.as_deref() {
        Some("OUTCOME_UNKNOWN") => ExecuteError::OutcomeUnknown {
            reason: details.reason,
            message,
            started_at: details
                .started_at
                .map(|ms| UNIX_EPOCH + Duration::from_millis(ms)),
            status: details.status,
        },
        Some("NOT_SENT") => ExecuteError::NotSent {
            reason: details.reason,
            message,
            retryable,
        },
        Some("CALL_ID_REUSED") => ExecuteError::CallIdReused,
        Some("UNAVAILABLE") => ExecuteError::Unavailable {
            message,
            retry_after,
        },
        Some("INVALID_REQUEST") => ExecuteError::InvalidRequest(message),
        // Not the bridge but the gateway before it, which then did not pass the call on.
        _ if refusal.code == "UNAVAILABLE" && retryable => ExecuteError::Unavailable {
            message,
            retry_after,
        },
        _ => ExecuteError::Call(CallError::Refused(Box::new(Refusal {
            message,
            retryable,
            retry_after,
            ..refusal
        }))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, value::RawValue};

    use super::*;

    fn refusal(code: &str, details: &str, retryable: bool) -> ExecuteError {
        let details_code = serde_json::from_str::<Value>(details).unwrap()["code"]
            .as_str()
            .map(String::from);
        let details = Some(RawValue::from_string(details.into()).unwrap());
        refused(Refusal {
            code: code.into(),
            details_code,
            message: "m".into(),
            retryable,
            retry_after: None,
            details,
        })
    }

    #[test]
    fn each_code_of_the_bridge_leads_to_its_own_advice() {
        let cases = [
            (
                "UNAVAILABLE",
                r#"{"code":"OUTCOME_UNKNOWN","reason":"PROCESS_DIED","startedAt":1000}"#,
                false,
                Advice::AskPerson,
            ),
            (
                "UNAVAILABLE",
                r#"{"code":"NOT_SENT","reason":"CONNECTION_FAILED"}"#,
                true,
                Advice::SendAgain,
            ),
            (
                "UNAVAILABLE",
                r#"{"code":"NOT_SENT","reason":"PRIVATE_ADDRESS"}"#,
                false,
                Advice::GiveUp,
            ),
            (
                "UNAVAILABLE",
                r#"{"code":"UNAVAILABLE"}"#,
                true,
                Advice::SendAgain,
            ),
            (
                "UNAVAILABLE",
                r#"{"reason":"gateway-restarting"}"#,
                true,
                Advice::SendAgain,
            ),
            (
                "INVALID_REQUEST",
                r#"{"code":"CALL_ID_REUSED"}"#,
                false,
                Advice::GiveUp,
            ),
            (
                "INVALID_REQUEST",
                r#"{"code":"INVALID_REQUEST"}"#,
                false,
                Advice::GiveUp,
            ),
            (
                "UNAVAILABLE",
                r#"{"reason":"a plugin failed"}"#,
                false,
                Advice::AskAgain,
            ),
            (
                "FORBIDDEN",
                r#"{"code":"MISSING_SCOPE"}"#,
                false,
                Advice::GiveUp,
            ),
        ];
        for (code, details, retryable, advice) in cases {
            assert_eq!(
                refusal(code, details, retryable).advice(),
                advice,
                "{details}"
            );
        }
    }

    #[test]
    fn an_unknown_outcome_says_since_when() {
        let error = refusal(
            "UNAVAILABLE",
            r#"{"code":"OUTCOME_UNKNOWN","reason":"PROCESS_DIED","startedAt":1500}"#,
            false,
        );
        let ExecuteError::OutcomeUnknown {
            started_at, reason, ..
        } = error
        else {
            panic!("{error:?}")
        };
        assert_eq!(started_at, Some(UNIX_EPOCH + Duration::from_millis(1500)));
        assert_eq!(reason, "PROCESS_DIED");
    }

    #[test]
    fn a_call_that_may_have_been_carried_out_is_asked_about_and_never_given_up() {
        for error in [
            CallError::Lost,
            CallError::TimedOut {
                after: Duration::ZERO,
            },
            CallError::Protocol(String::new()),
        ] {
            assert_eq!(ExecuteError::Call(error).advice(), Advice::AskAgain);
        }
    }
}
