//! What a component says of itself, and whether it may be believed.

use crate::{
    Called, IntakeError, Plugin, PluginError, adapter, check_credential_schema, check_manifest,
    check_policy, credentials, plugin::Moment, policy,
};

/// What a plugin says of itself, by interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    pub manifest: Option<adapter::Manifest>,
    pub credentials: Option<credentials::Schema>,
    pub policy: Option<policy::Manifest>,
}

/// The second of two calls: another time and another chance than those of the first.
fn later() -> Moment {
    Moment::at(4_102_444_800_000, "another chance".into())
}

impl Plugin {
    /// Asks the plugin what it is and checks every word of it. Each question is put twice, at different times and
    /// with different chances: an answer that depends on either is none to agree to.
    ///
    /// # Errors
    /// Which function failed, differs or says what is not well-formed.
    pub fn describe_all(&self) -> Result<Described, IntakeError> {
        let kinds = self.kinds();
        let manifest = kinds
            .adapter
            .then(|| twice("skill-adapter.describe", |at| self.describe_at(at)))
            .transpose()?;
        let credentials = kinds
            .credentials
            .then(|| twice("credential-schema.describe", |at| self.credentials_at(at)))
            .transpose()?;
        let policy = kinds
            .policy
            .then(|| twice("routing-policy.describe", |at| self.describe_policy_at(at)))
            .transpose()?;
        let described = Described {
            manifest,
            credentials,
            policy,
        };
        described.check()?;
        Ok(described)
    }
}

impl Described {
    fn check(&self) -> Result<(), IntakeError> {
        let fields = self.credentials.as_ref().map(|schema| &schema.fields[..]);
        let skill = self.manifest.as_ref().map(|m| m.skill.as_str());
        let mut wrong = Vec::new();
        if let Some(manifest) = &self.manifest {
            wrong.extend(check_manifest(manifest, fields));
        }
        if let Some(schema) = &self.credentials {
            wrong.extend(check_credential_schema(schema, skill));
        }
        if let Some(policy) = &self.policy {
            wrong.extend(check_policy(policy));
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(IntakeError::Manifest(wrong))
        }
    }
}

fn twice<T: PartialEq>(
    function: &'static str,
    ask: impl Fn(Moment) -> Result<Called<T>, PluginError>,
) -> Result<T, IntakeError> {
    let failed = |error| IntakeError::Failed { function, error };
    let first = ask(Moment::none()).map_err(failed)?.value;
    let second = ask(later()).map_err(failed)?.value;
    if first == second {
        Ok(first)
    } else {
        Err(IntakeError::Differs { function })
    }
}
