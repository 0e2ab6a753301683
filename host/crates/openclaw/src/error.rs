//! How a call can end without an answer, told apart by whether the gateway may have acted.

use std::{fmt, time::Duration};

use serde_json::value::RawValue;

/// A call without an answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There was no usable connection within the time that a call waits for one. Nothing was sent.
    #[error("the gateway is not connected: {reason}")]
    NotConnected {
        /// What stands in the way, and what to do about it.
        reason: String,
        /// When the next attempt to connect is due.
        retry_after: Duration,
    },
    /// The call did not leave this process.
    #[error("the call was not sent: {0}")]
    NotSent(NotSent),
    /// The call was sent and the connection ended before the answer. The gateway may have acted.
    #[error(
        "the connection to the gateway was lost before it answered; the call may have been carried out"
    )]
    Lost,
    /// The call was sent and no answer came in time. The gateway may have acted, or may still do.
    #[error("the gateway did not answer within {after:?}; the call may have been carried out")]
    TimedOut {
        /// The call's deadline.
        after: Duration,
    },
    /// The gateway or a plugin of it said no.
    #[error("the gateway refused: {0}")]
    Refused(Box<Refusal>),
    /// The gateway answered with something that is not the protocol. It may have acted.
    #[error("the gateway broke the protocol: {0}; check that its version is a supported one")]
    Protocol(String),
}

/// Why a call stayed in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// Its deadline passed while it waited for its turn.
    #[error(
        "its deadline passed while it waited for its turn; allow more time or send fewer at once"
    )]
    NoTurn,
    /// Its frame would be larger than the gateway takes.
    #[error("it takes {bytes} bytes and the gateway takes {max}; send less")]
    TooLarge {
        /// Size of the frame.
        bytes: usize,
        /// The gateway's limit.
        max: usize,
    },
    /// Its parameters have no JSON form.
    #[error("its parameters cannot be written as JSON; this is a fault of the caller")]
    NotJson,
}

/// A gateway's `error` object.
#[derive(Debug)]
pub struct Refusal {
    /// The gateway's own code, such as `INVALID_REQUEST`, `FORBIDDEN`, `UNAVAILABLE`.
    pub code: String,
    /// The finer code in `details.code`, if there is one.
    pub details_code: Option<String>,
    /// For people.
    pub message: String,
    /// Whether the gateway says that trying again helps.
    pub retryable: bool,
    /// How long to wait before that.
    pub retry_after: Option<Duration>,
    /// The `details` object as JSON.
    pub details: Option<Box<RawValue>>,
}

impl Refusal {
    /// Whether this is about that code, in either place.
    #[must_use]
    pub fn is(&self, code: &str) -> bool {
        self.code == code || self.details_code.as_deref() == Some(code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.details_code.as_ref().unwrap_or(&self.code);
        write!(f, "{} ({code})", self.message)
    }
}

impl CallError {
    /// Where JSON was not as expected, without its content: an answer may hold what is nobody's business.
    pub(crate) fn protocol(what: &str, error: &serde_json::Error) -> Self {
        Self::Protocol(format!(
            "{what} has an unexpected form ({:?} error at column {})",
            error.classify(),
            error.column()
        ))
    }

    /// Whether it is certain that the gateway saw nothing of the call.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::NotConnected { .. } | Self::NotSent(_))
    }
}
