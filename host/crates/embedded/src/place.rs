//! Where a PostgreSQL lives, and as whom: root may not run it, and whoever does must reach its folders.

use crate::{EmbeddedError, io};
use nix::unistd::{Uid, User};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

/// The users that root may let PostgreSQL run as; the first one that there is.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];
/// Where folders lie that must be reachable for everybody and outlast a reboot.
const REACHABLE: &str = "/var/tmp";
/// Where sockets lie whose path would be too long. Not `TMPDIR`, which may be another one at the next start.
const SHORT: &str = "/tmp";
/// The longest path of a socket, in bytes: 103 on macOS (`sun_path` is 104 with its end), 107 on Linux.
const SOCKET_PATH_BYTES_MAX: usize = 103;
/// PostgreSQL's name for its socket at its usual port.
const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// The user and group that a server runs as, where that is not the user who starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug)]
pub struct Place {
    pub account: Option<Account>,
    /// Of the user who starts the server: log, pid file and lock are in here. Others may pass through, and not look.
    pub home: PathBuf,
    /// Of the user it runs as, and of no other.
    pub data: PathBuf,
    /// The same.
    pub sockets: PathBuf,
    /// Holds `bin/postgres`.
    pub install: PathBuf,
}

impl Place {
    /// Makes the folders, where they are not there.
    pub fn prepare(dir: &Path, install: &Path) -> Result<Self, EmbeddedError> {
        fs::create_dir_all(dir).map_err(io(format!("cannot make {}", dir.display())))?;
        let dir = dir
            .canonicalize()
            .map_err(io(format!("cannot find {}", dir.display())))?;
        let install = install
            .canonicalize()
            .map_err(io(format!("cannot find {}", install.display())))?;
        let (home, account) = home_of(&dir)?;
        let Some(account) = account else {
            return Self::at(home, None, install);
        };
        if home != dir {
            tracing::info!(folder = %home.display(), "PostgreSQL does not run as root, and others cannot reach {}; its data is kept elsewhere", dir.display());
        }
        let mut place = Self::at(home, Some(account), install)?;
        let server = place.install.join("bin/postgres");
        let server = server
            .canonicalize()
            .map_err(io(format!("cannot find {}", server.display())))?;
        if !is_reachable(&server, account) {
            place.install = copy_programs(&place.install, &dir)?;
        }
        Ok(place)
    }

    fn at(
        home: PathBuf,
        account: Option<Account>,
        install: PathBuf,
    ) -> Result<Self, EmbeddedError> {
        keep_private(&home, None, if account.is_some() { 0o711 } else { 0o700 })?;
        let sockets = socket_dir(&home);
        keep_private(&sockets, account, 0o700)?;
        Ok(Self {
            account,
            data: home.join("data"),
            home,
            sockets,
            install,
        })
    }

    /// A folder below `home` for the server to write to.
    pub fn make_folder(&self, name: &str) -> Result<PathBuf, EmbeddedError> {
        let path = self.home.join(name);
        keep_private(&path, self.account, 0o700)?;
        Ok(path)
    }
}

/// Where the server of this folder really lives, and as whom it runs where root starts it.
pub fn home_of(dir: &Path) -> Result<(PathBuf, Option<Account>), EmbeddedError> {
    let dir = dir
        .canonicalize()
        .map_err(io(format!("cannot find {}", dir.display())))?;
    if !Uid::effective().is_root() {
        return Ok((dir, None));
    }
    let account = account_for(&dir)?;
    if is_reachable(&dir, account) {
        return Ok((dir, Some(account)));
    }
    let home = Path::new(REACHABLE).join(format!("tsunami-{}", short_hash(&dir)));
    let account = account_for(&home)?;
    Ok((home, Some(account)))
}

/// Whom root lets the server of this folder run as: the owner of the data, where there is some already.
fn account_for(home: &Path) -> Result<Account, EmbeddedError> {
    if let Ok(data) = fs::symlink_metadata(home.join("data"))
        && data.uid() != 0
    {
        return Ok(Account {
            uid: data.uid(),
            gid: data.gid(),
        });
    }
    for name in ACCOUNTS {
        let user = User::from_name(name)
            .map_err(|errno| io(format!("cannot look up the user {name}"))(errno.into()))?;
        if let Some(user) = user {
            return Ok(Account {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
            });
        }
    }
    let nobody_there = std::io::Error::new(
        ErrorKind::NotFound,
        "add a user `postgres`, or do not run as root",
    );
    Err(io("PostgreSQL refuses to run as root")(nobody_there))
}

/// Whether the account may pass through all folders above this one.
fn is_reachable(path: &Path, account: Account) -> bool {
    let may_enter = |folder: &Path| {
        fs::metadata(folder).is_ok_and(|folder| {
            let bit = match () {
                () if folder.uid() == account.uid => 0o100,
                () if folder.gid() == account.gid => 0o010,
                () => 0o001,
            };
            folder.mode() & bit != 0
        })
    };
    path.ancestors().skip(1).all(may_enter)
}

/// Makes a folder of this owner and mode, or sets both. A folder of anybody else is refused: in a folder where everybody
/// may write, somebody could have put it there for us to use.
fn keep_private(path: &Path, owner: Option<Account>, mode: u32) -> Result<(), EmbeddedError> {
    let failed = |cause| io(format!("cannot make {} private", path.display()))(cause);
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    // What is checked is what is changed: one open folder, and no link to one.
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_DIRECTORY;
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(failed)?;
    let found = folder.metadata().map_err(failed)?.uid();
    if found != Uid::effective().as_raw() && owner.is_none_or(|owner| owner.uid != found) {
        return Err(EmbeddedError::Foreign {
            path: path.to_owned(),
            owner: found,
        });
    }
    if let Some(Account { uid, gid }) = owner {
        fchown(&folder, Some(uid), Some(gid)).map_err(failed)?;
    }
    folder
        .set_permissions(Permissions::from_mode(mode))
        .map_err(failed)
}

/// In the folder itself, unless its path is too long for that.
fn socket_dir(home: &Path) -> PathBuf {
    let near = home.join("socket");
    if near.join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return near;
    }
    Path::new(SHORT).join(format!("tsunami-{}", short_hash(home)))
}

/// Copies the programs to where everybody reaches them, unless the same ones are there. The whole folder, because they
/// find their libraries beside them.
fn copy_programs(from: &Path, dir: &Path) -> Result<PathBuf, EmbeddedError> {
    let failed = |cause| io(format!("cannot copy {} to {REACHABLE}", from.display()))(cause);
    let target = Path::new(REACHABLE).join(format!("tsunami-{}-programs", short_hash(dir)));
    keep_private(&target, None, 0o755)?;
    let (programs, stamp_file) = (target.join("postgres"), target.join("copied-from"));
    let server = fs::metadata(from.join("bin/postgres")).map_err(failed)?;
    let stamp = format!("{} {} {}", from.display(), server.mtime(), server.len());
    if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) {
        return Ok(programs);
    }
    tracing::info!(folder = %target.display(), "PostgreSQL does not run as root, and others cannot reach {}; its programs are copied", from.display());
    let _ = fs::remove_file(&stamp_file);
    let _ = fs::remove_dir_all(&programs);
    copy_tree(from, &programs).map_err(failed)?;
    fs::write(stamp_file, stamp).map_err(failed)?;
    Ok(programs)
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, Permissions::from_mode(0o755))?; // Whatever the umask says.
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (entry, target) = (entry.path(), to.join(entry.file_name()));
        match fs::symlink_metadata(&entry)? {
            found if found.is_dir() => copy_tree(&entry, &target)?,
            found if found.is_symlink() => {
                std::os::unix::fs::symlink(fs::read_link(&entry)?, target)?
            }
            found => {
                fs::copy(&entry, &target)?;
                let mode = if found.mode() & 0o100 == 0 {
                    0o644
                } else {
                    0o755
                };
                fs::set_permissions(&target, Permissions::from_mode(mode))?;
            }
        }
    }
    Ok(())
}

fn short_hash(path: &Path) -> String {
    hex::encode(&Sha256::digest(path.as_os_str().as_encoded_bytes())[..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_lie_elsewhere_only_where_their_path_would_be_too_long() {
        let short = Path::new("/srv/tsunami/postgres");
        assert_eq!(socket_dir(short), short.join("socket"));
        let long = PathBuf::from(format!("/srv/{}", "deep/".repeat(20)));
        let found = socket_dir(&long);
        assert!(
            found.starts_with(SHORT) && found.join(SOCKET_NAME).as_os_str().len() < 60,
            "{}",
            found.display()
        );
        assert_ne!(found, socket_dir(&long.join("other")));
    }

    #[test]
    fn a_link_is_not_taken_for_a_private_folder() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::create_dir(&victim).unwrap();
        let before = fs::metadata(&victim).unwrap().mode();
        std::os::unix::fs::symlink(&victim, dir.path().join("link")).unwrap();
        keep_private(&dir.path().join("link"), None, 0o711).unwrap_err();
        assert_eq!(fs::metadata(&victim).unwrap().mode(), before);
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        if !Uid::effective().is_root() {
            // Only root can make one; there is always one that is root's.
            let error = keep_private(Path::new("/usr"), None, 0o700).unwrap_err();
            assert!(error.to_string().contains("belongs to user 0"), "{error}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (mine, theirs) = (
            Account {
                uid: 65_534,
                gid: 65_534,
            },
            12_345,
        );
        std::os::unix::fs::chown(dir.path(), Some(theirs), None).unwrap();
        let error = keep_private(dir.path(), Some(mine), 0o700).unwrap_err();
        assert!(
            error.to_string().contains("belongs to user 12345"),
            "{error}"
        );
        std::os::unix::fs::chown(dir.path(), Some(mine.uid), None).unwrap();
        keep_private(dir.path(), Some(mine), 0o700).unwrap();
    }

    #[test]
    fn a_folder_below_a_private_one_is_not_reachable() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().canonicalize().unwrap().join("a/b");
        fs::create_dir_all(&below).unwrap();
        let stranger = Account {
            uid: 12_345,
            gid: 12_345,
        };
        fs::set_permissions(dir.path(), Permissions::from_mode(0o710)).unwrap();
        assert!(!is_reachable(&below, stranger));
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
        assert!(is_reachable(&below, stranger));
    }
}
