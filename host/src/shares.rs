//! A tenant's share of what all tenants share: whoever takes many places leaves the others theirs.

use crate::id::TenantId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// One part in so many of what is shared is what one tenant may have at once: of the places for requests and live views, and
/// of the connections to the database.
pub const TENANT_SHARE_PARTS: usize = 3;

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

/// The share that a request holds, from when its tenant is known until it is answered.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Mutex<Option<Share>>>);

impl Held {
    /// Takes one for the request, unless it has one. False where the tenant has none left.
    pub fn hold(&self, shares: &Shares, tenant: TenantId) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = shares.take(tenant);
        }
        held.is_some()
    }

    /// Gives it back, whoever still has the request.
    pub fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
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
