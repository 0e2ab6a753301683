//! `/marketplace`, and the parts of `/plugins` that install what is published.

pub mod installations;
mod publishers;
mod releases;
mod review;
mod revocations;

use crate::{
    app::App,
    caller::Party,
    id::{PublisherId, ReleaseId},
    problem::Problem,
};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;

use super::{
    PartyTx,
    store::{self, PublisherRow, ReleaseRow},
};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(publishers::routes())
        .merge(releases::routes())
        .merge(review::routes())
        .merge(revocations::routes())
        .merge(installations::routes())
}

/// Why.
#[derive(Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// 1 to 2000 characters. Tenants read it.
    pub reason: String,
}

impl Reason {
    fn check(&self) -> Result<(), Problem> {
        Problem::check_line("/reason", &self.reason, 1, 2000)
    }
}

async fn visible_publisher(tx: &mut PartyTx, id: PublisherId) -> Result<PublisherRow, Problem> {
    store::publisher(tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("publisher"))
}

async fn visible_release(tx: &mut PartyTx, id: ReleaseId) -> Result<ReleaseRow, Problem> {
    store::release(tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("release"))
}

/// Operators may, and the tenant whose it is.
fn must_own(party: &Party, owner: Option<crate::id::TenantId>) -> Result<(), Problem> {
    match party.tenant() {
        Some(tenant) if owner != Some(tenant) => Err(Problem::forbidden(
            "not_the_publisher",
            "Only the publisher, or an operator of this gateway, may do this.",
        )),
        _ => Ok(()),
    }
}
