use crate::{Aad, DataKey, OVERHEAD_BYTES, SealError, data_key::KEY_BYTES};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::sync::Arc;

/// The name of a key-encryption key.
pub type KekId = String;

/// Where key-encryption keys come from: [`crate::KeyFile`], or a secret manager elsewhere.
#[async_trait::async_trait]
pub trait KeyProvider: Send + Sync {
    /// The one that new data keys are wrapped under.
    async fn current(&self) -> Result<KekId, SealError>;
    /// The names of all that still open something.
    fn ids(&self) -> Vec<KekId>;
    /// One by its name. Errors: [`SealError::UnknownKey`], [`SealError::Unavailable`].
    async fn key(&self, id: &str) -> Result<Arc<DataKey>, SealError>;
}

/// A data key as it is stored: `<KEK id>:<base64 of the sealed key>`. Nothing of it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    kek_id: KekId,
    sealed: Vec<u8>,
    text: String,
}

impl WrappedKey {
    /// Errors: [`SealError::Malformed`].
    pub fn parse(text: impl Into<String>) -> Result<Self, SealError> {
        let text = text.into();
        let (kek_id, sealed) = text
            .rsplit_once(':')
            .filter(|(id, _)| !id.is_empty())
            .ok_or(SealError::Malformed("a wrapped key reads `id:base64`"))?;
        let sealed = BASE64_STANDARD
            .decode(sealed)
            .ok()
            .filter(|sealed| sealed.len() == KEY_BYTES + OVERHEAD_BYTES)
            .ok_or(SealError::Malformed(
                "a wrapped key is the base64 of a sealed key of 32 bytes",
            ))?;
        Ok(Self {
            kek_id: kek_id.to_owned(),
            sealed,
            text,
        })
    }

    fn new(kek_id: KekId, sealed: Vec<u8>) -> Self {
        let text = format!("{kek_id}:{}", BASE64_STANDARD.encode(&sealed));
        Self {
            kek_id,
            sealed,
            text,
        }
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key-encryption key that it is wrapped under.
    pub fn kek_id(&self) -> &str {
        &self.kek_id
    }
}

/// Makes and opens data keys with the key-encryption keys of a provider. Cheap to clone.
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

    /// A fresh data key, and how to store it. `about` says whose it is.
    pub async fn new_data_key(&self, about: &Aad) -> Result<(DataKey, WrappedKey), SealError> {
        let key = DataKey::generate();
        let wrapped = self.wrap(&key, about).await?;
        Ok((key, wrapped))
    }

    /// Errors: [`SealError::UnknownKey`], [`SealError::NotAuthentic`], [`SealError::Unavailable`].
    pub async fn unwrap(&self, wrapped: &WrappedKey, about: &Aad) -> Result<DataKey, SealError> {
        let kek = self.0.key(wrapped.kek_id()).await?;
        let bytes = kek.open(&wrapped.sealed, about)?;
        DataKey::from_slice(&bytes).ok_or(SealError::Malformed("a data key has 32 bytes"))
    }

    /// The same data key under the current key-encryption key; `None` where it is already.
    pub async fn rewrap(
        &self,
        wrapped: &WrappedKey,
        about: &Aad,
    ) -> Result<Option<WrappedKey>, SealError> {
        if wrapped.kek_id() == self.0.current().await? {
            return Ok(None);
        }
        let key = self.unwrap(wrapped, about).await?;
        Ok(Some(self.wrap(&key, about).await?))
    }

    /// A key of the whole gateway for one purpose, derived from the key-encryption key `id` (the current one
    /// where it is `None`), and the id, to be kept beside what it sealed.
    pub async fn subkey(
        &self,
        purpose: &str,
        id: Option<&str>,
    ) -> Result<(KekId, DataKey), SealError> {
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
        Ok(WrappedKey::new(id, sealed))
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyFile;

    fn keyring(text: &str) -> Keyring {
        Keyring::new(KeyFile::parse(text).unwrap())
    }

    fn about() -> Aad {
        Aad::new("tenant-data-key").field(b"tenant 1")
    }

    #[tokio::test]
    async fn keys_rotate_and_old_ones_still_open() {
        let old_line = KeyFile::generate("k1");
        let old = keyring(&old_line);
        let (key, wrapped) = old.new_data_key(&about()).await.unwrap();

        let both = keyring(&format!("{}{}", *KeyFile::generate("k2"), *old_line));
        let opened = both.unwrap(&wrapped, &about()).await.unwrap();
        assert_eq!(opened.bytes(), key.bytes());

        let moved = both.rewrap(&wrapped, &about()).await.unwrap().unwrap();
        assert_eq!(moved.kek_id(), "k2");
        assert_eq!(both.rewrap(&moved, &about()).await.unwrap(), None);
        let opened = both.unwrap(&moved, &about()).await.unwrap();
        assert_eq!(opened.bytes(), key.bytes());

        let error = old.unwrap(&moved, &about()).await.unwrap_err();
        assert!(matches!(&error, SealError::UnknownKey(id) if id == "k2"));
        assert!(error.to_string().contains("`k2 = <base64"), "{error}");
    }

    #[tokio::test]
    async fn a_wrapped_key_opens_only_for_what_it_was_made() {
        let keyring = keyring(&KeyFile::generate("k1"));
        let (_, wrapped) = keyring.new_data_key(&about()).await.unwrap();
        let other = Aad::new("tenant-data-key").field(b"tenant 2");
        for failed in [
            keyring.unwrap(&wrapped, &other).await.err(),
            self::keyring(&KeyFile::generate("k1"))
                .unwrap(&wrapped, &about())
                .await
                .err(),
        ] {
            assert!(matches!(failed, Some(SealError::NotAuthentic)));
        }
    }

    #[tokio::test]
    async fn a_wrapped_key_is_stored_as_text_and_read_again() {
        let keyring = keyring(&KeyFile::generate("k1"));
        let (key, wrapped) = keyring.new_data_key(&about()).await.unwrap();
        let read = WrappedKey::parse(wrapped.as_str()).unwrap();
        assert_eq!(read, wrapped);
        let opened = keyring.unwrap(&read, &about()).await.unwrap();
        assert_eq!(opened.bytes(), key.bytes());
        assert!(!wrapped.as_str().contains(&hex::encode(key.bytes())));
    }

    #[test]
    fn what_is_no_wrapped_key_is_refused() {
        for text in ["", "k1", "k1:", ":AAAA", "k1:!!", "k1:AAAA"] {
            let parsed = WrappedKey::parse(text);
            assert!(matches!(parsed, Err(SealError::Malformed(_))), "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_key_for_a_purpose_is_the_same_each_time_and_for_no_other() {
        let keyring = keyring(&KeyFile::generate("k1"));
        let (id, first) = keyring.subkey("signing", None).await.unwrap();
        let (_, again) = keyring.subkey("signing", Some(&id)).await.unwrap();
        let (_, other) = keyring.subkey("payloads", None).await.unwrap();
        assert_eq!(id, "k1");
        assert_eq!(first.bytes(), again.bytes());
        assert_ne!(first.bytes(), other.bytes());
        let unknown = keyring.subkey("signing", Some("k9")).await;
        assert!(matches!(unknown, Err(SealError::UnknownKey(_))));
    }
}
