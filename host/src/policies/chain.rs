//! A call before the chain: what the policies are given, and what they said.

use super::{Answer, Facts, Link, Verdict, ask, loaded, store};
use crate::{
    app::App,
    db::{TenantTx, without_nul},
    id::{PolicyDecisionId, SkillCallId, TenantId},
    problem::Problem,
};
use serde_json::{Value, json};
use std::collections::HashMap;
use tsunami_plugin_host::policy::{Request, Usage};
use uuid::Uuid;

/// A call, decided.
#[derive(Debug)]
pub struct Evaluated {
    pub verdict: Verdict,
    pub answers: Vec<Answer>,
    /// What the policies were given, without their settings.
    pub input: Request,
}

impl Evaluated {
    /// The input, as it is kept.
    pub fn input_json(&self) -> Result<Value, Problem> {
        serde_json::to_value(&self.input).map_err(|e| Problem::internal(&e))
    }

    /// What a call keeps as its cost, in millionths of a US dollar: 0 where nobody knows (`expected_cost` of the database).
    pub fn expected_cost(&self) -> i64 {
        let known = self.input.usage.estimated_cost_micro_usd;
        known.map_or(0, |cost| i64::try_from(cost).unwrap_or(i64::MAX))
    }

    /// The answers, as they are kept, without those that are the same as the policy's `earlier` one; `None` where there
    /// is nothing to keep.
    pub fn decisions_json(&self, earlier: &HashMap<Uuid, Value>) -> Result<Option<Value>, Problem> {
        let mut kept = Vec::new();
        for answer in &self.answers {
            let said = serde_json::to_value(&answer.decision).map_err(|e| Problem::internal(&e))?;
            let said = without_nul(said);
            if earlier.get(&answer.link.id) == Some(&said) {
                continue;
            }
            let mut input = self.input_json()?;
            input["settings"] = Value::String(answer.link.settings.to_string());
            kept.push(json!({
                "id": PolicyDecisionId::fresh(),
                "source": answer.link.source.as_str(),
                "policy_id": answer.link.id,
                "name": answer.link.name,
                "digest": answer.link.origin.digest,
                "input": input,
                "decision": answer.strictness().as_str(),
                "answer": said,
                "reason": answer.reason(),
                "duration_us": i64::try_from(answer.micros).unwrap_or(i64::MAX),
            }));
        }
        Ok((!kept.is_empty()).then_some(Value::Array(kept)))
    }
}

/// Asks every policy of the chain. Nothing is written, and no connection held while they think.
pub async fn evaluate(
    app: &App,
    tenant: TenantId,
    links: &[Link],
    facts: Facts,
) -> Result<Evaluated, Problem> {
    let usage = match links.is_empty() {
        // Nobody reads it; a replay looks it up as it was then.
        true => None,
        false => {
            let mut tx = app.db().tenant(tenant).await?;
            Some(store::usage(&mut tx, &facts.skill, facts.window_seconds).await?)
        }
    };
    let input = input_of(facts, usage);
    let answers = answers(app, tenant, links, &input).await;
    Ok(Evaluated {
        verdict: Verdict::of(&answers),
        answers,
        input,
    })
}

/// Asks these policies about that input.
pub(super) async fn answers(
    app: &App,
    tenant: TenantId,
    links: &[Link],
    input: &Request,
) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(links.len());
    for link in links {
        let plugin = loaded(app, tenant, &link.origin).await;
        answers.push(ask(app, tenant, plugin, link.clone(), input).await);
    }
    answers
}

fn input_of(facts: Facts, usage: Option<store::UsageRow>) -> Request {
    let amount = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    Request {
        skill: facts.skill,
        action: facts.action,
        risk: facts.risk,
        params: facts.params.to_string(),
        scopes: facts.scopes,
        actor: facts.actor,
        usage: Usage {
            calls_in_window: amount(usage.as_ref().and_then(|u| u.calls)),
            day_spend_micro_usd: amount(usage.as_ref().and_then(|u| u.day)),
            month_spend_micro_usd: amount(usage.as_ref().and_then(|u| u.month)),
            estimated_cost_micro_usd: facts.cost_micro_usd,
        },
        instances: facts.instances,
        models: Vec::new(),
        settings: String::new(),
        now: facts.now_ms,
    }
}

/// Writes down what was said of a call that does not begin, and what it was said of.
pub async fn record(
    tx: &mut TenantTx,
    call: SkillCallId,
    evaluated: &Evaluated,
) -> Result<(), Problem> {
    let input = evaluated.input_json()?;
    store::note_verdict(tx, call, &input, &evaluated.verdict.shown).await?;
    record_answers(tx, call, evaluated).await
}

/// Writes down what each policy said of a call. An answer that is the same as the last one of its policy adds nothing.
pub async fn record_answers(
    tx: &mut TenantTx,
    call: SkillCallId,
    evaluated: &Evaluated,
) -> Result<(), Problem> {
    if evaluated.answers.is_empty() {
        return Ok(());
    }
    let earlier = store::last_answers(tx, call).await?.into_iter().collect();
    if let Some(decisions) = evaluated.decisions_json(&earlier)? {
        store::insert_decisions(tx, call, &decisions).await?;
    }
    Ok(())
}
