//! A skill: what it is, and an entry for each of its actions.

use crate::{
    About, Credential, Failure, Invocation, Risk,
    call::{Call, Done, Stop, to_step},
    reply::Reply,
    wit::exports::servicetsunami::plugin::skill_adapter::{
        Action, Example, Manifest, Pagination, Reply as WitReply, Scope, Step, Violation,
    },
    wit_credentials::exports::servicetsunami::plugin::credential_schema::Schema as CredentialSchema,
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

type Run = Box<dyn Fn(&mut Call, Value) -> Result<Done<Value>, Stop>>;
/// JSON that only descriptions want.
type Made = fn() -> Value;

/// What a plugin teaches the gateway.
pub struct Skill {
    name: String,
    about: About,
    hosts: Vec<String>,
    host_settings: Vec<String>,
    settings_schema: fn() -> Value,
    actions: Vec<ActionBuilder>,
}

impl Skill {
    pub fn new(name: &str, about: About) -> Self {
        Self {
            name: name.into(),
            about,
            hosts: vec![],
            host_settings: vec![],
            settings_schema: || json!({ "type": "object", "additionalProperties": false }),
            actions: vec![],
        }
    }

    /// A host that requests may go to: `slack.com`, `*.atlassian.net`.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// What a tenant can set for the skill.
    #[must_use]
    pub fn settings<S: JsonSchema>(mut self) -> Self {
        self.settings_schema = schema_of::<S>;
        self
    }

    /// A setting, by JSON Pointer, to whose host requests may go as well.
    #[must_use]
    pub fn host_setting(mut self, pointer: &str) -> Self {
        self.host_settings.push(pointer.into());
        self
    }

    #[must_use]
    pub fn action(mut self, action: ActionBuilder) -> Self {
        self.actions.push(action);
        self
    }

    pub fn manifest(self) -> Manifest {
        Manifest {
            skill: self.name,
            about: self.about,
            actions: self
                .actions
                .into_iter()
                .map(ActionBuilder::describe)
                .collect(),
            hosts: self.hosts,
            host_settings: self.host_settings,
            settings_schema: (self.settings_schema)().to_string(),
        }
    }

    #[doc(hidden)]
    pub fn credential_schema(self, credentials: Vec<Credential>) -> CredentialSchema {
        Credential::schema(&self.name, self.about, credentials)
    }

    /// What comes next in a call.
    pub fn next(&self, call: Invocation, replies: Vec<WitReply>) -> Result<Step, Failure> {
        let action = self
            .actions
            .iter()
            .find(|action| action.name == call.action);
        let action =
            action.ok_or_else(|| violation(format!("there is no action `{}`", call.action)))?;
        let params = parse("parameters", &call.params)?;
        let settings = parse("settings", &call.settings)?;
        let replies = replies.into_iter().map(Reply::from).collect();
        let mut call = Call::new(
            call.action,
            settings,
            replies,
            call.idempotency_key,
            call.now,
        );
        to_step((action.run)(&mut call, params))
    }
}

fn parse(what: &str, text: &str) -> Result<Value, Failure> {
    let text = if text.is_empty() { "{}" } else { text };
    serde_json::from_str(text).map_err(|e| violation(format!("the {what} are no JSON: {e}")))
}

fn violation(message: String) -> Failure {
    Failure::InvalidParams(vec![Violation {
        pointer: String::new(),
        message,
    }])
}

/// One action, described step by step. It reads, and so is idempotent, until [`ActionBuilder::risk`] says otherwise.
pub struct ActionBuilder {
    name: &'static str,
    title: &'static str,
    summary: &'static str,
    risk: Risk,
    params: fn() -> Value,
    output: fn() -> Value,
    examples: Vec<(&'static str, Made)>,
    scopes: Vec<(&'static str, &'static str)>,
    credentials: Vec<&'static str>,
    idempotent: Option<bool>,
    pagination: Option<(&'static str, &'static str)>,
    run: Run,
}

/// An action whose parameters and output are types: their schemas are derived, and its function is given what was
/// parsed. Parameter types want `#[serde(deny_unknown_fields)]`.
pub fn action<P, O>(
    name: &'static str,
    run: fn(&mut Call, P) -> Result<Done<O>, Stop>,
) -> ActionBuilder
where
    P: DeserializeOwned + JsonSchema + 'static,
    O: Serialize + JsonSchema + 'static,
{
    let run: Run = Box::new(move |call, params| {
        let params = serde_json::from_value(params)
            .map_err(|error| Stop::Fail(violation(error.to_string())))?;
        let done = run(call, params)?;
        let output = serde_json::to_value(&done.output).map_err(|error| {
            Stop::unexpected(format!("the output cannot be written as JSON: {error}"))
        })?;
        Ok(Done::new(output, done.summary))
    });
    ActionBuilder::new(name, schema_of::<P>, schema_of::<O>, run)
}

/// An action with schemas of its own, whose function is given JSON.
pub fn action_without_schema(
    name: &'static str,
    params: fn() -> Value,
    output: fn() -> Value,
    run: fn(&mut Call, Value) -> Result<Done<Value>, Stop>,
) -> ActionBuilder {
    ActionBuilder::new(name, params, output, Box::new(run))
}

impl ActionBuilder {
    fn new(name: &'static str, params: fn() -> Value, output: fn() -> Value, run: Run) -> Self {
        Self {
            name,
            title: name,
            summary: "",
            risk: Risk::Read,
            params,
            output,
            examples: vec![],
            scopes: vec![],
            credentials: vec![],
            idempotent: None,
            pagination: None,
            run,
        }
    }

    #[must_use]
    pub fn title(mut self, title: &'static str) -> Self {
        self.title = title;
        self
    }
    #[must_use]
    pub fn summary(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }
    #[must_use]
    pub fn risk(mut self, risk: Risk) -> Self {
        self.risk = risk;
        self
    }
    /// Parameters that the action takes. Made when the skill is described, and not in each of its calls.
    #[must_use]
    pub fn example(mut self, title: &'static str, params: fn() -> Value) -> Self {
        self.examples.push((title, params));
        self
    }
    /// What a tenant may restrict, and the JSON Pointer to its values in the parameters. Named again with another pointer
    /// where an action has several places for them, as a message has for its recipients: where a tenant restricts them, one
    /// at least has to name some. A parameter without which the action chooses a value for itself, beside another place
    /// that names one, has to be required.
    #[must_use]
    pub fn scope(mut self, name: &'static str, pointer: &'static str) -> Self {
        self.scopes.push((name, pointer));
        self
    }
    /// Key of a credential that the action needs.
    #[must_use]
    pub fn credential(mut self, key: &'static str) -> Self {
        self.credentials.push(key);
        self
    }
    /// Whether the service drops a request that is repeated with the same idempotency key.
    #[must_use]
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = Some(idempotent);
        self
    }
    /// Where the cursor stands in the parameters, and that of the next page in the output.
    #[must_use]
    pub fn pages(mut self, cursor: &'static str, next: &'static str) -> Self {
        self.pagination = Some((cursor, next));
        self
    }

    fn describe(self) -> Action {
        Action {
            name: self.name.into(),
            title: self.title.into(),
            summary: self.summary.into(),
            risk: self.risk,
            params_schema: (self.params)().to_string(),
            output_schema: (self.output)().to_string(),
            examples: self
                .examples
                .into_iter()
                .map(|(title, params)| Example {
                    title: title.into(),
                    params: params().to_string(),
                })
                .collect(),
            scopes: self
                .scopes
                .into_iter()
                .map(|(name, pointer)| Scope {
                    name: name.into(),
                    pointer: pointer.into(),
                })
                .collect(),
            credentials: self.credentials.into_iter().map(Into::into).collect(),
            idempotent: self.idempotent.unwrap_or(self.risk == Risk::Read),
            pagination: self.pagination.map(|(cursor, next)| Pagination {
                cursor: cursor.into(),
                next: next.into(),
            }),
        }
    }
}

/// JSON Schema (2020-12) of a type, whole in one piece.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.remove("title");
    schema.to_value()
}
