//! # Vault
//!
//! ## What it is
//! Where credentials are. A value enters through the API and never comes out of it: what is shown is the
//! last four characters and the status. It is opened for one request at a time, in the skill router, and
//! wiped after.
//!
//! ## Life
//! active -> expired (by `expires_at`, or because a sign-in can be renewed no more) | revoked (by a person). One that
//! was had by signing in (`grant_id`) is renewed in its place, as another version ([`crate::oauth`]). Storing a value under a key that has one
//! replaces it. Each takes effect on the next call: no opened value is cached, and a closed one is used while the
//! tenant's stamp says that nothing has changed since it was read ([`crate::skills`]).
//!
//! ## Always true
//! - A value opens only for its tenant, its credential and its version: they are bound into the encryption
//!   (`tsunami_sealed::Aad`), so a row copied elsewhere is noise.
//! - [`Opened`] prints its mask alone and is wiped when dropped (`an_opened_credential_prints_its_mask`).
//! - Revoked or expired, it is not used by the next call (`a_revoked_credential_is_not_used_by_the_next_call`).
//! - A tenant's data key is wrapped by a key-encryption key that is not in the database.
//!
//! ## To change
//! - Another key provider: `tsunami_sealed::KeyProvider`, [`crate::config::KeyProviderKind`],
//!   [`keyring`].
//! - Another kind of secret that is sealed: an `Aad` with a purpose of its own, then [`Vault::seal`] and
//!   [`Vault::open`].

pub mod http;
mod store;

use crate::{
    app::App,
    config::{KeyProviderKind, VaultConfig},
    db::TenantTx,
    id::{CredentialId, DataKeyId, GrantId, SkillConfigId, TenantId},
    problem::Problem,
};
use moka::future::Cache;
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};
use time::OffsetDateTime;
use tsunami_sealed::{Aad, DataKey, KeyFile, Keyring, SealError, WrappedKey};
use zeroize::Zeroizing;

/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 << 10;
/// Unwrapped data keys kept in memory, and for how long.
const DATA_KEYS_CACHED_MAX: u64 = 10_000;
const DATA_KEY_CACHED_FOR: Duration = Duration::from_secs(300);

/// What kind of secret a credential is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum CredentialType {
    ApiKey,
    OauthToken,
    BotToken,
    Pat,
    Secret,
}

impl CredentialType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::OauthToken => "oauth_token",
            Self::BotToken => "bot_token",
            Self::Pat => "pat",
            Self::Secret => "secret",
        }
    }
}

/// The key-encryption keys that the configuration names.
pub fn keyring(config: &VaultConfig) -> Result<Keyring, SealError> {
    let keys = match config.key_provider {
        KeyProviderKind::File => KeyFile::read(&config.key_file)?,
        KeyProviderKind::Env => {
            let text = crate::config::env_var(&config.key_env)
                .map(Zeroizing::new)
                .ok_or_else(|| {
                    SealError::KeyFile(format!(
                        "the environment variable {} is not set (setting vault.key_env)",
                        config.key_env
                    ))
                })?;
            KeyFile::parse(&text)?
        }
    };
    Ok(Keyring::new(keys))
}

/// Seals and opens a tenant's secrets.
#[derive(Clone)]
pub struct Vault {
    keyring: Keyring,
    data_keys: Cache<DataKeyId, Arc<DataKey>>,
}

/// A value that was sealed, and what it takes to open it.
#[derive(Debug, Clone)]
pub struct SealedValue {
    pub data_key: DataKeyId,
    pub bytes: Vec<u8>,
}

/// A value that comes to be a skill's credential.
pub struct NewValue<'a> {
    pub config: SkillConfigId,
    pub key: &'a str,
    pub kind: &'a str,
    pub value: &'a str,
    pub expires_at: Option<OffsetDateTime>,
    /// The sign-in that it was had by.
    pub grant: Option<GrantId>,
}

/// One that was had by signing in is renewed before it is used, where it expires within this.
pub const RENEW_BEFORE_USE: time::Duration = time::Duration::seconds(60);

/// Whether a credential that expires soon is to be renewed first, or was just tried.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    First,
    Tried,
}

/// An opened credential.
pub struct Opened {
    pub key: String,
    pub value: Zeroizing<String>,
    /// How traces show it: `bot_token:****a3f2`.
    pub mask: String,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.mask)
    }
}

/// The credentials of a skill, closed: the newest of each key, revoked ones too.
pub struct Closed {
    tenant: TenantId,
    config: SkillConfigId,
    rows: Vec<store::CredentialRow>,
    keys: HashMap<DataKeyId, Arc<DataKey>>,
}

impl Closed {
    /// Bytes that they take, about.
    pub fn bytes(&self) -> usize {
        let rows = self.rows.iter();
        rows.map(|row| row.encrypted_value.len() + size_of::<store::CredentialRow>())
            .sum()
    }

    /// Opens those that a call names, and nothing else. The first that cannot be used fails the call.
    pub fn open(
        &self,
        app: &App,
        keys: &[String],
        renewal: Renewal,
    ) -> Result<Result<Vec<Opened>, Unusable>, Problem> {
        let now = app.clock().now();
        let mut opened = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(row) = self.of_key(key) else {
                return Ok(Err(Unusable::Missing(key.clone())));
            };
            if let Err(unusable) = judge(row, now, renewal) {
                return Ok(Err(unusable));
            }
            opened.push(self.opened(row)?);
        }
        Ok(Ok(opened))
    }

    /// Opens those that are there and that a call does not name, so that they are recognised where a service shows
    /// them. This is no use of them.
    pub fn open_to_mask(&self, named: &[String]) -> Result<Vec<Opened>, Problem> {
        let rows = self.rows.iter();
        rows.filter(|row| row.status != "revoked" && !named.contains(&row.credential_key))
            .map(|row| self.opened(row))
            .collect()
    }

    /// Notes that a call uses them; about once a minute.
    pub async fn note_use(
        &self,
        tx: &mut TenantTx,
        app: &App,
        keys: &[String],
    ) -> Result<(), sqlx::Error> {
        if self.has_unnoted_use(app, keys) {
            store::touch(tx, self.config, keys, app.clock().now()).await?;
        }
        Ok(())
    }

    /// Whether a use of them is to be noted: see [`Closed::note_use`].
    pub fn has_unnoted_use(&self, app: &App, keys: &[String]) -> bool {
        let now = app.clock().now();
        let mut rows = keys.iter().filter_map(|key| self.of_key(key));
        rows.any(|row| row.use_is_unnoted(now))
    }

    /// How those of a call would be shown, without opening them.
    pub fn masks(&self, app: &App, keys: &[String]) -> Vec<(String, Result<String, Unusable>)> {
        let now: OffsetDateTime = app.clock().now();
        let shown = |key: &String| match self.of_key(key) {
            None => Err(Unusable::Missing(key.clone())),
            Some(row) => match judge(row, now, Renewal::First) {
                // It would be renewed first.
                Ok(()) | Err(Unusable::Due(_)) => Ok(mask(key, &row.last_4)),
                Err(unusable) => Err(unusable),
            },
        };
        keys.iter().map(|key| (key.clone(), shown(key))).collect()
    }

    fn of_key(&self, key: &str) -> Option<&store::CredentialRow> {
        self.rows.iter().find(|row| row.credential_key == key)
    }

    fn opened(&self, row: &store::CredentialRow) -> Result<Opened, Problem> {
        let about = credential_aad(self.tenant, row.id, row.version);
        let key = self
            .keys
            .get(&row.data_key_id)
            .ok_or_else(|| Problem::internal(&"a data key is not there"))?;
        let bytes = key.open(&row.encrypted_value, &about).map_err(sealing)?;
        let value = std::str::from_utf8(&bytes).map_err(|e| Problem::internal(&e))?;
        Ok(Opened {
            key: row.credential_key.clone(),
            value: Zeroizing::new(value.to_owned()),
            mask: mask(&row.credential_key, &row.last_4),
        })
    }
}

impl std::fmt::Debug for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Closed({})", self.rows.len())
    }
}

/// Why a credential was not opened. Each names the credential, none its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    Missing(String),
    Revoked(String),
    Expired(String),
    /// The sign-in behind it ended at the service.
    SignInEnded(String),
    /// It expires soon, or did, and can be renewed.
    Due(GrantId),
}

/// The code of a credential that a person must sign in for again.
pub const SIGN_IN_ENDED: &str = "credential_to_be_renewed";

impl Unusable {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "credential_missing",
            Self::Revoked(_) => "credential_revoked",
            Self::Expired(_) | Self::Due(_) => "credential_expired",
            Self::SignInEnded(_) => SIGN_IN_ENDED,
        }
    }
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(key) => write!(
                f,
                "The credential `{key}` is not stored. Store it with POST /api/v1/skill-creds."
            ),
            Self::Revoked(key) => write!(
                f,
                "The credential `{key}` was revoked. Store a new one with POST /api/v1/skill-creds."
            ),
            Self::Expired(key) => write!(
                f,
                "The credential `{key}` has expired. Store a new one with POST /api/v1/skill-creds."
            ),
            Self::SignInEnded(key) => write!(
                f,
                "The sign-in behind the credential `{key}` has ended at the service. Sign in again: POST /api/v1/skill-creds/oauth/start."
            ),
            Self::Due(_) => write!(f, "A credential has expired, and is about to be renewed."),
        }
    }
}

/// What a row is good for now.
fn judge(
    row: &store::CredentialRow,
    now: OffsetDateTime,
    renewal: Renewal,
) -> Result<(), Unusable> {
    let key = || row.credential_key.clone();
    if row.status == "revoked" {
        return Err(Unusable::Revoked(key()));
    }
    let Some(grant) = row.grant_id else {
        return match row.status_at(now) {
            "expired" => Err(Unusable::Expired(key())),
            _ => Ok(()),
        };
    };
    if row.status == "expired" {
        return Err(Unusable::SignInEnded(key()));
    }
    let ahead = match renewal {
        Renewal::First => RENEW_BEFORE_USE,
        Renewal::Tried => time::Duration::ZERO,
    };
    match row.expires_at.is_some_and(|at| at - ahead <= now) {
        true => Err(Unusable::Due(grant)),
        false => Ok(()),
    }
}

fn credential_aad(tenant: TenantId, id: CredentialId, version: i32) -> Aad {
    Aad::new("credential")
        .field(tenant.uuid().as_bytes())
        .field(id.uuid().as_bytes())
        .field(&version.to_be_bytes())
}

fn data_key_aad(tenant: TenantId, id: DataKeyId) -> Aad {
    Aad::new("tenant-data-key")
        .field(tenant.uuid().as_bytes())
        .field(id.uuid().as_bytes())
}

fn sealing(error: SealError) -> Problem {
    match error {
        SealError::Unavailable(_) => {
            Problem::unavailable("The key provider", crate::problem::RETRY_AFTER_DEFAULT)
        }
        other => Problem::internal(&other),
    }
}

impl Vault {
    pub fn new(keyring: Keyring) -> Self {
        let data_keys = Cache::builder()
            .max_capacity(DATA_KEYS_CACHED_MAX)
            .time_to_live(DATA_KEY_CACHED_FOR)
            .build();
        Self { keyring, data_keys }
    }

    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Seals something of the tenant's under its current data key, making one where there is none.
    pub async fn seal(
        &self,
        tx: &mut TenantTx,
        about: &Aad,
        plaintext: &[u8],
    ) -> Result<SealedValue, Problem> {
        let (id, key) = self.current_key(tx).await?;
        Ok(SealedValue {
            data_key: id,
            bytes: key.seal(plaintext, about).map_err(sealing)?,
        })
    }

    pub async fn open(
        &self,
        tx: &mut TenantTx,
        about: &Aad,
        sealed: &SealedValue,
    ) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let key = self.data_key(tx, sealed.data_key).await?;
        key.open(&sealed.bytes, about).map_err(sealing)
    }

    async fn current_key(&self, tx: &mut TenantTx) -> Result<(DataKeyId, Arc<DataKey>), Problem> {
        if let Some(id) = store::current_data_key(tx).await? {
            return Ok((id, self.data_key(tx, id).await?));
        }
        let id = DataKeyId::fresh();
        let (_, wrapped) = self
            .keyring
            .new_data_key(&data_key_aad(tx.tenant(), id))
            .await
            .map_err(sealing)?;
        // Two at once make one: whoever comes second takes the first one's.
        store::insert_data_key(tx, id, wrapped.as_str()).await?;
        let id = store::current_data_key(tx)
            .await?
            .ok_or_else(|| Problem::internal(&"a data key vanished"))?;
        Ok((id, self.data_key(tx, id).await?))
    }

    async fn data_key(&self, tx: &mut TenantTx, id: DataKeyId) -> Result<Arc<DataKey>, Problem> {
        if let Some(key) = self.data_keys.get(&id).await {
            return Ok(key);
        }
        let text = store::wrapped_data_key(tx, id)
            .await?
            .ok_or_else(|| Problem::internal(&"a data key is not there"))?;
        let wrapped = WrappedKey::parse(text).map_err(sealing)?;
        let key = Arc::new(
            self.keyring
                .unwrap(&wrapped, &data_key_aad(tx.tenant(), id))
                .await
                .map_err(sealing)?,
        );
        self.data_keys.insert(id, key.clone()).await;
        Ok(key)
    }

    /// Seals a value as a skill's credential, in the place of the one that it had under this key. Of two at once, the
    /// second takes the place of the first.
    pub async fn keep(
        &self,
        tx: &mut TenantTx,
        id: CredentialId,
        new: &NewValue<'_>,
    ) -> Result<(), Problem> {
        store::lock_of_skill(tx, new.config).await?;
        let version = store::retire(tx, new.config, new.key).await? + 1;
        let about = credential_aad(tx.tenant(), id, version);
        let sealed = self.seal(tx, &about, new.value.as_bytes()).await?;
        let row = store::NewCredentialRow {
            id,
            config: new.config,
            key: new.key,
            kind: new.kind,
            data_key: sealed.data_key,
            encrypted: &sealed.bytes,
            version,
            last_4: &last_4(new.value),
            expires_at: new.expires_at,
            grant: new.grant,
        };
        Ok(store::insert(tx, row).await?)
    }

    /// Puts another value in the place of one that was renewed, as its next version; says whether the credential is
    /// still in use.
    pub async fn renew(
        &self,
        tx: &mut TenantTx,
        id: CredentialId,
        value: &str,
        expires_at: Option<OffsetDateTime>,
    ) -> Result<bool, Problem> {
        let Some(row) = store::get(tx, id).await? else {
            return Ok(false);
        };
        let version = row.version + 1;
        let about = credential_aad(tx.tenant(), id, version);
        let sealed = self.seal(tx, &about, value.as_bytes()).await?;
        let renewed = store::Renewed {
            data_key: sealed.data_key,
            encrypted: &sealed.bytes,
            version,
            last_4: &last_4(value),
            expires_at,
        };
        Ok(store::renew(tx, id, renewed).await?)
    }

    /// The credentials of a skill, as they are now.
    pub async fn closed(
        &self,
        tx: &mut TenantTx,
        config: SkillConfigId,
    ) -> Result<Closed, Problem> {
        let rows = store::latest(tx, config).await?;
        let mut keys = HashMap::new();
        for row in rows.iter().filter(|row| row.status != "revoked") {
            if let Entry::Vacant(entry) = keys.entry(row.data_key_id) {
                entry.insert(self.data_key(tx, row.data_key_id).await?);
            }
        }
        Ok(Closed {
            tenant: tx.tenant(),
            config,
            rows,
            keys,
        })
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault")
    }
}

fn mask(key: &str, last_4: &str) -> String {
    format!("{key}:****{last_4}")
}

/// What may be shown of a value: nothing of a short one.
fn last_4(value: &str) -> String {
    let count = value.chars().count();
    if count < 12 {
        String::new()
    } else {
        value.chars().skip(count - 4).collect()
    }
}

/// Makes whoever would change the credentials of a skill, or end its sign-ins, wait until the transaction ends. To be
/// taken before a sign-in is locked.
pub async fn lock_of_skill(tx: &mut TenantTx, config: SkillConfigId) -> Result<(), sqlx::Error> {
    store::lock_of_skill(tx, config).await
}

/// A credential that can be renewed no more.
pub async fn expire(tx: &mut TenantTx, id: CredentialId) -> Result<(), sqlx::Error> {
    store::expire(tx, id).await
}

/// The configuration that a skill's credentials belong to; none where its plugin is not installed.
pub async fn config_of_skill(
    tx: &mut TenantTx,
    skill: &str,
) -> Result<Option<SkillConfigId>, sqlx::Error> {
    store::config_of_skill(tx, skill).await
}

/// The service did not accept a credential: noted, so that people see which one to renew.
pub async fn note_rejected(
    tx: &mut TenantTx,
    config: SkillConfigId,
    keys: &[String],
) -> Result<(), sqlx::Error> {
    store::note_rejected(tx, config, keys).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_shown_of_a_value_and_nothing_of_a_short_one() {
        assert_eq!(last_4("xoxb-123456-a3f2"), "a3f2");
        assert_eq!(last_4("hunter2"), "");
        assert_eq!(mask("bot_token", "a3f2"), "bot_token:****a3f2");
    }

    #[test]
    fn an_opened_credential_prints_its_mask() {
        let opened = Opened {
            key: "k".into(),
            value: Zeroizing::new("canary".into()),
            mask: "k:****".into(),
        };
        assert!(!format!("{opened:?}").contains("canary"));
    }
}
