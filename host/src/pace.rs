//! A request's body comes at a pace, or is given up: who sends it a byte at a time would have the others wait.

use crate::config::HttpConfig;
use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// What has come earns further time: a second for so many bytes. So a component of 24 MiB may take minutes, and an
/// ordinary body hardly more than its own time.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// How long a body is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// For its next byte.
    pause: Duration,
    /// For the whole of it, beside what was earned.
    whole: Duration,
}

impl Pace {
    pub fn new(http: &HttpConfig) -> Self {
        Self {
            pause: Duration::from_secs(http.body_pause_seconds.into()),
            whole: Duration::from_secs(http.body_timeout_seconds.into()),
        }
    }

    /// The request whose body fails with [`TooSlow`] where it comes slower than this.
    pub fn kept_by(self, request: Request) -> Request {
        if request.body().is_end_stream() {
            return request;
        }
        request.map(|body| Body::new(Paced::new(body, self)))
    }
}

/// Why the body was given up.
#[derive(Debug, thiserror::Error)]
#[error("the body comes too slowly")]
pub struct TooSlow;

struct Paced {
    body: Body,
    pace: Pace,
    /// Counts from when somebody first wants the body, not from the request: what came before is no fault of the client.
    begun: Option<Instant>,
    came_bytes: u64,
    until: Pin<Box<Sleep>>,
}

impl Paced {
    fn new(body: Body, pace: Pace) -> Self {
        Self {
            body,
            pace,
            begun: None,
            came_bytes: 0,
            until: Box::pin(sleep_until(Instant::now())),
        }
    }

    fn wait_anew(&mut self) {
        let now = Instant::now();
        let begun = *self.begun.get_or_insert(now);
        let earned = Duration::from_secs(self.came_bytes / BYTES_PER_SECOND_MIN);
        let end = begun + self.pace.whole + earned;
        self.until.as_mut().reset(end.min(now + self.pace.pause));
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        if self.begun.is_none() {
            self.wait_anew();
        }
        if let Poll::Ready(next) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(Ok(frame)) = &next {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.came_bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
                self.wait_anew();
            }
            return Poll::Ready(next);
        }
        ready!(self.until.as_mut().poll(context));
        Poll::Ready(Some(Err(axum::Error::new(TooSlow))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::read_body;
    use axum::http::StatusCode;
    use futures::stream;

    const SOON: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(3600);

    /// The bytes that arrive of a body in so many pieces, with a wait before each, or what its sender is told.
    async fn read(pace: [Duration; 2], pieces: [usize; 2], wait: Duration) -> Result<usize, u16> {
        let [pause, whole] = pace;
        let [count, bytes] = pieces;
        let pieces = stream::unfold(0, move |sent| async move {
            tokio::time::sleep(wait).await;
            (sent < count).then(|| (Ok::<_, TooSlow>(vec![b'x'; bytes]), sent + 1))
        });
        let request = Request::new(Body::from_stream(pieces));
        let read = read_body(Pace { pause, whole }.kept_by(request), 64 << 20).await;
        read.map(|bytes| bytes.len()).map_err(|told| {
            assert_eq!(told.code(), "body_too_slow");
            told.status().as_u16()
        })
    }

    #[tokio::test]
    async fn a_body_has_a_time_for_its_next_byte_and_one_for_the_whole() {
        let too_slow = Err(StatusCode::REQUEST_TIMEOUT.as_u16());
        let tick = Duration::from_millis(10);
        assert_eq!(read([LONG, LONG], [5, 10], tick).await, Ok(50));
        assert_eq!(read([SOON, LONG], [5, 10], LONG).await, too_slow, "silent");
        assert_eq!(read([LONG, SOON], [9000, 10], tick).await, too_slow);
        let upload = read([LONG, SOON], [12, 64 << 10], 4 * tick).await;
        assert_eq!(upload, Ok(12 * (64 << 10)), "what comes earns time");
    }
}
