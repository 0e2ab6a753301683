//! Whether a component keeps the contract, as this host finds it: what a reviewer sees beside a release.

use crate::{
    app::App,
    id::TenantId,
    plugins::{self, intake},
    problem::Problem,
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tsunami_plugin_check::{Budget, check_within};

/// Of the plugin's code that one publishing may cause. It holds one of the tenant's turns meanwhile, and a host that
/// stops waits for it.
const BUDGET: Budget = Budget {
    calls_max: 50_000,
    time_max: Duration::from_secs(30),
};

/// Puts the component through the checks that `tsunami plugin check` makes, in a tenant's turn, and gives the report.
/// A release that does not conform is published all the same: the report is there for whoever decides.
///
/// # Errors
/// 422 where it does not load, 503 where the sandbox is busy.
pub async fn examine(app: &App, tenant: TenantId, bytes: Vec<u8>) -> Result<Value, Problem> {
    let plugin = intake::load_new(app, tenant, &bytes).await?;
    let examined = plugin.clone();
    let report = plugins::call(app, tenant, &plugin, move |_| {
        check_within(BUDGET, Ok(Arc::clone(&examined)), &bytes, &[])
    });
    let report = report.await.map_err(|_| plugins::busy())?;
    serde_json::to_value(report).map_err(|e| Problem::internal(&e))
}
