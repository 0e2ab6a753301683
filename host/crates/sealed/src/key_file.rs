use crate::{
    DataKey, KekId, KeyProvider, SealError,
    data_key::{KEY_BYTES, fill_with_chance},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

/// The longest key file, in bytes: room for a thousand keys.
pub const KEY_FILE_BYTES_MAX: usize = 64 << 10;
/// How a line reads; for error messages.
const LINE: &str = "a line reads `k1 = <base64 of 32 bytes>`";

/// Key-encryption keys as lines `id = base64 of 32 bytes`: the first is current, the others still open what
/// was wrapped under them. Empty lines and those that start with `#` say nothing. Read from a file, or parsed
/// from what stood in a variable of the environment.
pub struct KeyFile {
    current: KekId,
    keys: BTreeMap<KekId, Arc<DataKey>>,
}

impl KeyFile {
    /// Errors: [`SealError::KeyFile`], which names the line and never shows it.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let mut current = None;
        let mut keys = BTreeMap::new();
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what| SealError::KeyFile(format!("line {number}: {what}; {LINE}"));
            let (id, key) = parse_line(line).map_err(wrong)?;
            if keys.insert(id.clone(), Arc::new(key)).is_some() {
                return Err(wrong("the id stands there twice"));
            }
            current.get_or_insert(id);
        }
        let current =
            current.ok_or_else(|| SealError::KeyFile(format!("it holds no key; {LINE}")))?;
        Ok(Self { current, keys })
    }

    /// Reads a file that only its owner may read.
    ///
    /// Errors: [`SealError::KeyFile`], also where others may read it (on Unix).
    pub fn read(path: &Path) -> Result<Self, SealError> {
        let wrong = |what: &dyn std::fmt::Display| {
            SealError::KeyFile(format!("{}: {what}", path.display()))
        };
        let file = File::open(path).map_err(|e| wrong(&e))?;
        check_private(&file).map_err(|e| wrong(&e))?;
        let text = read_text(file).map_err(|e| wrong(&e))?;
        Self::parse(&text).map_err(|error| match error {
            SealError::KeyFile(what) => wrong(&what),
            other => other,
        })
    }

    /// Makes the file with a fresh key, for its owner alone, unless it is there. A file that is there is
    /// whole, whatever was killed while it was made.
    pub fn create_if_missing(path: &Path) -> Result<(), SealError> {
        let created = match path.try_exists() {
            Ok(false) => create(path, Self::generate("k1").as_bytes()),
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        created.map_err(|e| SealError::KeyFile(format!("{}: {e}", path.display())))
    }

    /// A line with a fresh key.
    pub fn generate(id: &str) -> Zeroizing<String> {
        let key = Zeroizing::new(BASE64_STANDARD.encode(DataKey::generate().bytes()));
        Zeroizing::new(format!("{id} = {}\n", *key))
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
        let key = self.keys.get(id).cloned();
        key.ok_or_else(|| SealError::UnknownKey(id.to_owned()))
    }
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyFile(current {})", self.current)
    }
}

fn parse_line(line: &str) -> Result<(KekId, DataKey), &'static str> {
    let (id, encoded) = line.split_once('=').ok_or("there is no `=`")?;
    let id = id.trim();
    if id.is_empty() || !id.bytes().all(is_id_byte) {
        return Err("the id must be letters, digits, `-` and `_`");
    }
    // Room for more than a key, since the decoder asks for room by the length of the text.
    let mut bytes = Zeroizing::new([0; 2 * KEY_BYTES]);
    let count = BASE64_STANDARD
        .decode_slice(encoded.trim(), bytes.as_mut_slice())
        .map_err(|_| "the key is not base64 of 32 bytes")?;
    let key = DataKey::from_slice(&bytes[..count]).ok_or("the key has not 32 bytes")?;
    Ok((id.to_owned(), key))
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Asks the open file and not its path, so that what is checked is what is read.
fn check_private(file: &File) -> io::Result<()> {
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("it is no file; name a file of keys"));
    }
    #[cfg(unix)]
    {
        const OTHERS: u32 = 0o077;
        let mode = std::os::unix::fs::PermissionsExt::mode(&about.permissions());
        if mode & OTHERS != 0 {
            let mode = mode & 0o777;
            let what = format!("others may read it (mode {mode:o}); run `chmod 600` on it");
            return Err(io::Error::new(ErrorKind::PermissionDenied, what));
        }
    }
    Ok(())
}

fn read_text(file: File) -> io::Result<Zeroizing<String>> {
    // Room for all of it from the start: a buffer that grows leaves copies of keys behind.
    let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX + 1));
    file.take(KEY_FILE_BYTES_MAX as u64 + 1)
        .read_to_string(&mut text)?;
    if text.len() > KEY_FILE_BYTES_MAX {
        let what = format!("it is longer than {KEY_FILE_BYTES_MAX} bytes; remove keys not in use");
        return Err(io::Error::new(ErrorKind::FileTooLarge, what));
    }
    Ok(text)
}

/// Writes beside `path` first and links it there when it is whole. A link, unlike a rename, never takes the
/// place of the keys that another process made meanwhile.
fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = draft_path(path);
    let linked = write_private(&draft, content).and_then(|()| link(&draft, path));
    let removed = std::fs::remove_file(&draft);
    linked.and(removed)?;
    #[cfg(unix)]
    File::open(parent(path))?.sync_all()?;
    Ok(())
}

fn link(draft: &Path, path: &Path) -> io::Result<()> {
    match std::fs::hard_link(draft, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

fn draft_path(path: &Path) -> PathBuf {
    let mut chance = [0; 8];
    fill_with_chance(&mut chance);
    let chance = u64::from_be_bytes(chance);
    parent(path).join(format!(".key-file-{chance:016x}.draft"))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_file_says_which_line_and_why_and_shows_no_key() {
        let key = BASE64_STANDARD.encode([7; KEY_BYTES]);
        let long = BASE64_STANDARD.encode([7; 100]);
        let cases = [
            ("".to_owned(), "no key"),
            ("# only this\n\n".to_owned(), "no key"),
            ("# first\nk1".to_owned(), "line 2: there is no `=`"),
            (format!("k 1 = {key}"), "line 1: the id must be"),
            (format!(" = {key}"), "line 1: the id must be"),
            ("k1 = !!".to_owned(), "line 1: the key is not base64"),
            ("k1 = AAAA".to_owned(), "line 1: the key has not 32 bytes"),
            (
                format!("k1 = {long}"),
                "line 1: the key is not base64 of 32",
            ),
            (
                format!("k1 = {key}\nk1 = {key}"),
                "line 2: the id stands there twice",
            ),
        ];
        for (text, expected) in cases {
            let message = KeyFile::parse(&text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?}: {message}");
            assert!(!message.contains(&key[..8]), "{message}");
        }
    }

    #[tokio::test]
    async fn the_first_line_is_current_and_the_others_still_open() {
        let text = format!(
            "# the new one\n{}\n\r\n{}",
            *KeyFile::generate("2026-11"),
            *KeyFile::generate("2025_05")
        );
        let keys = KeyFile::parse(&text).unwrap();
        assert_eq!(keys.current().await.unwrap(), "2026-11");
        assert_eq!(keys.ids(), ["2025_05", "2026-11"]);
        let (new, old) = (keys.key("2026-11").await, keys.key("2025_05").await);
        assert_ne!(new.unwrap().bytes(), old.unwrap().bytes());
        assert_eq!(format!("{keys:?}"), "KeyFile(current 2026-11)");
    }

    #[tokio::test]
    async fn a_file_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        KeyFile::create_if_missing(&path).unwrap();
        let first = KeyFile::read(&path).unwrap().key("k1").await.unwrap();
        KeyFile::create_if_missing(&path).unwrap();
        create(&path, KeyFile::generate("k1").as_bytes()).unwrap();
        let again = KeyFile::read(&path).unwrap().key("k1").await.unwrap();
        assert_eq!(first.bytes(), again.bytes());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_said_by_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing").join("keys");
        let message = KeyFile::create_if_missing(&path).unwrap_err().to_string();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }

    #[test]
    fn a_file_that_is_missing_wrong_or_too_long_is_said_by_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let read = || KeyFile::read(&path).unwrap_err().to_string();
        assert!(read().contains(path.to_str().unwrap()), "{}", read());
        for (content, expected) in [
            ("k1 = AAAA".to_owned(), "line 1"),
            ("#".repeat(KEY_FILE_BYTES_MAX + 1), "longer than"),
        ] {
            write_private(&path, content.as_bytes()).unwrap();
            assert!(read().contains(path.to_str().unwrap()), "{}", read());
            assert!(read().contains(expected), "{}", read());
            std::fs::remove_file(&path).unwrap();
        }
        assert!(KeyFile::read(dir.path()).is_err(), "a folder");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        KeyFile::create_if_missing(&path).unwrap();
        for mode in [0o604, 0o640, 0o620, 0o644] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let message = KeyFile::read(&path).unwrap_err().to_string();
            assert!(message.contains("chmod 600"), "{mode:o}: {message}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        assert!(KeyFile::read(&path).is_ok());
    }
}
