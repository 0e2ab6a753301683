//! A routing policy: its settings as a type, and a function that decides.

use crate::{
    About,
    policy_types::{Approval, Decision as WitDecision, Manifest, Request, Route},
    skill::schema_of,
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What a policy says.
pub type Decision = WitDecision;

/// The call may go ahead.
pub fn allow() -> Decision {
    Decision::Allow(Route {
        instance: None,
        model: None,
    })
}

/// The call is stopped; whoever called reads the reason.
pub fn deny(reason: impl Into<String>) -> Decision {
    Decision::Deny(reason.into())
}

/// A person has to agree, who reads the reason.
pub fn ask(reason: impl Into<String>) -> Asked {
    Asked(Approval {
        reason: reason.into(),
        roles: vec![],
        second_person: false,
        route: Route {
            instance: None,
            model: None,
        },
    })
}

/// What an approver is asked; `.into()` makes it a [`Decision`].
#[derive(Debug)]
pub struct Asked(Approval);

impl Asked {
    /// Who may approve.
    #[must_use]
    pub fn roles(mut self, roles: &[String]) -> Self {
        self.0.roles = roles.to_vec();
        self
    }
    /// Whoever asked for the call may not approve it.
    #[must_use]
    pub fn second_person(mut self) -> Self {
        self.0.second_person = true;
        self
    }
}

impl From<Asked> for Decision {
    fn from(asked: Asked) -> Self {
        Decision::Ask(asked.0)
    }
}

type Decide = Box<dyn Fn(&Request, Value) -> Decision>;

pub struct Policy {
    name: String,
    about: About,
    settings_schema: fn() -> Value,
    examples: Vec<Value>,
    decide: Decide,
}

impl Policy {
    /// With settings as a type, whose schema is derived. Settings that cannot be read deny, and say why.
    pub fn new<S>(name: &str, about: About, decide: fn(&Request, S) -> Decision) -> Self
    where
        S: DeserializeOwned + JsonSchema + 'static,
    {
        Self {
            name: name.into(),
            about,
            settings_schema: schema_of::<S>,
            examples: vec![],
            decide: Box::new(
                move |request, settings| match serde_json::from_value(settings) {
                    Ok(settings) => decide(request, settings),
                    Err(error) => deny(format!("the policy's settings cannot be used: {error}")),
                },
            ),
        }
    }

    /// Settings that pass the schema.
    #[must_use]
    pub fn example(mut self, settings: Value) -> Self {
        self.examples.push(settings);
        self
    }

    #[doc(hidden)]
    pub fn manifest(self) -> Manifest {
        Manifest {
            name: self.name,
            about: self.about,
            settings_schema: (self.settings_schema)().to_string(),
            examples: self.examples.iter().map(Value::to_string).collect(),
        }
    }

    pub fn decide(&self, request: Request) -> Decision {
        let text = match request.settings.as_str() {
            "" => "{}",
            text => text,
        };
        match serde_json::from_str(text) {
            Ok(settings) => (self.decide)(&request, settings),
            Err(error) => deny(format!("the policy's settings are no JSON: {error}")),
        }
    }
}
