//! How long to wait between attempts to connect.

use std::time::Duration;

/// Doubles from attempt to attempt, with jitter, so that clients of a gateway that restarts do not come
/// back all at once. The first wait is short: most connections are lost for a moment only.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    initial: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, initial: Duration, max: Duration) -> Self {
        Self {
            first,
            initial,
            max,
            failures: 0,
        }
    }

    /// After a connection that lasted.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn next(&mut self) -> Duration {
        let base = match self.failures {
            0 => self.first,
            n => self
                .initial
                .saturating_mul(1 << (n - 1).min(16))
                .min(self.max),
        };
        self.failures = self.failures.saturating_add(1);
        jittered(base)
    }
}

/// Between half of a duration and all of it.
pub(crate) fn jittered(base: Duration) -> Duration {
    // Without randomness from the system there is no jitter, which is no reason to stop trying.
    let share = getrandom::u32().unwrap_or(u32::MAX);
    base.mul_f64(0.5 + 0.5 * f64::from(share) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const INITIAL: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(30);

    #[test]
    fn waits_grow_from_a_short_first_one_to_the_limit() {
        let mut backoff = Backoff::new(FIRST, INITIAL, MAX);
        for base in
            [100, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000].map(Duration::from_millis)
        {
            let wait = backoff.next();
            assert!(base / 2 <= wait && wait <= base, "{wait:?} for {base:?}");
        }
    }

    #[test]
    fn after_a_connection_that_lasted_it_begins_anew() {
        let mut backoff = Backoff::new(FIRST, INITIAL, MAX);
        backoff.next();
        backoff.next();
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }

    #[test]
    fn it_never_overflows() {
        let mut backoff = Backoff::new(FIRST, INITIAL, MAX);
        backoff.failures = u32::MAX - 1;
        assert!(backoff.next() <= MAX);
        assert!(backoff.next() <= MAX);
    }
}
