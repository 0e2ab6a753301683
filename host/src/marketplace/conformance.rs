//! Whether a component keeps the contract, as this host finds it: what a reviewer sees beside a release.

use crate::{
    app::App,
    id::TenantId,
    plugins::{self, intake},
    problem::Problem,
};
use serde_json::Value;
use std::sync::Arc;

/// Puts the component through the checks that `tsunami plugin check` makes, in a tenant's turn, and gives the report.
/// A release that does not conform is published all the same: the report is there for whoever decides.
///
/// # Errors
/// 422 where it does not load, 503 where the sandbox is busy.
pub async fn examine(app: &App, tenant: TenantId, bytes: Vec<u8>) -> Result<Value, Problem> {
    let plugin = intake::load_new(app, tenant, &bytes).await?;
    let examined = plugin.clone();
    let report = plugins::call(app, tenant, &plugin, move |_| {
        tsunami_plugin_check::check(Ok(Arc::clone(&examined)), &bytes, &[])
    });
    let report = report.await.map_err(|_| plugins::busy())?;
    serde_json::to_value(report).map_err(|e| Problem::internal(&e))
}
