use crate::{Aad, DataKey, SealError};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::{collections::BTreeMap, path::Path, sync::Arc};
use zeroize::Zeroizing;

/// The name of a key-encryption key.
pub type KekId = String;

/// Where key-encryption keys come from.
#[async_trait::async_trait]
pub trait KeyProvider: Send + Sync {
    /// The one that new data keys are wrapped under.
    async fn current(&self) -> Result<KekId, SealError>;
    /// The names of all that still open something.
    fn ids(&self) -> Vec<KekId>;
    /// One by its name. Errors: [`SealError::UnknownKey`], [`SealError::Unavailable`].
    async fn key(&self, id: &str) -> Result<Arc<DataKey>, SealError>;
}

/// A data key as it is stored: `<KEK id>:<base64 of the sealed key>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey(String);

impl WrappedKey {
    pub fn parse(text: impl Into<String>) -> Result<Self, SealError> {
        let text = text.into();
        if !text.contains(':') {
            return Err(SealError::Malformed("a wrapped key has the form `id:base64`"));
        }
        Ok(Self(text))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
    pub fn kek_id(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }
    fn sealed(&self) -> Result<Vec<u8>, SealError> {
        let text = self.0.split_once(':').map(|(_, sealed)| sealed).unwrap_or_default();
        BASE64_STANDARD.decode(text).map_err(|_| SealError::Malformed("a wrapped key is base64"))
    }
}

/// Makes and opens data keys with the key-encryption keys of a provider.
#[derive(Clone)]
pub struct Keyring(Arc<dyn KeyProvider>);

impl Keyring {
    pub fn new(provider: impl KeyProvider + 'static) -> Self {
        Self(Arc::new(provider))
    }

    /// The names of all key-encryption keys.
    pub fn ids(&self) -> Vec<KekId> {
        self.0.ids()
    }

    /// A fresh data key, and how to store it.
    pub async fn new_data_key(&self, about: &Aad) -> Result<(DataKey, WrappedKey), SealError> {
        let key = DataKey::generate();
        let wrapped = self.wrap(&key, about).await?;
        Ok((key, wrapped))
    }

    pub async fn unwrap(&self, wrapped: &WrappedKey, about: &Aad) -> Result<DataKey, SealError> {
        let kek = self.0.key(wrapped.kek_id()).await?;
        let bytes = kek.open(&wrapped.sealed()?, about)?;
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| SealError::Malformed("a data key has 32 bytes"))?;
        Ok(DataKey::from_bytes(Zeroizing::new(bytes)))
    }

    /// The same data key under the current key-encryption key; `None` where it is already.
    pub async fn rewrap(&self, wrapped: &WrappedKey, about: &Aad) -> Result<Option<WrappedKey>, SealError> {
        if wrapped.kek_id() == self.0.current().await? {
            return Ok(None);
        }
        let key = self.unwrap(wrapped, about).await?;
        Ok(Some(self.wrap(&key, about).await?))
    }

    /// A key of the whole gateway for one purpose, from the key-encryption key `id` (the current one where
    /// it is `None`), and the id, to be kept beside what it sealed.
    pub async fn subkey(&self, purpose: &str, id: Option<&str>) -> Result<(KekId, DataKey), SealError> {
        let id = match id {
            Some(id) => id.to_owned(),
            None => self.0.current().await?,
        };
        let key = self.0.key(&id).await?.subkey(purpose);
        Ok((id, key))
    }

    async fn wrap(&self, key: &DataKey, about: &Aad) -> Result<WrappedKey, SealError> {
        let id = self.0.current().await?;
        let sealed = self.0.key(&id).await?.seal(key.bytes(), about)?;
        Ok(WrappedKey(format!("{id}:{}", BASE64_STANDARD.encode(sealed))))
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring")
    }
}

/// Key-encryption keys as lines `id = base64 of 32 bytes`, the first of them current: from a file, or from
/// a variable of the environment.
pub struct KeyFile {
    current: KekId,
    keys: BTreeMap<KekId, Arc<DataKey>>,
}

impl KeyFile {
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let mut current = None;
        let mut keys = BTreeMap::new();
        for (number, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let wrong = |what: &str| SealError::KeyFile(format!("line {}: {what}; a line reads `k1 = <base64 of 32 bytes>`", number + 1));
            let (id, encoded) = line.split_once('=').ok_or_else(|| wrong("there is no `=`"))?;
            let id = id.trim();
            if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
                return Err(wrong("the id must be letters, digits, `-` and `_`"));
            }
            let bytes = Zeroizing::new(BASE64_STANDARD.decode(encoded.trim()).map_err(|_| wrong("the key is not base64"))?);
            let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| wrong("the key has not 32 bytes"))?;
            if keys.insert(id.to_owned(), Arc::new(DataKey::from_bytes(Zeroizing::new(bytes)))).is_some() {
                return Err(wrong("the id stands there twice"));
            }
            current.get_or_insert_with(|| id.to_owned());
        }
        let current = current.ok_or_else(|| SealError::KeyFile("it holds no key; a line reads `k1 = <base64 of 32 bytes>`".into()))?;
        Ok(Self { current, keys })
    }

    /// Reads a file that only its owner may read.
    pub fn read(path: &Path) -> Result<Self, SealError> {
        let problem = |what: String| SealError::KeyFile(format!("{}: {what}", path.display()));
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|e| problem(e.to_string()))?);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(path).map_err(|e| problem(e.to_string()))?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(problem(format!("others may read it (mode {:o}); run `chmod 600` on it", mode & 0o777)));
            }
        }
        Self::parse(&text)
    }

    /// Makes the file with a fresh key, unless it is there.
    pub fn create_if_missing(path: &Path) -> Result<(), SealError> {
        use std::io::Write;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(path) {
            Ok(mut file) => {
                let text = Zeroizing::new(Self::generate("k1"));
                file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| SealError::KeyFile(format!("{}: {e}", path.display())))
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(SealError::KeyFile(format!("{}: {e}", path.display()))),
        }
    }

    /// A line with a fresh key.
    pub fn generate(id: &str) -> String {
        format!("{id} = {}\n", BASE64_STANDARD.encode(DataKey::generate().bytes()))
    }
}

#[async_trait::async_trait]
impl KeyProvider for KeyFile {
    async fn current(&self) -> Result<KekId, SealError> {
        Ok(self.current.clone())
    }
    fn ids(&self) -> Vec<KekId> {
        self.keys.keys().cloned().collect()
    }
    async fn key(&self, id: &str) -> Result<Arc<DataKey>, SealError> {
        self.keys.get(id).cloned().ok_or_else(|| SealError::UnknownKey(id.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_rotate_and_old_ones_still_open() {
        let old_line = KeyFile::generate("k1");
        let about = Aad::new("tenant-data-key").field(b"t");
        let old = Keyring::new(KeyFile::parse(&old_line).unwrap());
        let (key, wrapped) = old.new_data_key(&about).await.unwrap();

        let both = Keyring::new(KeyFile::parse(&format!("{}{old_line}", KeyFile::generate("k2"))).unwrap());
        assert_eq!(both.unwrap(&wrapped, &about).await.unwrap().bytes(), key.bytes());
        let moved = both.rewrap(&wrapped, &about).await.unwrap().expect("moved to k2");
        assert_eq!(moved.kek_id(), "k2");
        assert!(both.rewrap(&moved, &about).await.unwrap().is_none());
        assert_eq!(both.unwrap(&moved, &about).await.unwrap().bytes(), key.bytes());
        assert!(matches!(old.unwrap(&moved, &about).await, Err(SealError::UnknownKey(id)) if id == "k2"));
    }

    #[tokio::test]
    async fn a_wrapped_key_opens_only_for_what_it_was_made() {
        let keyring = Keyring::new(KeyFile::parse(&KeyFile::generate("k1")).unwrap());
        let (_, wrapped) = keyring.new_data_key(&Aad::new("tenant-data-key").field(b"a")).await.unwrap();
        assert!(matches!(keyring.unwrap(&wrapped, &Aad::new("tenant-data-key").field(b"b")).await, Err(SealError::NotAuthentic)));
    }

    #[test]
    fn a_wrong_key_file_says_which_line_and_why() {
        for (text, expected) in [("", "no key"), ("# only this\n", "no key"), ("k1", "line 1"), ("k1 = !!", "base64"), ("k1 = AAAA", "32 bytes")] {
            let message = KeyFile::parse(text).err().unwrap().to_string();
            assert!(message.contains(expected), "{text:?}: {message}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        KeyFile::create_if_missing(&path).unwrap();
        KeyFile::create_if_missing(&path).unwrap();
        assert!(KeyFile::read(&path).is_ok());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(KeyFile::read(&path).err().unwrap().to_string().contains("chmod 600"));
    }
}
