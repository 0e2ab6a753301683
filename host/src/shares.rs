//! A tenant's share of what all tenants share: whoever takes many places leaves the others theirs.

use crate::id::TenantId;
use moka::future::Cache;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One part in so many of what is shared is what one tenant may have at once: of the places for requests and live views, and
/// of the connections to the database.
pub const TENANT_SHARE_PARTS: usize = 3;

/// Components that are pulled from registries at once; each takes its own size of memory.
pub const PULLS_MAX: usize = 6;

/// Who has how many of the places. Tenants without one take no memory.
#[derive(Clone, Debug)]
pub struct Shares {
    each: usize,
    taken: Arc<Mutex<HashMap<TenantId, usize>>>,
}

impl Shares {
    pub fn of(places: usize) -> Self {
        Self {
            each: (places / TENANT_SHARE_PARTS).max(1),
            taken: Arc::default(),
        }
    }

    /// How many places one tenant may have.
    pub fn each(&self) -> usize {
        self.each
    }

    /// A place of the tenant's, given back when it is dropped; none where it has all of its own.
    pub fn take(&self, tenant: TenantId) -> Option<Share> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let places = taken.entry(tenant).or_default();
        if *places >= self.each {
            return None;
        }
        *places += 1;
        drop(taken);
        Some(Share {
            tenant,
            taken: self.taken.clone(),
        })
    }
}

/// A place that is taken.
#[derive(Debug)]
pub struct Share {
    tenant: TenantId,
    taken: Arc<Mutex<HashMap<TenantId, usize>>>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = taken.get_mut(&self.tenant) {
            *places -= 1;
            if *places == 0 {
                taken.remove(&self.tenant);
            }
        }
    }
}

/// The share that a request holds: one of the strangers' until its tenant is known, and then of the tenant's until it is
/// answered.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Mutex<Option<Place>>>);

#[derive(Debug)]
enum Place {
    Stranger { _permit: OwnedSemaphorePermit },
    Tenant { _share: Share },
}

impl Held {
    /// Takes one for the request, unless it has one. False where the tenant has none left.
    pub fn hold(&self, shares: &Shares, tenant: TenantId) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*held, Some(Place::Tenant { .. })) {
            *held = shares
                .take(tenant)
                .map(|share| Place::Tenant { _share: share });
        }
        held.is_some()
    }

    /// Whether it is a tenant's.
    fn is_tenants(&self) -> bool {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*held, Some(Place::Tenant { .. }))
    }

    /// Gives it back, whoever still has the request.
    pub fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Keys whose tenant is remembered.
const KEYS_REMEMBERED_MAX: u64 = 10_000;

/// The places of requests. Whose key came with which hash is remembered, so that what a tenant has no place for is sent
/// away before the key is looked up, and without a place of the gateway's own. It lets nobody in; and who comes with more
/// keys than are remembered, or with each of theirs once, is counted when they are looked up.
#[derive(Clone, Debug)]
pub struct RequestShares {
    shares: Shares,
    strangers: Arc<Semaphore>,
    tenants: Cache<[u8; 32], TenantId>,
}

impl RequestShares {
    pub fn of(places: usize) -> Self {
        let shares = Shares::of(places);
        Self {
            strangers: Arc::new(Semaphore::new(shares.each())),
            shares,
            tenants: Cache::new(KEYS_REMEMBERED_MAX),
        }
    }

    /// How many places one tenant may have.
    pub fn each(&self) -> usize {
        self.shares.each()
    }

    /// A place for a request that comes with a key, by the hash of its secret, where its tenant is remembered. False
    /// where the tenant has none left.
    pub async fn foresee(&self, held: &Held, key: &[u8; 32]) -> bool {
        match self.tenants.get(key).await {
            Some(tenant) => held.hold(&self.shares, tenant),
            None => true,
        }
    }

    /// A place for a request of which nobody knows whose it is: as many as one tenant has are all of theirs. False where
    /// none is left.
    pub fn admit_stranger(&self, held: &Held) -> bool {
        if held.is_tenants() {
            return true;
        }
        let Ok(permit) = self.strangers.clone().try_acquire_owned() else {
            return false;
        };
        *held.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Place::Stranger { _permit: permit });
        true
    }

    /// The same for a request whose key was found to be this tenant's.
    pub async fn hold(&self, held: &Held, key: [u8; 32], tenant: TenantId) -> bool {
        if held.is_tenants() {
            return true;
        }
        self.tenants.insert(key, tenant).await;
        held.hold(&self.shares, tenant)
    }

    /// The key is nobody's any more.
    pub async fn forget(&self, key: &[u8; 32]) {
        self.tenants.invalidate(key).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_has_its_part_and_another_has_its_own() {
        let shares = Shares::of(9);
        let (acme, globex) = (TenantId::fresh(), TenantId::fresh());
        let mut taken: Vec<_> = (0..3).map(|_| shares.take(acme).unwrap()).collect();
        assert!(shares.take(acme).is_none());
        assert!(shares.take(globex).is_some());
        taken.pop();
        assert!(shares.take(acme).is_some());
        drop(taken);
        assert!(shares.taken.lock().unwrap().is_empty(), "nothing is kept");
        assert!(Shares::of(1).take(acme).is_some(), "at least one");
    }

    #[tokio::test]
    async fn a_key_that_was_let_in_is_counted_before_it_is_looked_up() {
        let (places, acme) = (RequestShares::of(3), TenantId::fresh());
        let (key, first, second) = ([1; 32], Held::default(), Held::default());
        assert!(
            places.foresee(&first, &key).await,
            "nobody knows whose it is"
        );
        assert!(places.hold(&first, key, acme).await);
        assert!(!places.foresee(&second, &key).await);
        assert!(places.foresee(&second, &[2; 32]).await, "another's");
        places.forget(&key).await;
        assert!(places.foresee(&second, &key).await);
        assert!(!places.hold(&second, key, acme).await);
    }

    #[test]
    fn strangers_have_as_many_places_as_a_tenant_until_they_are_known() {
        let (places, acme) = (RequestShares::of(6), TenantId::fresh());
        let all: Vec<_> = (0..3).map(|_| Held::default()).collect();
        let admitted = all
            .iter()
            .filter(|held| places.admit_stranger(held))
            .count();
        assert_eq!(admitted, 2);
        assert!(all[0].hold(&places.shares, acme));
        assert!(places.admit_stranger(&all[0]), "it has a tenant's");
        assert!(places.admit_stranger(&all[2]), "the other's is given back");
    }

    #[test]
    fn a_request_holds_one_share_until_it_is_answered() {
        let (shares, acme) = (Shares::of(3), TenantId::fresh());
        let (first, second) = (Held::default(), Held::default());
        assert!(first.hold(&shares, acme) && first.hold(&shares, acme));
        assert!(!second.hold(&shares, acme));
        let kept = first.clone();
        first.release();
        assert!(second.hold(&shares, acme), "though it is kept: {kept:?}");
    }
}
