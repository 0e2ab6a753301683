//! More hosts of one gateway: `tsunami serve` on the database of another's `tsunami dev`.

use crate::{
    api::Api,
    eventually,
    gateway::{Gateway, free_port, program},
    ports, repository,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

pub struct Host {
    process: Child,
    log: PathBuf,
    pub url: String,
}

impl Host {
    /// The command of a program that is a host on the gateway's servers.
    pub fn command(gateway: &Gateway, command: &str, port: u16) -> Command {
        let data = gateway.data_dir();
        let text = |path: PathBuf| path.display().to_string();
        let settings = [
            ("TSUNAMI_HTTP__LISTEN", format!("127.0.0.1:{port}")),
            ("TSUNAMI_DATABASE__URL", gateway.database_url("tsunami_app")),
            (
                "TSUNAMI_DATABASE__SYSTEM_URL",
                gateway.database_url("tsunami_system"),
            ),
            ("TSUNAMI_TEMPORAL__URL", gateway.temporal_url()),
            ("TSUNAMI_VAULT__KEY_FILE", text(data.join("vault-keys"))),
            ("TSUNAMI_INSTANCES__DATA_DIR", text(data.join("instances"))),
            (
                "TSUNAMI_SKILLS__PRIVATE_NETWORK_HOSTS",
                format!("{:?}", ports::private_hosts()),
            ),
        ];
        let mut program = Command::new(program());
        program
            .arg(command)
            .current_dir(repository())
            .envs(settings)
            .stdin(Stdio::null());
        program
    }

    /// Starts one and waits until it is ready.
    pub async fn start(gateway: &Gateway) -> Self {
        let port = free_port();
        let log = gateway.folder().join(format!("serve-{port}.log"));
        let output = File::create(&log).expect("a log");
        let process = Self::command(gateway, "serve", port)
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .expect("tsunami starts");
        let host = Self {
            process,
            log,
            url: format!("http://127.0.0.1:{port}"),
        };
        let api = Api::new(&host.url, "");
        eventually("another host is ready", || async {
            let request = api.request(reqwest::Method::GET, "//readyz");
            let ready = Api::try_send(request).await.ok()?;
            ready.status.is_success().then_some(())
        })
        .await;
        host
    }

    /// The API of this host, as somebody of the gateway's.
    pub fn as_of(&self, api: &Api) -> Api {
        Api::new(&self.url, &api.key)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.process.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.process.wait();
    }
}
