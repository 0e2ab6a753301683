//! Which plugins are not run any more, as this process knows it.
//!
//! The list is in the database. A notification makes each host read it at once; it is read every two seconds anyway, so
//! a lost notification costs two. A host that hears nothing of the database for longer than
//! `marketplace.revocations_stale_seconds` no longer calls what others published: it could not know.

use super::{signing, store};
use crate::{
    app::App,
    db::{Db, TenantTx},
    id::{PublisherKeyId, ReleaseId},
    plugins::Origin,
    problem::{Problem, RETRY_AFTER_DEFAULT},
};
use moka::sync::Cache;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How often the list is read where nothing is notified.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Between two attempts at listening for notifications.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// How long reading the list may take. A connection that hangs must not look like word from the database.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Releases whose signature was found to hold in this process.
const VERIFIED_MAX: u64 = 100_000;

/// Cheap to clone.
#[derive(Clone)]
pub struct Revocations(Arc<Inner>);

struct Inner {
    db: Db,
    stale_after: Duration,
    state: RwLock<State>,
    /// One reads at a time; it holds when the last attempt began.
    reading: tokio::sync::Mutex<Option<Instant>>,
    /// Releases whose signature holds.
    verified: Cache<ReleaseId, Verified>,
    is_watched: AtomicBool,
}

/// That a release is of these bytes, and which key says so.
#[derive(Clone)]
struct Verified {
    digest: String,
    key: PublisherKeyId,
}

#[derive(Default)]
struct State {
    known: Arc<Known>,
    /// When the list that is known was asked for.
    read_at: Option<Instant>,
}

/// The list, as it was read.
#[derive(Default)]
pub(super) struct Known {
    /// Nothing is ever taken off the list, so it is another one when these are.
    pub counts: (i64, i64),
    /// Not run whatever they came by, with the reason.
    pub digests: HashMap<String, String>,
    pub releases: HashMap<ReleaseId, String>,
    pub keys: HashSet<PublisherKeyId>,
}

impl Revocations {
    pub fn new(db: Db, stale_after: Duration) -> Self {
        Self(Arc::new(Inner {
            db,
            stale_after,
            state: RwLock::default(),
            reading: tokio::sync::Mutex::new(None),
            verified: Cache::new(VERIFIED_MAX),
            is_watched: AtomicBool::new(false),
        }))
    }

    /// Whether the operator revoked a component, as far as is known here.
    pub fn is_revoked(&self, digest: &str) -> bool {
        self.known().digests.contains_key(digest)
    }

    /// Refuses a component that the operator revoked, as far as is known here.
    ///
    /// # Errors
    /// 409
    pub fn refuse_revoked(&self, digest: &str) -> Result<(), Problem> {
        match self.known().digests.get(digest) {
            Some(reason) => Err(revoked(&format!("The plugin was revoked: {reason}"))),
            None => Ok(()),
        }
    }

    /// Whether a component may be loaded and called now; also where the list has to be read first, or the signature
    /// was not looked at yet.
    ///
    /// # Errors
    /// 409 where it is revoked or its signature does not hold, 503 where nobody knows.
    pub async fn admit(&self, tx: &mut TenantTx, origin: &Origin) -> Result<(), Problem> {
        // Right after the start nobody has read it yet. Later on whoever watches does, and no call waits for that.
        if self.age().is_none() {
            let now = Instant::now();
            self.read_if_nobody_did(now.checked_sub(POLL_INTERVAL).unwrap_or(now))
                .await;
        }
        if let Some(release) = origin.release
            && self.key_of(release, &origin.digest).is_none()
        {
            let key = signing::check_stored(tx, release, &origin.digest).await?;
            let digest = origin.digest.clone();
            let verified = Verified { digest, key };
            self.0.verified.insert(release, verified);
        }
        self.check(origin)
    }

    /// Whether [`Revocations::check`] says all of it: there is nothing to read or to verify first.
    pub fn knows(&self, origin: &Origin) -> bool {
        let verified = |release| self.key_of(release, &origin.digest).is_some();
        self.age().is_some() && origin.release.is_none_or(verified)
    }

    /// Which key signed that the release is of these bytes, where that was looked at here.
    fn key_of(&self, release: ReleaseId, digest: &str) -> Option<PublisherKeyId> {
        let verified = self.0.verified.get(&release)?;
        (verified.digest == digest).then_some(verified.key)
    }

    /// The same, by what is known here already: between two steps of a call.
    ///
    /// # Errors
    /// As [`Revocations::admit`].
    pub fn check(&self, origin: &Origin) -> Result<(), Problem> {
        self.refuse_revoked(&origin.digest)?;
        let known = self.known();
        let release = origin.release;
        if let Some(reason) = release.and_then(|release| known.releases.get(&release)) {
            return Err(revoked(&format!("The plugin was revoked: {reason}")));
        }
        let Some(release) = release else {
            return Ok(());
        };
        let key = self.key_of(release, &origin.digest);
        if key.is_some_and(|key| known.keys.contains(&key)) {
            return Err(revoked(
                "The publisher has revoked the key that the plugin was signed with",
            ));
        }
        if self.age().is_none_or(|age| age > self.0.stale_after) {
            return Err(Problem::unavailable(
                "The list of revoked plugins",
                RETRY_AFTER_DEFAULT,
            ));
        }
        Ok(())
    }

    fn known(&self) -> Arc<Known> {
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        state.known.clone()
    }

    fn age(&self) -> Option<Duration> {
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        state.read_at.map(|at| at.elapsed())
    }

    /// Reads the list, unless an attempt has begun since `asked`.
    async fn read_if_nobody_did(&self, asked: Instant) {
        let mut last_attempt = self.0.reading.lock().await;
        if last_attempt.is_some_and(|at| at >= asked) {
            return;
        }
        let began = Instant::now();
        *last_attempt = Some(began);
        if let Err(error) = self.read(began).await {
            tracing::warn!(%error, "the list of revoked plugins cannot be read");
        }
    }

    async fn read(&self, began: Instant) -> Result<(), Problem> {
        let seen = self.known().counts;
        let read = async {
            let mut tx = self.0.db.system().await?;
            match store::revocation_counts(&mut tx).await? {
                counts if counts == seen => Ok(None),
                counts => store::known_revocations(&mut tx, counts).await.map(Some),
            }
        };
        let read: Result<_, sqlx::Error> = tokio::time::timeout(READ_TIMEOUT, read)
            .await
            .map_err(|_| Problem::unavailable("The database", RETRY_AFTER_DEFAULT))?;
        let newer = read?;
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = newer {
            tracing::info!(
                digests = known.digests.len(),
                releases = known.releases.len(),
                keys = known.keys.len(),
                "the list of revoked plugins has changed"
            );
            state.known = Arc::new(known);
        }
        state.read_at = Some(began);
        Ok(())
    }
}

impl std::fmt::Debug for Revocations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Revocations")
    }
}

fn revoked(what: &str) -> Problem {
    Problem::conflict(
        "plugin_revoked",
        format!("{what}. It is not run any more. Install another version, or remove it."),
    )
}

/// Keeps the list up to date, for ever. Where a process is API and worker in one, the first who asks does it.
pub async fn watch(app: App) {
    let revocations = app.revocations().clone();
    if revocations.0.is_watched.swap(true, Ordering::Relaxed) {
        return;
    }
    tokio::join!(poll(revocations.clone()), listen(revocations));
}

async fn poll(revocations: Revocations) {
    loop {
        revocations.read_if_nobody_did(Instant::now()).await;
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn listen(revocations: Revocations) {
    loop {
        if let Err(error) = listen_once(&revocations).await {
            tracing::warn!(%error, "revocations are not notified, and are found by looking, every {} s", POLL_INTERVAL.as_secs());
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn listen_once(revocations: &Revocations) -> Result<(), sqlx::Error> {
    let mut listener = revocations.0.db.listener().await?;
    listener.listen("tsunami_revocation").await?;
    loop {
        listener.recv().await?;
        revocations.read_if_nobody_did(Instant::now()).await;
    }
}
