//! The credentials of a skill, and what a good one looks like.

use crate::{
    About, CredentialKind, CredentialViolation, Oauth,
    wit_credentials::exports::servicetsunami::plugin::credential_schema::{Field, Schema},
};

/// What values of a credential have in common.
#[derive(Clone, Debug)]
pub struct Shape {
    /// One of these it begins with; anything where there is none.
    pub prefixes: Vec<&'static str>,
    /// In characters.
    pub length: std::ops::RangeInclusive<usize>,
    /// Whether a character may stand in it.
    pub allows: fn(char) -> bool,
}

impl Default for Shape {
    /// Printable ASCII without spaces, at most 4,096 characters.
    fn default() -> Self {
        Self {
            prefixes: vec![],
            length: 1..=4096,
            allows: |c| c.is_ascii_graphic(),
        }
    }
}

impl Shape {
    pub fn check(&self, value: &str) -> Result<(), CredentialViolation> {
        let length = value.chars().count();
        if value.is_empty() {
            Err(CredentialViolation::Empty)
        } else if !value.chars().all(self.allows) {
            Err(CredentialViolation::WrongCharacters)
        } else if !self.prefixes.is_empty() && !self.prefixes.iter().any(|p| value.starts_with(p)) {
            Err(CredentialViolation::WrongPrefix)
        } else if length < *self.length.start() {
            Err(CredentialViolation::TooShort)
        } else if length > *self.length.end() {
            Err(CredentialViolation::TooLong)
        } else {
            Ok(())
        }
    }
}

/// What is looked at in a value besides its shape.
type Check = fn(&str) -> Result<(), CredentialViolation>;

/// A credential that a skill needs or can use.
#[derive(Clone, Debug)]
pub struct Credential {
    field: Field,
    shape: Shape,
    check: Option<Check>,
}

impl Credential {
    /// One that the skill needs; [`Credential::optional`] says otherwise.
    pub fn new(key: &str, kind: CredentialKind, label: &str) -> Self {
        Self {
            field: Field {
                key: key.into(),
                kind,
                required: true,
                label: label.into(),
                help: String::new(),
                placeholder: String::new(),
                scopes: vec![],
                oauth: None,
            },
            shape: Shape::default(),
            check: None,
        }
    }

    #[must_use]
    pub fn optional(mut self) -> Self {
        self.field.required = false;
        self
    }
    /// Where to find it, for whoever fills in the form.
    #[must_use]
    pub fn help(mut self, help: &str) -> Self {
        self.field.help = help.into();
        self
    }
    #[must_use]
    pub fn placeholder(mut self, placeholder: &str) -> Self {
        self.field.placeholder = placeholder.into();
        self
    }
    /// What it must be allowed to do at the service.
    #[must_use]
    pub fn scopes(mut self, scopes: &[&str]) -> Self {
        self.field.scopes = scopes.iter().map(|scope| (*scope).into()).collect();
        self
    }
    #[must_use]
    pub fn oauth(mut self, oauth: Oauth) -> Self {
        self.field.oauth = Some(oauth);
        self
    }
    #[must_use]
    pub fn shape(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    /// What values must have in common besides their shape: a checksum, for one.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    #[doc(hidden)]
    pub fn into_field(self) -> Field {
        self.field
    }

    /// Checks a value by the shape of the credential of this key; one of another key may be anything printable.
    #[doc(hidden)]
    pub fn check_among(all: &[Self], key: &str, value: &str) -> Result<(), CredentialViolation> {
        match all.iter().find(|credential| credential.field.key == key) {
            Some(credential) => {
                credential.shape.check(value)?;
                credential.check.map_or(Ok(()), |check| check(value))
            }
            None => Shape::default().check(value),
        }
    }

    #[doc(hidden)]
    pub fn schema(skill: &str, about: About, all: Vec<Self>) -> Schema {
        Schema {
            skill: skill.into(),
            about,
            fields: all.into_iter().map(Self::into_field).collect(),
        }
    }
}
