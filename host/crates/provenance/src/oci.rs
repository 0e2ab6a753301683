use crate::{
    registry::{Shown, Transport},
    sha256_hex,
};
use futures::{Stream, StreamExt};
use oci_client::{
    Reference,
    manifest::{OCI_IMAGE_MEDIA_TYPE, OciImageManifest},
};
use secrecy::SecretString;
use std::time::Duration;
use url::Url;

/// The layout that `wkg` writes: one layer, and a configuration of this kind.
const LAYER: &str = "application/wasm";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// A manifest of one layer is a kilobyte.
const MANIFEST_BYTES_MAX: usize = 64 << 10;
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
    fn shown(&self, repository: &str, asker: Asker) -> Shown {
        let lets = |credentials: &&Credentials| {
            asker == Asker::Operator || credentials.lets_anybody(repository)
        };
        match self.credentials.as_ref().filter(lets) {
            Some(found) => Shown::Password(found.username.clone(), found.password.clone()),
            None => Shown::Nothing,
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

/// A pull that is under way.
pub(crate) struct Pull {
    host: String,
    image: Reference,
    shown: Shown,
    transport: Transport,
}

impl Pull {
    fn new(registry: &Registry, image: Reference, asker: Asker) -> Result<Self, OciError> {
        let away = |why: &dyn std::fmt::Display| OciError::Away {
            registry: registry.host.clone(),
            why: why.to_string(),
        };
        let scheme = if registry.plain_http { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{}/v2/", image.resolve_registry()));
        let base = base.map_err(|e| away(&e))?;
        Ok(Self {
            host: registry.host.clone(),
            shown: registry.shown(image.repository(), asker),
            transport: Transport::new(base).map_err(|e| away(&e))?,
            image,
        })
    }

    pub fn repository(&self) -> &str {
        self.image.repository()
    }

    async fn component(&self, bytes_max: usize) -> Result<Pulled, OciError> {
        let shown = self.transport.introduce(self, self.shown.clone()).await?;
        let body = self.manifest(&shown).await?;
        let digest = format!("sha256:{}", sha256_hex(&body));
        if self
            .image
            .digest()
            .is_some_and(|expected| expected != digest)
        {
            return Err(self.other(self.image.digest().unwrap_or_default()));
        }
        let (blob, size) = self.layer(&body)?;
        // Before anything of it is read.
        if size > bytes_max as u64 {
            return Err(OciError::TooLarge {
                bytes: size,
                max: bytes_max,
            });
        }
        let component = self.blob(&blob, &shown, bytes_max).await?;
        Ok(Pulled {
            reference: self.image.clone_with_digest(digest).to_string(),
            component,
        })
    }

    async fn manifest(&self, shown: &Shown) -> Result<Vec<u8>, OciError> {
        let which = self.image.digest().or(self.image.tag()).unwrap_or("latest");
        let path = format!("{}/manifests/{which}", self.repository());
        let asked = self.transport.ask(&path, OCI_IMAGE_MEDIA_TYPE, shown).await;
        let bytes = self.read(asked, MANIFEST_BYTES_MAX).await?;
        bytes.ok_or_else(|| {
            self.layout(format!(
                "its manifest is larger than {MANIFEST_BYTES_MAX} bytes"
            ))
        })
    }

    /// What was answered, where that is what was asked for; `None` where it has more than `max` bytes.
    async fn read(
        &self,
        answer: reqwest::Result<reqwest::Response>,
        max: usize,
    ) -> Result<Option<Vec<u8>>, OciError> {
        let answer = answer.map_err(|e| self.away(&causes(&e)))?;
        match answer.status().as_u16() {
            200 => {}
            401 | 403 => return Err(self.unauthorized()),
            404 => return Err(OciError::NotFound(self.image.to_string())),
            300..=399 => {
                return Err(self.away(&"it sends somewhere else for what it has to answer itself"));
            }
            status => return Err(self.away(&format!("status {status}"))),
        }
        let chunks = answer.bytes_stream();
        collect(chunks.map(|chunk| chunk.map_err(|e| self.away(&e))), max).await
    }

    /// The digest and the size of the one layer.
    fn layer(&self, manifest: &[u8]) -> Result<(String, u64), OciError> {
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
        // Both become part of what is asked next.
        if !is_sha256(&layer.digest) {
            let digest: String = layer.digest.chars().take(100).collect();
            return Err(self.layout(format!(
                "its layer's digest is `{digest}` and not `sha256:` and 64 hexadecimal digits"
            )));
        }
        let size = u64::try_from(layer.size)
            .map_err(|_| self.layout(format!("its layer has {} bytes", layer.size)))?;
        Ok((layer.digest.clone(), size))
    }

    /// By its digest alone: a descriptor may name other places to fetch it from.
    async fn blob(
        &self,
        digest: &str,
        shown: &Shown,
        bytes_max: usize,
    ) -> Result<Vec<u8>, OciError> {
        let path = format!("{}/blobs/{digest}", self.repository());
        let fetched = self.transport.fetch(&path, shown).await;
        let bytes = self.read(fetched, bytes_max).await?;
        let bytes = bytes.ok_or(OciError::TooLarge {
            bytes: bytes_max as u64 + 1,
            max: bytes_max,
        })?;
        if format!("sha256:{}", sha256_hex(&bytes)) != digest {
            return Err(self.other(digest));
        }
        Ok(bytes)
    }

    pub fn unauthorized(&self) -> OciError {
        OciError::Unauthorized(self.host.clone())
    }
    pub fn away(&self, why: &dyn std::fmt::Display) -> OciError {
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

/// What went wrong, and why: the last cause tells most.
fn causes(error: &reqwest::Error) -> String {
    let mut told = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        told = deeper.to_string();
        cause = deeper.source();
    }
    told
}

fn is_sha256(digest: &str) -> bool {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// All bytes of a stream, or `None` once there are more than `max`.
pub(crate) async fn collect<B: AsRef<[u8]>>(
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
