use oci_client::{
    Client,
    client::{ClientConfig, ClientProtocol},
    secrets::RegistryAuth,
};
use oci_wasm::{WasmClient, WasmConfig};
use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

/// Debian's `docker-registry`, as a child process on a port of its own. `scripts/bootstrap registry` fetches it.
#[derive(Debug)]
pub struct DockerRegistry {
    folder: TempDir,
    port: u16,
    process: Child,
}

impl DockerRegistry {
    pub async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\n\
             storage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: 127.0.0.1:{port} }}\n",
            folder.path().join("data").display()
        );
        std::fs::write(&config, text).expect("its configuration");
        let process = Command::new(program())
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the registry starts");
        let started = Self {
            folder,
            port,
            process,
        };
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the registry does not listen");
            tokio::time::sleep(LOOK).await;
        }
        started
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn client(&self) -> Client {
        Client::try_from(ClientConfig {
            protocol: ClientProtocol::Http,
            ..ClientConfig::default()
        })
        .expect("a client")
    }

    /// As `wkg` does it.
    pub async fn push(&self, name: &str, component: Vec<u8>) {
        let image = format!("{}/{name}", self.host())
            .parse()
            .expect("a reference");
        let (config, layer) = WasmConfig::from_raw_component(component, None).expect("a component");
        WasmClient::new(self.client())
            .push(&image, &RegistryAuth::Anonymous, layer, config, None)
            .await
            .expect("it is pushed");
    }

    /// The file that holds a blob.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let blobs = self
            .folder
            .path()
            .join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&digest[..2]).join(digest).join("data")
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The smallest component there is, with `content` in a custom section.
pub fn component(content: &[u8]) -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    let mut section = vec![4];
    section.extend_from_slice(b"test");
    section.extend_from_slice(content);
    bytes.push(0);
    let mut length = section.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(section);
    bytes
}

fn program() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
    let named = std::env::var_os("TSUNAMI_REGISTRY_BIN").map(PathBuf::from);
    let ours =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../.tools/registry/bin/docker-registry");
    let program = named.unwrap_or(ours);
    assert!(
        program.exists(),
        "{} is not there: run scripts/bootstrap registry, or name a docker-registry by TSUNAMI_REGISTRY_BIN",
        program.display()
    );
    program
}
