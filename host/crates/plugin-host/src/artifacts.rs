//! Compiled components, kept in a folder. What is read from it becomes machine code in this process, so each file
//! bears a mark that only this gateway's key makes, over the component, the engine and every byte. A file without the
//! right mark is removed and never loaded.

use crate::compile::Artifact;
use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};
use tsunami_sealed::{Aad, DataKey, MAC_BYTES};

/// The first bytes of a file; the digit names the format.
const MAGIC: &[u8; 8] = b"tsnmwsm1";
const SUFFIX: &str = ".artifact";
/// A file that is being written; after this long its writer is gone.
const PARTIAL_SUFFIX: &str = ".partial";
const PARTIAL_KEPT: Duration = Duration::from_secs(600);

/// The keys that mark files: the first for new ones, the others for those that are there.
pub struct ArtifactKeys(Vec<(String, DataKey)>);

impl ArtifactKeys {
    /// `id` stands in the file, so that another key can follow.
    pub fn new(id: String, key: DataKey) -> Self {
        Self(vec![(id, key)])
    }

    #[must_use]
    pub fn with_old(mut self, id: String, key: DataKey) -> Self {
        self.0.push((id, key));
        self
    }
}

/// A folder of compiled components.
pub struct ArtifactCache {
    folder: PathBuf,
    keys: ArtifactKeys,
    bytes_max: u64,
    rejected: AtomicU64,
}

/// Why a file was not loaded.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("its mark is not of this gateway, component and engine")]
    NotAuthentic,
    #[error("it is marked with a key that is not there any more")]
    OldKey,
    #[error("it is no regular file, or too large")]
    NotAFile,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ArtifactCache {
    /// Makes the folder where it is missing. The least used files are removed where all together have more than
    /// `bytes_max`.
    ///
    /// # Errors
    /// Where the folder cannot be made or read.
    pub fn open(
        folder: impl Into<PathBuf>,
        keys: ArtifactKeys,
        bytes_max: u64,
    ) -> io::Result<Self> {
        let folder = folder.into();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        let cache = Self {
            folder,
            keys,
            bytes_max,
            rejected: AtomicU64::new(0),
        };
        cache.remove_partial()?;
        Ok(cache)
    }

    /// Files that were removed because their mark was wrong.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// The artifact of a component for an engine, where there is one that may be loaded.
    pub(crate) fn read(&self, digest: &str, engine: &str, bytes_max: usize) -> Option<Artifact> {
        let path = self.path(digest, engine);
        match self.read_verified(&path, digest, engine, bytes_max) {
            Ok(artifact) => Some(artifact),
            Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(why) => {
                let path = path.display();
                match why {
                    Unusable::Io(_) | Unusable::OldKey => {
                        tracing::info!(%path, %why, "a compiled plugin is not used");
                    }
                    Unusable::NotAuthentic | Unusable::NotAFile => {
                        self.rejected.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(%path, %why, "a compiled plugin was altered, moved or put there by somebody else; it is removed");
                    }
                }
                self.remove(digest, engine);
                None
            }
        }
    }

    fn read_verified(
        &self,
        path: &Path,
        digest: &str,
        engine: &str,
        bytes_max: usize,
    ) -> Result<Artifact, Unusable> {
        let metadata = fs::symlink_metadata(path)?;
        let header_max = MAGIC.len() + 1 + usize::from(u8::MAX) + MAC_BYTES;
        let file_max = (bytes_max + header_max) as u64;
        if !metadata.is_file() || metadata.len() > file_max {
            return Err(Unusable::NotAFile);
        }
        let mut file = File::open(path)?;
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
        (&mut file).take(file_max).read_to_end(&mut bytes)?;
        let (id, mac, code) = parts(&bytes).ok_or(Unusable::NotAuthentic)?;
        let key = self.keys.0.iter().find(|(name, _)| name.as_bytes() == id);
        let (_, key) = key.ok_or(Unusable::OldKey)?;
        key.verify(code, &about(digest, engine), mac)
            .map_err(|_| Unusable::NotAuthentic)?;
        let begins = bytes.len() - code.len();
        bytes.drain(..begins);
        // What is used last is removed last.
        let _ = file.set_modified(now());
        Ok(Artifact(bytes))
    }

    /// Written aside and renamed, so that no reader sees half of it.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn write(&self, digest: &str, engine: &str, artifact: &Artifact) -> io::Result<()> {
        let Some((id, key)) = self.keys.0.first() else {
            return Ok(());
        };
        let id_length = u8::try_from(id.len())
            .map_err(|_| io::Error::other("the key's id has more than 255 bytes"))?;
        let mut file = tempfile::Builder::new()
            .suffix(PARTIAL_SUFFIX)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.folder)?;
        file.write_all(MAGIC)?;
        file.write_all(&[id_length])?;
        file.write_all(id.as_bytes())?;
        file.write_all(&key.mac(&artifact.0, &about(digest, engine)))?;
        file.write_all(&artifact.0)?;
        file.persist(self.path(digest, engine))?;
        self.make_room()
    }

    pub(crate) fn remove(&self, digest: &str, engine: &str) {
        let path = self.path(digest, engine);
        let removed = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a compiled plugin cannot be removed");
        }
    }

    /// Where it is kept. Both names are hexadecimal; the engine's is shortened, since the mark holds all of it.
    fn path(&self, digest: &str, engine: &str) -> PathBuf {
        let engine = &engine[..engine.len().min(16)];
        self.folder.join(format!("{digest}-{engine}{SUFFIX}"))
    }

    fn make_room(&self) -> io::Result<()> {
        let mut files: Vec<_> = self.files(SUFFIX)?.collect();
        let mut total: u64 = files.iter().map(|file| file.bytes).sum();
        files.sort_by_key(|file| file.used_at);
        for file in files {
            if total <= self.bytes_max {
                break;
            }
            total -= file.bytes;
            // Another process may have been faster.
            let _ = fs::remove_file(file.path);
        }
        Ok(())
    }

    fn remove_partial(&self) -> io::Result<()> {
        let old = now() - PARTIAL_KEPT;
        for file in self.files(PARTIAL_SUFFIX)? {
            if file.used_at < old {
                let _ = fs::remove_file(file.path);
            }
        }
        Ok(())
    }

    fn files(&self, suffix: &'static str) -> io::Result<impl Iterator<Item = Kept>> {
        let entries = fs::read_dir(&self.folder)?;
        Ok(entries.filter_map(move |entry| {
            let path = entry.ok()?.path();
            let metadata = fs::symlink_metadata(&path).ok()?;
            let named = path.to_str().is_some_and(|name| name.ends_with(suffix));
            (named && metadata.is_file()).then_some(Kept {
                path,
                bytes: metadata.len(),
                used_at: metadata.modified().ok()?,
            })
        }))
    }
}

struct Kept {
    path: PathBuf,
    bytes: u64,
    used_at: SystemTime,
}

fn about(digest: &str, engine: &str) -> Aad {
    Aad::new("plugin-artifact")
        .field(digest.as_bytes())
        .field(engine.as_bytes())
}

/// The key's id, the mark and the code.
fn parts(file: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let rest = file.strip_prefix(MAGIC)?;
    let (&id_length, rest) = rest.split_first()?;
    let (id, rest) = rest.split_at_checked(id_length.into())?;
    let (mac, code) = rest.split_at_checked(MAC_BYTES)?;
    Some((id, mac, code))
}

#[expect(
    clippy::disallowed_methods,
    reason = "compared with the file system's own times, and decides nothing else"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

impl std::fmt::Debug for ArtifactCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ArtifactCache({})", self.folder.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const ENGINE: &str = "e1e1e1e1e1e1e1e1e1";
    const MAX: usize = 1000;

    fn key(id: &str) -> ArtifactKeys {
        ArtifactKeys::new(id.into(), DataKey::generate())
    }

    fn cache(keys: ArtifactKeys, bytes_max: u64) -> (TempDir, ArtifactCache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = ArtifactCache::open(folder.path().join("cache"), keys, bytes_max).unwrap();
        (folder, cache)
    }

    fn code(text: &str) -> Artifact {
        Artifact(text.as_bytes().to_vec())
    }

    fn is_empty(cache: &ArtifactCache) -> bool {
        fs::read_dir(&cache.folder).unwrap().next().is_none()
    }

    #[test]
    fn what_was_written_is_read_by_its_own_name_alone() {
        let (_folder, cache) = cache(key("k1"), u64::MAX);
        cache.write("aa", ENGINE, &code("machine code")).unwrap();
        let mode = fs::metadata(cache.path("aa", ENGINE)).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        assert_eq!(cache.read("aa", ENGINE, MAX).unwrap(), code("machine code"));
        assert!(cache.read("bb", ENGINE, MAX).is_none());
        assert!(cache.read("aa", "f0f0f0f0f0f0f0f0f0", MAX).is_none());
        assert_eq!(cache.rejected(), 0);
    }

    #[test]
    fn a_flipped_bit_anywhere_in_a_file_keeps_it_from_being_loaded() {
        let (_folder, cache) = cache(key("k1"), u64::MAX);
        cache.write("aa", ENGINE, &code("machine code")).unwrap();
        let path = cache.path("aa", ENGINE);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut flipped = good.clone();
                flipped[at] ^= 1 << bit;
                fs::write(&path, flipped).unwrap();
                assert!(cache.read("aa", ENGINE, MAX).is_none(), "bit {bit} of {at}");
                assert!(!path.exists(), "bit {bit} of {at}: still there");
            }
        }
        // Where the key's id or its length is another one it may count as old; every other byte as altered.
        let altered = (good.len() - 3) * 8;
        assert!(cache.rejected() >= altered as u64, "{}", cache.rejected());
    }

    #[test]
    fn a_file_that_is_cut_off_or_grown_is_not_loaded() {
        let (_folder, cache) = cache(key("k1"), u64::MAX);
        cache.write("aa", ENGINE, &code("machine code")).unwrap();
        let path = cache.path("aa", ENGINE);
        let good = fs::read(&path).unwrap();
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert!(cache.read("aa", ENGINE, MAX).is_none(), "{length}");
        }
        fs::write(&path, [&good[..], b"x"].concat()).unwrap();
        assert!(cache.read("aa", ENGINE, MAX).is_none());
    }

    #[test]
    fn the_files_of_two_components_cannot_be_exchanged() {
        let (_folder, cache) = cache(key("k1"), u64::MAX);
        cache.write("aa", ENGINE, &code("one tenant's")).unwrap();
        cache.write("bb", ENGINE, &code("another's")).unwrap();
        let (one, other) = (cache.path("aa", ENGINE), cache.path("bb", ENGINE));
        let aside = cache.folder.join("aside");
        fs::rename(&one, &aside).unwrap();
        fs::rename(&other, &one).unwrap();
        fs::rename(&aside, &other).unwrap();
        assert!(cache.read("aa", ENGINE, MAX).is_none());
        assert!(cache.read("bb", ENGINE, MAX).is_none());
        assert_eq!(cache.rejected(), 2);
        assert!(is_empty(&cache));
    }

    /// The name holds a part of the engine's key, the mark all of it.
    #[test]
    fn a_file_of_another_engine_is_not_loaded() {
        let (_folder, cache) = cache(key("k1"), u64::MAX);
        cache.write("aa", ENGINE, &code("machine code")).unwrap();
        let other = format!("{}00", &ENGINE[..16]);
        assert_eq!(cache.path("aa", ENGINE), cache.path("aa", &other));
        assert!(cache.read("aa", &other, MAX).is_none());
        assert_eq!(cache.rejected(), 1);
    }

    #[test]
    fn another_gateways_file_is_not_loaded_and_an_older_keys_is() {
        let (folder, first) = cache(key("k1"), u64::MAX);
        first.write("aa", ENGINE, &code("machine code")).unwrap();
        let path = folder.path().join("cache");
        let forged = ArtifactCache::open(&path, key("k1"), u64::MAX).unwrap();
        assert!(forged.read("aa", ENGINE, MAX).is_none());
        assert_eq!(forged.rejected(), 1);

        let old = DataKey::generate();
        let before = ArtifactCache::open(
            &path,
            ArtifactKeys::new("k1".into(), old.subkey("same")),
            u64::MAX,
        )
        .unwrap();
        before.write("aa", ENGINE, &code("machine code")).unwrap();
        let keys = key("k2").with_old("k1".into(), old.subkey("same"));
        let rotated = ArtifactCache::open(&path, keys, u64::MAX).unwrap();
        assert!(rotated.read("aa", ENGINE, MAX).is_some());
        let forgotten = ArtifactCache::open(&path, key("k2"), u64::MAX).unwrap();
        assert!(forgotten.read("aa", ENGINE, MAX).is_none());
        assert_eq!(forgotten.rejected(), 0);
    }

    #[test]
    fn a_link_or_a_folder_in_the_place_of_a_file_is_not_followed() {
        let (folder, cache) = cache(key("k1"), u64::MAX);
        cache.write("aa", ENGINE, &code("machine code")).unwrap();
        let path = cache.path("aa", ENGINE);
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(cache.read("aa", ENGINE, MAX).is_none());
        assert!(elsewhere.exists());
        fs::create_dir(&path).unwrap();
        assert!(cache.read("aa", ENGINE, MAX).is_none());
        cache.write("aa", ENGINE, &code(&"x".repeat(2000))).unwrap();
        assert!(cache.read("aa", ENGINE, MAX).is_none());
        assert!(is_empty(&cache));
    }

    #[test]
    fn the_least_used_make_room_and_what_a_dead_writer_left_is_removed() {
        let (folder, cache) = cache(key("k1"), 200);
        let used_before = |digest: &str, seconds| {
            let file = File::options()
                .write(true)
                .open(cache.path(digest, ENGINE))
                .unwrap();
            file.set_modified(now() - Duration::from_secs(seconds))
                .unwrap();
        };
        for (digest, seconds) in [("aa", 30), ("bb", 20)] {
            cache.write(digest, ENGINE, &code(&"x".repeat(40))).unwrap();
            used_before(digest, seconds);
        }
        assert!(cache.read("aa", ENGINE, MAX).is_some());
        cache.write("cc", ENGINE, &code(&"x".repeat(40))).unwrap();
        assert!(cache.read("bb", ENGINE, MAX).is_none());
        assert!(cache.read("aa", ENGINE, MAX).is_some());
        assert!(cache.read("cc", ENGINE, MAX).is_some());

        let left = cache.folder.join("x.partial");
        fs::write(&left, b"half").unwrap();
        let fresh = cache.folder.join("y.partial");
        fs::write(&fresh, b"half").unwrap();
        let file = File::options().write(true).open(&left).unwrap();
        file.set_modified(now() - 2 * PARTIAL_KEPT).unwrap();
        ArtifactCache::open(folder.path().join("cache"), key("k1"), 200).unwrap();
        assert!(!left.exists() && fresh.exists());
    }
}
