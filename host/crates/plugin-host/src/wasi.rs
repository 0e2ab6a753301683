//! Time and chance, as a plugin gets them: from the call alone. The clocks stand still at the call's `now`, and what
//! is drawn follows from its idempotency key, so a repeated call sees the same.

use crate::sandbox::State;
use sha2::{Digest, Sha256};
use wasmtime::{Result, bail, component::Resource};
use wasmtime_wasi::p2::{
    DynPollable, Pollable,
    bindings::{
        clocks::{
            monotonic_clock,
            wall_clock::{self, Datetime},
        },
        random::{insecure, insecure_seed, random},
    },
    subscribe,
};

/// What one draw may ask for, in bytes.
const DRAW_BYTES_MAX: u64 = 64 << 10;
/// The clocks tick in milliseconds, if they ticked.
const RESOLUTION_NS: u32 = 1_000_000;

/// The instant at which a call stands.
#[derive(Clone, Copy, Debug)]
pub struct Instant {
    pub unix_ms: u64,
}

/// SHA-256 over what seeds it and a counter: the same draws in the same order for the same seed.
#[derive(Debug)]
pub struct Chance {
    seed: String,
    drawn: u64,
    rest: Vec<u8>,
}

impl Chance {
    pub fn new(seed: String) -> Self {
        Self {
            seed,
            drawn: 0,
            rest: Vec::new(),
        }
    }

    fn draw(&mut self, bytes: u64) -> Result<Vec<u8>> {
        if bytes > DRAW_BYTES_MAX {
            bail!("{bytes} random bytes at once; a plugin may draw {DRAW_BYTES_MAX}");
        }
        let bytes = usize::try_from(bytes)?;
        while self.rest.len() < bytes {
            let block = Sha256::new()
                .chain_update(b"tsunami plugin chance")
                .chain_update(self.drawn.to_be_bytes())
                .chain_update(self.seed.as_bytes())
                .finalize();
            self.drawn += 1;
            self.rest.extend_from_slice(&block);
        }
        Ok(self.rest.drain(..bytes).collect())
    }

    fn draw_u64(&mut self) -> Result<u64> {
        let drawn = self.draw(8)?;
        Ok(drawn.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }
}

impl random::Host for State {
    fn get_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        self.chance.draw(len)
    }
    fn get_random_u64(&mut self) -> Result<u64> {
        self.chance.draw_u64()
    }
}

impl insecure::Host for State {
    fn get_insecure_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        self.chance.draw(len)
    }
    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        self.chance.draw_u64()
    }
}

impl insecure_seed::Host for State {
    fn insecure_seed(&mut self) -> Result<(u64, u64)> {
        Ok((self.chance.draw_u64()?, self.chance.draw_u64()?))
    }
}

impl wall_clock::Host for State {
    fn now(&mut self) -> Result<Datetime> {
        let ms = self.now.unix_ms;
        Ok(Datetime {
            seconds: ms / 1000,
            nanoseconds: u32::try_from(ms % 1000)? * 1_000_000,
        })
    }
    fn resolution(&mut self) -> Result<Datetime> {
        Ok(Datetime {
            seconds: 0,
            nanoseconds: RESOLUTION_NS,
        })
    }
}

impl monotonic_clock::Host for State {
    fn now(&mut self) -> Result<u64> {
        Ok(self.now.unix_ms.saturating_mul(1_000_000))
    }
    fn resolution(&mut self) -> Result<u64> {
        Ok(RESOLUTION_NS.into())
    }
    fn subscribe_instant(&mut self, _when: u64) -> Result<Resource<DynPollable>> {
        self.subscribe_at_once()
    }
    fn subscribe_duration(&mut self, _when: u64) -> Result<Resource<DynPollable>> {
        self.subscribe_at_once()
    }
}

impl State {
    /// Whatever a guest waits for has happened already: it cannot hold up the thread that it is called on.
    fn subscribe_at_once(&mut self) -> Result<Resource<DynPollable>> {
        let happened = self.table.push(Happened)?;
        subscribe(&mut self.table, happened)
    }
}

struct Happened;

#[wasmtime_wasi::async_trait]
impl Pollable for Happened {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_another_draws_something_else() {
        let mut one = Chance::new("call 1".into());
        let mut again = Chance::new("call 1".into());
        let mut other = Chance::new("call 2".into());
        let first = one.draw(100).unwrap();
        assert_eq!(first, again.draw(100).unwrap());
        assert_ne!(first, other.draw(100).unwrap());
        assert_ne!(first, one.draw(100).unwrap());
        assert!(one.draw(DRAW_BYTES_MAX + 1).is_err());
    }

    #[test]
    fn draws_of_any_size_follow_each_other() {
        let mut whole = Chance::new(String::new());
        let mut parts = Chance::new(String::new());
        let whole = whole.draw(70).unwrap();
        let joined = [
            parts.draw(1).unwrap(),
            parts.draw(0).unwrap(),
            parts.draw(40).unwrap(),
            parts.draw(29).unwrap(),
        ]
        .concat();
        assert_eq!(whole, joined);
    }
}
