use crate::sha256_hex;
use futures::{Stream, StreamExt};
use oci_client::{
    Client, Reference, RegistryOperation,
    client::{ClientConfig, ClientProtocol},
    manifest::{OCI_IMAGE_MEDIA_TYPE, OciImageManifest},
    secrets::RegistryAuth,
};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

/// The layout that `wkg` writes: one layer, and a configuration of this kind.
const LAYER: &str = "application/wasm";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// A manifest of one layer is a kilobyte.
const MANIFEST_BYTES_MAX: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// A whole pull; whoever asked for it is waiting.
const PULL_TIMEOUT: Duration = Duration::from_secs(60);

/// A registry that may be pulled from.
#[derive(Clone, Debug)]
pub struct Registry {
    /// `ghcr.io`, `127.0.0.1:5000`
    pub host: String,
    /// Without TLS.
    pub plain_http: bool,
    pub credentials: Option<Credentials>,
}

/// Whom a registry takes the gateway for.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub username: String,
    pub password: SecretString,
    /// Beginnings of repositories that anybody may have pulled with them, in whole segments: `acme/plugins`. Whatever
    /// else is pulled for others than operators is pulled as a stranger would.
    pub repositories: Vec<String>,
}

/// For whom something is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Whom the credentials are of.
    Operator,
    Tenant,
}

impl Registry {
    fn auth(&self, repository: &str, asker: Asker) -> RegistryAuth {
        let lets = |credentials: &&Credentials| {
            asker == Asker::Operator || credentials.lets_anybody(repository)
        };
        match self.credentials.as_ref().filter(lets) {
            Some(found) => RegistryAuth::Basic(
                found.username.clone(),
                found.password.expose_secret().to_owned(),
            ),
            None => RegistryAuth::Anonymous,
        }
    }
}

impl Credentials {
    fn lets_anybody(&self, repository: &str) -> bool {
        let begins = |prefix: &String| {
            let rest = repository.strip_prefix(prefix.trim_end_matches('/'));
            !prefix.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.repositories.iter().any(begins)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OciError {
    #[error(
        "`{0}` is no reference to an image: it must read registry/repository@sha256:... or registry/repository:tag"
    )]
    NotAReference(String),
    #[error("the registry {registry} may not be pulled from; {}", allowed(.among))]
    NotAllowed {
        registry: String,
        among: Vec<String>,
    },
    #[error("the registry {registry} did not answer as it should: {why}")]
    Away { registry: String, why: String },
    #[error("the registry {0} wants to know who is asking, and did not take what it was told")]
    Unauthorized(String),
    #[error("the registry has nothing at {0}")]
    NotFound(String),
    #[error("{0} is no component in the layout that `wkg` writes: {1}")]
    Layout(String, String),
    #[error("the component has {bytes} bytes; the most is {max}")]
    TooLarge { bytes: u64, max: usize },
    #[error("the registry sent something else than {expected}")]
    OtherDigest { expected: String },
}

fn allowed(among: &[String]) -> String {
    match among {
        [] => "no registry is allowed".to_owned(),
        some => format!("allowed are {}", some.join(", ")),
    }
}

/// A component, and where it was.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// By the digest of its manifest, whatever was asked for.
    pub reference: String,
    pub component: Vec<u8>,
}

/// The registries that may be pulled from.
#[derive(Debug, Clone)]
pub struct Registries(Vec<Registry>);

impl Registries {
    pub fn new(registries: Vec<Registry>) -> Self {
        Self(registries)
    }

    /// Pulls a component of at most `bytes_max`.
    pub async fn pull(
        &self,
        reference: &str,
        bytes_max: usize,
        asker: Asker,
    ) -> Result<Pulled, OciError> {
        let image: Reference = reference
            .parse()
            .map_err(|_| OciError::NotAReference(reference.chars().take(300).collect()))?;
        let registry = self.allowed(image.registry())?;
        let pull = Pull::new(registry, image, asker)?;
        match tokio::time::timeout(PULL_TIMEOUT, pull.component(bytes_max)).await {
            Ok(pulled) => pulled,
            Err(_) => Err(pull.away(&format!("it took longer than {} s", PULL_TIMEOUT.as_secs()))),
        }
    }

    fn allowed(&self, host: &str) -> Result<&Registry, OciError> {
        self.0
            .iter()
            .find(|registry| registry.host == host)
            .ok_or_else(|| OciError::NotAllowed {
                registry: host.to_owned(),
                among: self.0.iter().map(|r| r.host.clone()).collect(),
            })
    }
}

struct Pull {
    host: String,
    scheme: &'static str,
    image: Reference,
    auth: RegistryAuth,
    client: Client,
    http: reqwest::Client,
}

impl Pull {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one client that asks registries; only those that are allowed, and with time limits"
    )]
    fn new(registry: &Registry, image: Reference, asker: Asker) -> Result<Self, OciError> {
        let away = |why: String| OciError::Away {
            registry: registry.host.clone(),
            why,
        };
        let (scheme, protocol) = match registry.plain_http {
            true => ("http", ClientProtocol::Http),
            false => ("https", ClientProtocol::Https),
        };
        // One TLS provider a process; where there is one already, it stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_from(ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            platform_resolver: None,
            ..ClientConfig::default()
        })
        .map_err(|e| away(e.to_string()))?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()
            .map_err(|e| away(e.to_string()))?;
        let auth = registry.auth(image.repository(), asker);
        Ok(Self {
            host: registry.host.clone(),
            scheme,
            image,
            auth,
            client,
            http,
        })
    }

    async fn component(&self, bytes_max: usize) -> Result<Pulled, OciError> {
        let body = self.manifest().await?;
        let digest = format!("sha256:{}", sha256_hex(&body));
        if self
            .image
            .digest()
            .is_some_and(|expected| expected != digest)
        {
            return Err(self.other(self.image.digest().unwrap_or_default()));
        }
        let layer = self.layer(&body)?;
        // Before anything of it is read.
        let stated = u64::try_from(layer.1).unwrap_or(u64::MAX);
        if stated > bytes_max as u64 {
            return Err(OciError::TooLarge {
                bytes: stated,
                max: bytes_max,
            });
        }
        let component = self.blob(&layer.0, bytes_max).await?;
        Ok(Pulled {
            reference: self.image.clone_with_digest(digest).to_string(),
            component,
        })
    }

    /// The manifest's bytes. The client of `oci-client` would read as many as the registry sends.
    async fn manifest(&self) -> Result<Vec<u8>, OciError> {
        let token = self
            .client
            .auth(&self.image, &self.auth, RegistryOperation::Pull)
            .await
            .map_err(|e| self.failed(&e))?;
        let which = self.image.digest().or(self.image.tag()).unwrap_or("latest");
        let url = format!(
            "{}://{}/v2/{}/manifests/{which}",
            self.scheme,
            self.image.resolve_registry(),
            self.image.repository()
        );
        let mut request = self.http.get(url).header("accept", OCI_IMAGE_MEDIA_TYPE);
        request = match (token, &self.auth) {
            (Some(token), _) => request.bearer_auth(token),
            (None, RegistryAuth::Basic(user, password)) => request.basic_auth(user, Some(password)),
            (None, _) => request,
        };
        let response = request.send().await.map_err(|e| self.away(&e))?;
        match response.status().as_u16() {
            200 => {}
            401 | 403 => return Err(OciError::Unauthorized(self.host.clone())),
            404 => return Err(OciError::NotFound(self.image.to_string())),
            status => return Err(self.away(&format!("status {status}"))),
        }
        let stream = response
            .bytes_stream()
            .map(|chunk| chunk.map_err(|e| self.away(&e)));
        collect(stream, MANIFEST_BYTES_MAX).await?.ok_or_else(|| {
            self.layout(format!(
                "its manifest is larger than {MANIFEST_BYTES_MAX} bytes"
            ))
        })
    }

    /// The digest and the size of the one layer.
    fn layer(&self, manifest: &[u8]) -> Result<(String, i64), OciError> {
        let manifest: OciImageManifest = serde_json::from_slice(manifest)
            .map_err(|e| self.layout(format!("its manifest is none of one image: {e}")))?;
        if manifest.config.media_type != CONFIG {
            let kind = manifest.config.media_type;
            return Err(self.layout(format!("its configuration is `{kind}` and not `{CONFIG}`")));
        }
        let [layer] = manifest.layers.as_slice() else {
            let layers = manifest.layers.len();
            return Err(self.layout(format!("it has {layers} layers and not one")));
        };
        if layer.media_type != LAYER {
            let kind = &layer.media_type;
            return Err(self.layout(format!("its layer is `{kind}` and not `{LAYER}`")));
        }
        Ok((layer.digest.clone(), layer.size))
    }

    async fn blob(&self, digest: &str, bytes_max: usize) -> Result<Vec<u8>, OciError> {
        // By its digest alone: a descriptor may name other places to fetch it from.
        let stream = self
            .client
            .pull_blob_stream(&self.image, digest)
            .await
            .map_err(|e| self.failed(&e))?;
        let chunks = stream.map(|chunk| chunk.map_err(|e| self.away(&e)));
        let bytes = collect(chunks, bytes_max).await?;
        let bytes = bytes.ok_or(OciError::TooLarge {
            bytes: bytes_max as u64 + 1,
            max: bytes_max,
        })?;
        if format!("sha256:{}", sha256_hex(&bytes)) != digest {
            return Err(self.other(digest));
        }
        Ok(bytes)
    }

    fn failed(&self, error: &oci_client::errors::OciDistributionError) -> OciError {
        use oci_client::errors::OciDistributionError as E;
        match error {
            E::AuthenticationFailure(_) | E::UnauthorizedError { .. } => {
                OciError::Unauthorized(self.host.clone())
            }
            E::ImageManifestNotFoundError(_) => OciError::NotFound(self.image.to_string()),
            other => self.away(other),
        }
    }
    fn away(&self, why: &dyn std::fmt::Display) -> OciError {
        OciError::Away {
            registry: self.host.clone(),
            why: why.to_string().chars().take(300).collect(),
        }
    }
    fn layout(&self, why: String) -> OciError {
        OciError::Layout(self.image.to_string(), why)
    }
    fn other(&self, expected: &str) -> OciError {
        OciError::OtherDigest {
            expected: expected.to_owned(),
        }
    }
}

/// All bytes of a stream, or `None` once there are more than `max`.
async fn collect<B: AsRef<[u8]>>(
    stream: impl Stream<Item = Result<B, OciError>>,
    max: usize,
) -> Result<Option<Vec<u8>>, OciError> {
    let mut stream = std::pin::pin!(stream);
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(chunk?.as_ref());
        if bytes.len() > max {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}
