//! A request, put together step by step.

use crate::{
    BasicAuth, Failure, Method, Operand, Part,
    call::Stop,
    wit::exports::servicetsunami::plugin::skill_adapter::{
        Body, Content, Field, FormField as WitFormField, Request as WitRequest,
    },
};
use serde::Serialize;

pub fn get(url: impl Into<String>) -> Request {
    Request::new(Method::Get, url)
}
pub fn post(url: impl Into<String>) -> Request {
    Request::new(Method::Post, url)
}
pub fn put(url: impl Into<String>) -> Request {
    Request::new(Method::Put, url)
}
pub fn patch(url: impl Into<String>) -> Request {
    Request::new(Method::Patch, url)
}
pub fn delete(url: impl Into<String>) -> Request {
    Request::new(Method::Delete, url)
}

/// One request. Credentials are named, never held.
#[derive(Debug)]
pub struct Request {
    wit: WitRequest,
    broken: Option<Failure>,
}

impl Request {
    /// The URL's own text must be valid as it is; [`Request::path`] adds segments that come from parameters.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            wit: WitRequest {
                method,
                url: vec![Part::Text(url.into())],
                query: Vec::new(),
                headers: Vec::new(),
                body: None,
            },
            broken: None,
        }
    }

    /// Adds `/` and the text, percent-encoded: it stays one segment whatever is in it. The gateway refuses `.` and
    /// `..`, which would be another path.
    #[must_use]
    pub fn path(mut self, segment: impl AsRef<str>) -> Self {
        let segment = segment.as_ref();
        if matches!(segment, "" | "." | "..") && self.broken.is_none() {
            self.broken = Some(Failure::InvalidParams(vec![crate::Violation {
                pointer: String::new(),
                message: format!("`{segment}` cannot stand in the path of a request"),
            }]));
        }
        self.wit
            .url
            .push(Part::Text(format!("/{}", percent_encoded(segment))));
        self
    }

    /// Adds text to the URL as it is: `/repos`, `:batchUpdate`.
    #[must_use]
    pub fn raw_path(mut self, text: impl Into<String>) -> Self {
        self.wit.url.push(Part::Text(text.into()));
        self
    }

    /// Adds a credential to the URL's path: the gateway percent-encodes it.
    #[must_use]
    pub fn path_credential(mut self, key: &str) -> Self {
        self.wit.url.push(Part::Credential(key.into()));
        self
    }

    #[must_use]
    pub fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.wit.query.push(text_field(name, value.to_string()));
        self
    }

    /// Leaves the parameter out where there is no value.
    #[must_use]
    pub fn query_opt(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.wit.headers.push(text_field(name, value.into()));
        self
    }

    /// `Authorization: Bearer` with the credential of this key.
    #[must_use]
    pub fn bearer(self, credential: &str) -> Self {
        self.authorization(vec![
            Part::Text("Bearer ".into()),
            Part::Credential(credential.into()),
        ])
    }

    /// `Authorization: Basic` (RFC 7617).
    #[must_use]
    pub fn basic(self, username: Operand, password: Operand) -> Self {
        self.authorization(vec![
            Part::Text("Basic ".into()),
            Part::Basic(BasicAuth { username, password }),
        ])
    }

    fn authorization(mut self, value: Vec<Part>) -> Self {
        self.wit.headers.push(Field {
            name: "Authorization".into(),
            value,
        });
        self
    }

    #[must_use]
    pub fn json(self, body: &impl Serialize) -> Self {
        match serde_json::to_string(body) {
            Ok(text) => self.content("application/json; charset=utf-8", vec![Part::Text(text)]),
            Err(error) => Self {
                broken: Some(Failure::UnexpectedReply(format!(
                    "the request cannot be written as JSON: {error}"
                ))),
                ..self
            },
        }
    }

    /// `application/x-www-form-urlencoded`
    #[must_use]
    pub fn form_urlencoded(self, fields: &[(&str, &str)]) -> Self {
        let pairs: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{}={}", percent_encoded(name), percent_encoded(value)))
            .collect();
        self.content(
            "application/x-www-form-urlencoded",
            vec![Part::Text(pairs.join("&"))],
        )
    }

    /// A body of bytes as they are.
    #[must_use]
    pub fn bytes(self, content_type: &str, bytes: Vec<u8>) -> Self {
        self.content(content_type, vec![Part::Bytes(bytes)])
    }

    #[must_use]
    pub fn content(mut self, content_type: &str, parts: Vec<Part>) -> Self {
        self.wit.body = Some(Body::Content(Content {
            content_type: content_type.into(),
            parts,
        }));
        self
    }

    /// `multipart/form-data` (RFC 7578)
    #[must_use]
    pub fn form(mut self, fields: Vec<FormField>) -> Self {
        self.wit.body = Some(Body::Form(
            fields.into_iter().map(|field| field.0).collect(),
        ));
        self
    }

    pub(crate) fn into_wit(self) -> Result<WitRequest, Stop> {
        match self.broken {
            Some(failure) => Err(Stop::Fail(failure)),
            None => Ok(self.wit),
        }
    }
}

/// One that was put together by hand: a credential may stand where no function here puts one.
impl From<WitRequest> for Request {
    fn from(wit: WitRequest) -> Self {
        Self { wit, broken: None }
    }
}

/// A field of `multipart/form-data`.
#[derive(Debug)]
pub struct FormField(WitFormField);

impl FormField {
    pub fn text(name: &str, value: impl ToString) -> Self {
        Self(WitFormField {
            name: name.into(),
            file_name: None,
            content_type: None,
            parts: vec![Part::Text(value.to_string())],
        })
    }

    pub fn file(name: &str, file_name: &str, content_type: &str, bytes: Vec<u8>) -> Self {
        Self(WitFormField {
            name: name.into(),
            file_name: Some(file_name.into()),
            content_type: Some(content_type.into()),
            parts: vec![Part::Bytes(bytes)],
        })
    }
}

fn text_field(name: &str, value: String) -> Field {
    Field {
        name: name.into(),
        value: vec![Part::Text(value)],
    }
}

/// Everything but the unreserved characters of RFC 3986.
pub fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
