use crate::ProcessError;
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    path::Path,
};

/// A folder that only this process uses. The system lets go of it when the process ends, however it does.
#[derive(Debug)]
pub struct FolderLock {
    _held: Flock<File>,
}

impl FolderLock {
    pub fn take(folder: &Path) -> Result<Self, ProcessError> {
        let path = folder.join("lock");
        let failed = |cause| ProcessError::Write {
            path: path.clone(),
            cause,
        };
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        let mut held =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, _)| {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                ProcessError::Locked {
                    path: folder.to_owned(),
                    pid: pid.trim().to_owned(),
                }
            })?;
        held.set_len(0)
            .and_then(|()| held.rewind())
            .and_then(|()| write!(held, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(Self { _held: held })
    }
}
