//! Starts an instance, says its process number and URL when it is ready, and waits to be killed: the tests' victim.
//! Arguments: the tools' folder, the bridge's folder, the instances' folder, the instance's name.

use std::{path::PathBuf, time::Duration};
use tsunami_cluster::{Cluster, InstanceSpec, LocalCluster, LocalSettings};

const READY_TIMEOUT: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = || {
        args.next()
            .ok_or("the tools', the bridge's and the instances' folder, and a name")
    };
    let tools = PathBuf::from(next()?);
    let cluster = LocalCluster::new(LocalSettings {
        node: tools.join("node/bin/node"),
        openclaw_dir: tools.join("openclaw/node_modules/openclaw"),
        bridge_dir: next()?.into(),
        data_dir: next()?.into(),
    })?;
    let name = next()?;
    let spec = InstanceSpec {
        name: name.clone(),
        gateway_token: "test-token-of-the-gateway".into(),
        device_id: "d0".repeat(32),
        device_scopes: vec!["operator.write".into()],
    };
    let url = cluster.install(&spec).await?;
    cluster.wait_ready(&name, READY_TIMEOUT).await?;
    println!(
        "{} {url}",
        cluster.status(&name).await.pid.unwrap_or_default()
    );
    std::future::pending().await
}
