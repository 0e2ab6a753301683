//! Ports of the loopback interface for servers of our own.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, Ipv6Addr, TcpListener},
    ops::Range,
    path::Path,
};

/// Below the ports that systems hand out for outgoing connections (from 32768 on Linux, 49152 on macOS), so that a
/// kept port is not taken by one of those while its server is down.
const PORTS: Range<u16> = 20_000..32_768;

/// A port of the loopback interface that nothing listens on right now.
///
/// # Errors
/// There is none in the range, or the system does not let us listen at all.
pub fn free_port() -> io::Result<u16> {
    let span = u64::from(PORTS.end - PORTS.start);
    let begin = RandomState::new().hash_one("port") % span;
    (0..span)
        .filter_map(|step| u16::try_from((begin + step) % span).ok())
        .map(|offset| PORTS.start + offset)
        .find(|port| is_free(*port))
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::AddrInUse,
                "no port of the loopback interface is free",
            )
        })
}

/// The port that `file` names, where it is still free or `ours`; else another one, which is noted there.
///
/// # Errors
/// No port is free, or the file cannot be written.
pub fn kept_port(file: &Path, ours: bool) -> io::Result<u16> {
    let kept = std::fs::read_to_string(file)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    if let Some(port) = kept
        && (ours || is_free(port))
    {
        return Ok(port);
    }
    let port = free_port()?;
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, port.to_string())?;
    std::fs::rename(new, file)?;
    Ok(port)
}

/// Under both names of the loopback interface; a machine without IPv6 has one.
fn is_free(port: u16) -> bool {
    let taken_in_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port))
        .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    !taken_in_ipv6 && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_kept_until_another_program_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("port");
        let first = kept_port(&file, false).unwrap();
        assert_eq!(kept_port(&file, false).unwrap(), first);
        let _other_program = TcpListener::bind(("127.0.0.1", first)).unwrap();
        assert_eq!(
            kept_port(&file, true).unwrap(),
            first,
            "it is our own server that listens"
        );
        let second = kept_port(&file, false).unwrap();
        assert_ne!(second, first);
        assert_eq!(kept_port(&file, false).unwrap(), second);
    }

    #[test]
    fn a_file_that_names_no_port_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("port");
        std::fs::write(&file, "12,").unwrap();
        let port = kept_port(&file, true).unwrap();
        assert!(PORTS.contains(&port));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), port.to_string());
    }
}
