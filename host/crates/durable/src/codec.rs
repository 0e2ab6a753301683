//! Payloads and failure texts, encrypted.
//!
//! Temporal keeps histories for weeks, in a database that others operate. What stands there in clear is
//! ids, names and times.

use futures::{FutureExt, future::BoxFuture};
use prost::Message;
use std::{collections::HashMap, sync::Arc};
use temporalio_common::{
    data_converters::{
        DataConverter, DefaultFailureConverter, FailureConverter, GenericPayloadConverter,
        PayloadCodec, PayloadConversionError, PayloadConverter, SerializationContext,
        SerializationContextData,
    },
    error::{IncomingError, OutgoingError},
    protos::temporal::api::{common::v1::Payload, failure::v1::Failure},
};
use tsunami_sealed::{Aad, DataKey};

const ENCODING: &[u8] = b"binary/aes-256-gcm";
const ENCODING_FIELD: &str = "encoding";
const KEY_FIELD: &str = "key-id";
/// What Temporal's server itself writes into a history in clear, as `json/plain`: an activity was cancelled before a worker
/// had it. Everything else that is clear is not ours.
const BY_THE_SERVER: (&[u8], &[u8]) = (b"json/plain", br#""ACTIVITY_ID_NOT_STARTED""#);
/// What stands in clear where a failure's text was.
const HIDDEN_FAILURE: &str = "encrypted failure";

/// Keys by id; new payloads are sealed under the current one, old histories stay readable.
pub struct CodecKeys {
    current: String,
    keys: HashMap<String, DataKey>,
}

impl CodecKeys {
    pub fn new(current: impl Into<String>, key: DataKey) -> Self {
        let current = current.into();
        Self {
            keys: HashMap::from([(current.clone(), key)]),
            current,
        }
    }
    /// Adds a key that only opens.
    #[must_use]
    pub fn with_old(mut self, id: impl Into<String>, key: DataKey) -> Self {
        self.keys.entry(id.into()).or_insert(key);
        self
    }
}

/// What the SDK is told to do with payloads and failures.
pub fn data_converter(keys: CodecKeys) -> DataConverter {
    DataConverter::new(
        PayloadConverter::default(),
        HidingFailureConverter(DefaultFailureConverter::new(false)),
        SealingCodec(Arc::new(keys)),
    )
}

struct SealingCodec(Arc<CodecKeys>);

#[derive(Debug, thiserror::Error)]
enum CodecError {
    #[error("a payload is not encrypted, and so not one of ours")]
    Clear,
    #[error("a payload is sealed under the key `{0}`, which the key provider does not have")]
    UnknownKey(String),
    #[error(transparent)]
    Seal(#[from] tsunami_sealed::SealError),
    #[error("a payload is no payload: {0}")]
    Shape(#[from] prost::DecodeError),
}

fn about() -> Aad {
    Aad::new("temporal-payload")
}

impl SealingCodec {
    fn seal(&self, payload: &Payload) -> Result<Payload, CodecError> {
        let key = self
            .0
            .keys
            .get(&self.0.current)
            .ok_or_else(|| CodecError::UnknownKey(self.0.current.clone()))?;
        let mut sealed = Payload {
            data: key.seal(&payload.encode_to_vec(), &about())?,
            ..Payload::default()
        };
        sealed
            .metadata
            .insert(ENCODING_FIELD.into(), ENCODING.to_vec());
        sealed
            .metadata
            .insert(KEY_FIELD.into(), self.0.current.clone().into_bytes());
        Ok(sealed)
    }

    fn open(&self, payload: Payload) -> Result<Payload, CodecError> {
        let encoding = payload.metadata.get(ENCODING_FIELD).map(Vec::as_slice);
        if encoding != Some(ENCODING) {
            let is_the_servers = encoding
                .is_some_and(|encoding| (encoding, payload.data.as_slice()) == BY_THE_SERVER);
            // The SDK makes empty payloads for workflows that return nothing; they say nothing.
            return if is_the_servers || payload.data.is_empty() {
                Ok(payload)
            } else {
                Err(CodecError::Clear)
            };
        }
        let id = String::from_utf8_lossy(
            payload
                .metadata
                .get(KEY_FIELD)
                .map(Vec::as_slice)
                .unwrap_or_default(),
        )
        .into_owned();
        let key = self.0.keys.get(&id).ok_or(CodecError::UnknownKey(id))?;
        Ok(Payload::decode(
            key.open(&payload.data, &about())?.as_slice(),
        )?)
    }
}

fn conversion(error: CodecError) -> PayloadConversionError {
    PayloadConversionError::EncodingError(Box::new(error))
}

impl PayloadCodec for SealingCodec {
    fn encode(
        &self,
        _: &SerializationContextData,
        payloads: Vec<Payload>,
    ) -> BoxFuture<'static, Result<Vec<Payload>, PayloadConversionError>> {
        let sealed = payloads
            .iter()
            .map(|payload| self.seal(payload).map_err(conversion))
            .collect();
        futures::future::ready(sealed).boxed()
    }
    fn decode(
        &self,
        _: &SerializationContextData,
        payloads: Vec<Payload>,
    ) -> BoxFuture<'static, Result<Vec<Payload>, PayloadConversionError>> {
        let opened = payloads
            .into_iter()
            .map(|payload| self.open(payload).map_err(conversion))
            .collect();
        futures::future::ready(opened).boxed()
    }
}

/// Moves the text of a failure into its payload, which the codec then encrypts. (The SDK's own converter
/// does so too, but twice for a failure that a workflow passes on, and loses the text by it.)
struct HidingFailureConverter(DefaultFailureConverter);

#[derive(serde::Serialize)]
struct Hidden {
    message: String,
    stack_trace: String,
}

fn hide(failure: &mut Failure, converter: &PayloadConverter, context: &SerializationContextData) {
    if let Some(cause) = failure.cause.as_deref_mut() {
        hide(cause, converter, context);
    }
    if failure.encoded_attributes.is_some() {
        return;
    }
    let hidden = Hidden {
        message: std::mem::replace(&mut failure.message, HIDDEN_FAILURE.to_owned()),
        stack_trace: std::mem::take(&mut failure.stack_trace),
    };
    failure.encoded_attributes = converter
        .to_payload(&SerializationContext::new(context, converter), &hidden)
        .ok();
}

impl FailureConverter for HidingFailureConverter {
    fn to_failure(
        &self,
        error: OutgoingError,
        converter: &PayloadConverter,
        context: &SerializationContextData,
    ) -> Failure {
        let mut failure = self.0.to_failure(error, converter, context);
        hide(&mut failure, converter, context);
        failure
    }
    fn to_error(
        &self,
        failure: Failure,
        converter: &PayloadConverter,
        context: &SerializationContextData,
    ) -> Result<IncomingError, PayloadConversionError> {
        self.0.to_error(failure, converter, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec(id: &str) -> SealingCodec {
        SealingCodec(Arc::new(CodecKeys::new(id, DataKey::generate())))
    }

    fn payload() -> Payload {
        Payload {
            data: b"\"a secret\"".to_vec(),
            ..Payload::default()
        }
    }

    #[test]
    fn a_payload_goes_out_sealed_and_comes_back() {
        let codec = codec("k1");
        let sealed = codec.seal(&payload()).unwrap();
        assert!(!sealed.data.windows(6).any(|w| w == b"secret"));
        assert_eq!(codec.open(sealed).unwrap(), payload());
    }

    #[test]
    fn what_is_clear_altered_or_under_another_key_is_refused() {
        let ours = codec("k1");
        assert!(matches!(ours.open(payload()), Err(CodecError::Clear)));
        let mut sealed = ours.seal(&payload()).unwrap();
        assert!(
            matches!(codec("k2").open(sealed.clone()), Err(CodecError::UnknownKey(id)) if id == "k1")
        );
        assert!(matches!(
            codec("k1").open(sealed.clone()),
            Err(CodecError::Seal(_))
        ));
        sealed.data[20] ^= 1;
        assert!(matches!(ours.open(sealed), Err(CodecError::Seal(_))));
    }

    #[test]
    fn what_the_server_says_of_a_cancelled_activity_is_read() {
        let mut said = Payload {
            data: br#""ACTIVITY_ID_NOT_STARTED""#.to_vec(),
            ..Payload::default()
        };
        let ours = codec("k1");
        assert!(matches!(ours.open(said.clone()), Err(CodecError::Clear)));
        said.metadata
            .insert(ENCODING_FIELD.into(), b"json/plain".to_vec());
        assert_eq!(ours.open(said.clone()).unwrap(), said);
        said.data.push(b' ');
        assert!(matches!(ours.open(said), Err(CodecError::Clear)));
    }

    #[test]
    fn an_old_key_still_opens() {
        let old = DataKey::generate();
        let sealed = SealingCodec(Arc::new(CodecKeys::new(
            "k1",
            DataKey::from_bytes([7; 32].into()),
        )))
        .seal(&payload())
        .unwrap();
        let rotated = CodecKeys::new("k2", old).with_old("k1", DataKey::from_bytes([7; 32].into()));
        assert_eq!(
            SealingCodec(Arc::new(rotated)).open(sealed).unwrap(),
            payload()
        );
    }
}
