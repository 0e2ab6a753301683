//! Lanes, rounds and percentiles.

use serde::{Serialize, Serializer};
use std::{
    future::Future,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How many of a way are under way at once: alone, and many.
pub const IN_FLIGHT: [usize; 2] = [1, 32];

/// What one way took in one round.
pub struct Round {
    /// In order of length.
    times: Vec<Duration>,
    together: Duration,
}

/// All rounds of one way.
#[derive(Default)]
pub struct Rounds(Vec<Round>);

impl Round {
    pub fn new(mut times: Vec<Duration>, together: Duration) -> Self {
        times.sort_unstable();
        Self { times, together }
    }

    fn p50_ms(&self) -> f64 {
        at(&self.times, 50)
    }

    fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.together.as_secs_f64()
    }
}

impl Rounds {
    pub fn push(&mut self, round: Round) {
        self.0.push(round);
    }

    pub fn count(&self) -> usize {
        self.0.iter().map(|round| round.times.len()).sum()
    }

    /// Over all rounds.
    pub fn percentile_ms(&self, percent: usize) -> f64 {
        let mut all: Vec<_> = self.0.iter().flat_map(|r| r.times.clone()).collect();
        all.sort_unstable();
        at(&all, percent)
    }

    /// Over all rounds.
    pub fn per_second(&self) -> f64 {
        let together: Duration = self.0.iter().map(|round| round.together).sum();
        self.count() as f64 / together.as_secs_f64()
    }

    /// What a p50 is above the other's of the same round.
    pub fn p50_added_ms(&self, base: &Self) -> f64 {
        self.median_beside(base, |own, base| own.p50_ms() - base.p50_ms())
    }

    /// The share of the other's speed in the same round.
    pub fn speed_ratio(&self, base: &Self) -> f64 {
        self.median_beside(base, |own, base| own.per_second() / base.per_second())
    }

    fn median_beside(&self, base: &Self, of: impl Fn(&Round, &Round) -> f64) -> f64 {
        let mut all: Vec<f64> = self.0.iter().zip(&base.0).map(|(a, b)| of(a, b)).collect();
        all.sort_unstable_by(f64::total_cmp);
        let middle = all.len() / 2;
        match all.len() % 2 {
            _ if all.is_empty() => f64::NAN,
            0 => f64::midpoint(all[middle - 1], all[middle]),
            _ => all[middle],
        }
    }
}

/// The p50 of each round: how much the machine's noise is worth.
impl Serialize for Rounds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|round| rounded(round.p50_ms())))
    }
}

fn at(sorted: &[Duration], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = (sorted.len() * percent / 100).min(last);
    sorted
        .get(index)
        .map_or(f64::NAN, |t| t.as_secs_f64() * 1000.0)
}

/// To the microsecond, which is more than is known.
pub fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Calls over `in_flight` lanes, each lane one after the other. Each lane is a task of its own, as the requests of a
/// server are.
pub async fn in_lanes<F>(
    in_flight: usize,
    calls: usize,
    call: impl Fn() -> F + Clone + Send + 'static,
) -> anyhow::Result<Round>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let began = Instant::now();
    let mut lanes = JoinSet::new();
    for _ in 0..in_flight {
        let call = call.clone();
        lanes.spawn(async move {
            let mut times = Vec::with_capacity(calls / in_flight);
            for _ in 0..calls / in_flight {
                let began = Instant::now();
                call().await?;
                times.push(began.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::with_capacity(calls);
    while let Some(lane) = lanes.join_next().await {
        times.extend(lane??);
    }
    Ok(Round::new(times, began.elapsed()))
}

/// Whose turn it is in a round: everybody's, each time from another one on.
pub fn turns(round: usize, ways: usize) -> impl Iterator<Item = usize> {
    (0..ways).map(move |turn| (round + turn) % ways)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(milliseconds: &[u64], together: u64) -> Round {
        let times = milliseconds.iter().map(|ms| Duration::from_millis(*ms));
        Round::new(times.collect(), Duration::from_millis(together))
    }

    #[test]
    fn what_is_added_is_the_median_of_the_rounds_and_not_of_the_calls() {
        let (mut base, mut own) = (Rounds::default(), Rounds::default());
        for (slow, at) in [(1, 10), (3, 500), (2, 20)] {
            base.push(round(&[at; 4], 1000));
            own.push(round(&[at + slow; 4], 2000));
        }
        assert!((own.p50_added_ms(&base) - 2.0).abs() < 1e-9);
        assert!((own.speed_ratio(&base) - 0.5).abs() < 1e-9);
        assert!((base.percentile_ms(50) - 20.0).abs() < 1e-9);
        assert!((base.per_second() - 4.0).abs() < 1e-9);
    }

    #[test]
    fn everybody_has_one_turn_a_round_and_none_is_always_first() {
        assert_eq!(turns(0, 3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(turns(4, 3).collect::<Vec<_>>(), [1, 2, 0]);
    }
}
