//! Wakes those who watch a trace. PostgreSQL says which task has a new step; the watcher then reads the
//! steps under its tenant's rules, so a notification gives nothing away.

use crate::{
    db::Db,
    id::TenantId,
    shares::{Share, Shares},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use uuid::Uuid;

/// Notifications kept for a slow watcher; one that falls behind looks once and is up to date.
const BACKLOG: usize = 1024;
/// Live views of one process at once, of which a tenant has its share.
const VIEWS_MAX: usize = 1000;
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// The process's one listener.
#[derive(Clone, Debug)]
pub struct Live {
    subjects: broadcast::Sender<Uuid>,
    places: Arc<Semaphore>,
    shares: Shares,
    over: watch::Sender<bool>,
}

impl Live {
    pub fn new() -> Self {
        Self {
            subjects: broadcast::channel(BACKLOG).0,
            places: Arc::new(Semaphore::new(VIEWS_MAX)),
            shares: Shares::of(VIEWS_MAX),
            over: watch::Sender::new(false),
        }
    }

    pub fn watch(&self) -> broadcast::Receiver<Uuid> {
        self.subjects.subscribe()
    }

    /// Each live view holds one.
    ///
    /// # Errors
    /// Says whose views are too many.
    pub fn place(&self, tenant: TenantId) -> Result<Place, NoPlace> {
        let share = self.shares.take(tenant);
        let share = share.ok_or(NoPlace::OfTenant(self.shares.each()))?;
        let place = self.places.clone().try_acquire_owned();
        Ok(Place {
            _share: share,
            _place: place.map_err(|_| NoPlace::OfAll)?,
        })
    }

    /// Ends every view, and those that begin later: the process is about to end, and waits for its connections.
    pub fn end(&self) {
        self.over.send_replace(true);
    }

    /// Until then.
    pub async fn ended(&self) {
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Listens for ever, and again after the database was away.
    pub async fn run(self, db: Db) {
        loop {
            if let Err(error) = self.listen(&db).await {
                tracing::warn!(%error, "live traces: the database cannot be reached, trying again");
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    async fn listen(&self, db: &Db) -> Result<(), sqlx::Error> {
        let mut listener = db.listener().await?;
        listener.listen("tsunami_trace").await?;
        loop {
            let notification = listener.recv().await?;
            if let Ok(subject) = notification.payload().parse() {
                // Nobody watching is no error.
                let _ = self.subjects.send(subject);
            }
        }
    }
}

/// What a live view holds.
#[derive(Debug)]
pub struct Place {
    _share: Share,
    _place: OwnedSemaphorePermit,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// The tenant has all that it may have, so many.
    OfTenant(usize),
    OfAll,
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits until `subject` may have a new step; also returns after `at_most`, in case a notification was
/// lost while the database was away.
pub async fn changed(watch: &mut broadcast::Receiver<Uuid>, subject: Uuid, at_most: Duration) {
    let _ = tokio::time::timeout(at_most, async {
        loop {
            match watch.recv().await {
                Ok(id) if id == subject => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_views_of_one_tenant_leave_room_for_the_next() {
        let (live, acme, globex) = (Live::new(), TenantId::fresh(), TenantId::fresh());
        let mut views: Vec<_> = std::iter::from_fn(|| live.place(acme).ok()).collect();
        let each = VIEWS_MAX / 3;
        assert_eq!(views.len(), each);
        assert_eq!(live.place(acme).unwrap_err(), NoPlace::OfTenant(each));
        assert!(live.place(globex).is_ok());
        views.pop();
        assert!(live.place(acme).is_ok());
        let others: Vec<_> = std::iter::from_fn(|| live.place(TenantId::fresh()).ok()).collect();
        assert_eq!(views.len() + others.len(), VIEWS_MAX);
        assert_eq!(live.place(globex).unwrap_err(), NoPlace::OfAll);
    }
}
