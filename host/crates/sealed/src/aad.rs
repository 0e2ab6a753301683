/// What a sealed value is about: it opens only where the same is said again.
///
/// Each part is written with its length before it (8 bytes, big-endian), so that no two lists of parts read
/// the same: a byte that moves from one field to its neighbour gives other associated data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aad(Vec<u8>);

impl Aad {
    /// `purpose` keeps the uses apart: `credential`, `tenant-data-key`.
    pub fn new(purpose: &str) -> Self {
        Self(Vec::new()).field(purpose.as_bytes())
    }

    /// Adds a part; the order counts. Numbers go in as `to_be_bytes`, ids as their bytes.
    #[must_use]
    pub fn field(mut self, part: &[u8]) -> Self {
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part);
        self
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn aad(fields: &[Vec<u8>]) -> Aad {
        fields
            .iter()
            .fold(Aad::new("test"), |aad, field| aad.field(field))
    }

    proptest! {
        /// Few bytes and short fields, so that lists which differ only in where a field ends are common.
        #[test]
        fn other_fields_give_other_bytes(
            a in prop::collection::vec(prop::collection::vec(0..2u8, 0..4), 0..4),
            b in prop::collection::vec(prop::collection::vec(0..2u8, 0..4), 0..4),
        ) {
            prop_assert_eq!(a == b, aad(&a) == aad(&b));
        }
    }

    #[test]
    fn the_purpose_counts() {
        assert_ne!(Aad::new("a").field(b"b"), Aad::new("b").field(b"b"));
        assert_ne!(Aad::new("a").field(b"b"), Aad::new("ab"));
    }
}
