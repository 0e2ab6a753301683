/// What a sealed value is about. Each part is written with its length, so that no two lists of parts read
/// the same: moving a byte from one field to its neighbour gives other associated data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aad(Vec<u8>);

impl Aad {
    /// `purpose` keeps the uses apart: `credential`, `instance-secrets`.
    pub fn new(purpose: &str) -> Self {
        Self(Vec::new()).field(purpose.as_bytes())
    }

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
