//! Bytes that may hold a credential: wiped when they are dropped, and when they grow.

use std::io::{self, Write};

use zeroize::Zeroize;

/// A growing buffer that leaves no copy of its content behind. A `Vec` would, each time it moves.
#[derive(Default)]
pub(crate) struct SecretBuffer(Vec<u8>);

impl SecretBuffer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn reserve(&mut self, additional: usize) {
        let needed = self.0.len() + additional;
        if needed <= self.0.capacity() {
            return;
        }
        let mut larger = Vec::with_capacity(needed.max(self.0.capacity() * 2));
        larger.extend_from_slice(&self.0);
        self.0.zeroize();
        self.0 = larger;
    }
}

impl Write for SecretBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reserve(bytes.len());
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRef<[u8]> for SecretBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SecretBuffer {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_however_often_it_grew() {
        let mut buffer = SecretBuffer::with_capacity(3);
        let text = "a longer text than there was room for";
        for byte in text.as_bytes() {
            buffer.write_all(&[*byte]).unwrap();
        }
        assert_eq!(buffer.as_ref(), text.as_bytes());
        assert_eq!(buffer.len(), text.len());
    }
}
