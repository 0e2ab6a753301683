//! The log files of processes, which write them by themselves, also while nobody looks after them.

use std::{
    convert::Infallible,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::sync::mpsc;

/// A log file larger than this, in bytes, is moved to `<name>.1`, in place of the one before.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// How often a log's size is looked at.
const SIZE_POLL: Duration = Duration::from_secs(30);
/// How often a log that is followed is looked at.
const FOLLOW_POLL: Duration = Duration::from_millis(250);
/// What is read of a log for its last lines, and at once while it is followed, in bytes.
const READ_BYTES_MAX: u64 = 1 << 20;
/// Lines of a followed log that may wait for their reader.
const FOLLOW_LINES_WAITING_MAX: usize = 256;

/// Opens a log for a process to append to.
pub fn open(path: &Path) -> io::Result<File> {
    cut(path)?;
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// Cuts the log whenever it has grown too long, for ever.
pub async fn keep_short(path: &Path) -> Infallible {
    loop {
        tokio::time::sleep(SIZE_POLL).await;
        let log = path.to_owned();
        let cut = tokio::task::spawn_blocking(move || cut(&log)).await;
        if let Ok(Err(error)) = cut {
            tracing::warn!(log = %path.display(), %error, "log cannot be cut");
        }
    }
}

/// Copies a long log aside and empties it. It is not renamed, because its writer keeps it open; a line that is written
/// in between is lost.
fn cut(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
        let mut old = path.as_os_str().to_owned();
        old.push(".1");
        std::fs::copy(path, old)?;
        OpenOptions::new().write(true).open(path)?.set_len(0)?;
    }
    Ok(())
}

/// The last lines of a log file, for an error or a person; of the last MiB, at most.
pub fn last_lines(path: &Path, count: usize) -> Vec<String> {
    let (mut lines, follower) = Follower::begin(path.to_owned(), count.saturating_add(1));
    if !follower.begun.is_empty() {
        lines.push(String::from_utf8_lossy(&follower.begun).into_owned());
    }
    lines.split_off(lines.len().saturating_sub(count))
}

/// The last `count` lines, and then each further one as it is written, until the receiver is dropped.
/// Needs a tokio runtime.
pub fn follow_lines(path: PathBuf, count: usize) -> mpsc::Receiver<String> {
    let (lines, receiver) = mpsc::channel(FOLLOW_LINES_WAITING_MAX);
    let (mut found, mut follower) = Follower::begin(path, count);
    tokio::spawn(async move {
        while !lines.is_closed() {
            for line in found {
                if lines.send(line).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(FOLLOW_POLL).await;
            found = follower.new_lines();
        }
    });
    receiver
}

struct Follower {
    path: PathBuf,
    position: u64,
    /// A line whose end is not written yet.
    begun: Vec<u8>,
}

impl Follower {
    /// With the last `count` whole lines so far.
    fn begin(path: PathBuf, count: usize) -> (Vec<String>, Self) {
        let end = std::fs::metadata(&path).map_or(0, |log| log.len());
        let position = end.saturating_sub(READ_BYTES_MAX);
        let mut follower = Self {
            path,
            position,
            begun: Vec::new(),
        };
        let mut lines = follower.new_lines();
        if position > 0 && !lines.is_empty() {
            lines.remove(0); // The end of a line that began earlier.
        }
        (lines.split_off(lines.len().saturating_sub(count)), follower)
    }

    fn new_lines(&mut self) -> Vec<String> {
        let length = std::fs::metadata(&self.path).map_or(0, |log| log.len());
        if length < self.position {
            self.position = 0; // It was cut.
        }
        let read = read_from(&self.path, self.position).unwrap_or_default();
        self.position += read.len() as u64;
        self.begun.extend(read);
        let end = self
            .begun
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map(|last| last + 1);
        // A line without end is handed on in pieces.
        let too_long = (self.begun.len() as u64 > READ_BYTES_MAX).then_some(self.begun.len());
        let Some(end) = end.or(too_long) else {
            return Vec::new();
        };
        let rest = self.begun.split_off(end);
        let whole = std::mem::replace(&mut self.begun, rest);
        String::from_utf8_lossy(&whole)
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

fn read_from(path: &Path, position: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(position))?;
    let mut bytes = Vec::new();
    file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_long_log_is_cut_under_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = open(&path).unwrap();
        let half = vec![b'x'; usize::try_from(LOG_BYTES_MAX / 2).unwrap()];
        writer.write_all(&half).unwrap();
        cut(&path).unwrap();
        assert_eq!(
            path.metadata().unwrap().len(),
            LOG_BYTES_MAX / 2,
            "it is not long yet"
        );
        writer.write_all(&half).unwrap();
        writer.write_all(b"y").unwrap();
        cut(&path).unwrap();
        writer.write_all(b"after\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"after\n");
        assert_eq!(
            dir.path().join("log.1").metadata().unwrap().len(),
            LOG_BYTES_MAX + 1
        );
    }

    #[test]
    fn the_last_lines_of_a_huge_log_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let line = "z".repeat(1000);
        std::fs::write(&path, format!("{line}\n").repeat(3000)).unwrap();
        assert_eq!(last_lines(&path, 2), [line.clone(), line.clone()]);
        assert!(
            last_lines(&path, usize::MAX)
                .iter()
                .all(|each| *each == line)
        );
        assert!(last_lines(&dir.path().join("none"), 2).is_empty());
    }

    #[tokio::test]
    async fn a_followed_log_gives_each_line_once_also_after_a_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = open(&path).unwrap();
        write!(writer, "one\ntwo\nthree\n").unwrap();
        let mut lines = follow_lines(path.clone(), 2);
        assert_eq!(lines.recv().await.unwrap(), "two");
        assert_eq!(lines.recv().await.unwrap(), "three");
        write!(writer, "fo").unwrap();
        assert_eq!(last_lines(&path, 1), ["fo"]);
        writeln!(writer, "ur").unwrap();
        assert_eq!(lines.recv().await.unwrap(), "four");
        writer.set_len(0).unwrap();
        writeln!(writer, "five").unwrap();
        assert_eq!(lines.recv().await.unwrap(), "five");
    }
}
