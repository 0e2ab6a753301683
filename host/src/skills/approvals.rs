//! What a person must agree to first. An approval is for exactly one call, once, for a time.

use super::{
    CallFailure, CallStatus, activities, configs,
    deciding::{self, Judged, Prepared},
    router::{self, LEASE, find, workflow_of},
    store::{self, ApprovalRow, CallRow, Decider, End, Stands},
    trace::record,
    workflow,
};
use crate::{
    app::App,
    caller::{Caller, Permission, Role},
    db::TenantTx,
    id::{ApiKeyId, ApprovalId, SkillCallId, TaskId},
    outbox,
    policies::Asks,
    problem::Problem,
    tenants,
    traces::StepType,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};

/// What became of asking.
pub(super) enum Taken {
    Granted,
    Waiting {
        approval: ApprovalId,
        expires_at: OffsetDateTime,
    },
    Refused(CallFailure),
}

/// What an approval is bound to: the exact action and parameters, where it goes, with which plugin, and what it costs where
/// that is known.
fn fingerprint(app: &App, row: &CallRow, prepared: &Prepared) -> [u8; 32] {
    let config = &prepared.skill.config;
    let mut bound = vec![
        json!(row.skill_name),
        json!(row.action),
        row.params.clone(),
        config.settings.clone(),
        json!(prepared.instance.id),
        json!(prepared.installed.plugin.digest()),
    ];
    bound.extend(configs::cost(app, config, &row.action).map(|cost| json!(cost)));
    let bound = Value::Array(bound);
    Sha256::digest(bound.to_string()).into()
}

/// Asks a person, or takes up what they said.
pub(super) async fn take_up(
    app: &App,
    tx: &mut TenantTx,
    row: &CallRow,
    prepared: &Prepared,
    asks: &Asks,
) -> Result<Taken, Problem> {
    let Some(id) = row.approval_id else {
        return ask(app, tx, row, prepared, asks).await;
    };
    let approval = store::lock_approval(tx, id)
        .await?
        .ok_or_else(|| Problem::internal(&"an approval vanished"))?;
    let now = app.clock().now();
    let wanted = &prepared.skill.config.approver_roles;
    let had = approval.decided_with_roles.as_deref();
    match approval.status.as_str() {
        "approved" if !is_enough(&approval, asks) => {
            let why = "A policy asks for more now than it did when this was approved: other roles, or a second person. Ask again.";
            refuse(app, tx, row, &approval, "approval_stale", why).await
        }
        "approved" if !has_a_role(had, &approval.roles, wanted) => {
            let why = "The skill's configuration asks for an approval by other roles now than whoever approved this has. Ask again.";
            refuse(app, tx, row, &approval, "approval_stale", why).await
        }
        "approved" if approval.fingerprint != fingerprint(app, row, prepared) => {
            let why = "What was approved has changed since: the action's plugin, settings, cost or instance are other ones. Ask again.";
            refuse(app, tx, row, &approval, "approval_stale", why).await
        }
        "approved" | "pending" if approval.expires_at <= now => {
            refuse(
                app,
                tx,
                row,
                &approval,
                "approval_expired",
                "Nobody decided, or the call did not go on, before the approval ran out.",
            )
            .await
        }
        "approved" => Ok(Taken::Granted),
        "pending" => Ok(Taken::Waiting {
            approval: id,
            expires_at: approval.expires_at,
        }),
        _ => {
            let by = approval.decided_by.as_deref().unwrap_or("nobody");
            Ok(Taken::Refused(CallFailure::new(
                "approval_rejected",
                format!("{by} did not approve the call."),
            )))
        }
    }
}

/// Whether who approved had to be all that is asked for now.
fn is_enough(approval: &ApprovalRow, asks: &Asks) -> bool {
    let had = role_sets(approval);
    asks.role_sets.iter().all(|set| had.contains(set))
        && (approval.second_person || !asks.second_person)
}

/// Whether who approved has one of the roles that the configuration asks for now. Where their roles were not written down,
/// they had one of those that it asked for then.
fn has_a_role(had: Option<&[String]>, asked_then: &[String], asked_now: &[String]) -> bool {
    let is_wanted = |role: &String| asked_now.contains(role);
    asked_now.is_empty()
        || match had {
            Some(roles) => roles.iter().any(is_wanted),
            None => !asked_then.is_empty() && asked_then.iter().all(is_wanted),
        }
}

fn role_sets(approval: &ApprovalRow) -> Vec<Vec<String>> {
    serde_json::from_value(approval.role_sets.clone()).unwrap_or_default()
}

async fn ask(
    app: &App,
    tx: &mut TenantTx,
    row: &CallRow,
    prepared: &Prepared,
    asks: &Asks,
) -> Result<Taken, Problem> {
    let (id, config) = (ApprovalId::fresh(), &prepared.skill.config);
    let expires_at = app.clock().now() + Duration::seconds(config.approval_ttl_seconds.into());
    let request = json!({
        "skill": row.skill_name, "action": row.action, "params": row.params, "settings": config.settings,
        "instance": prepared.instance.name, "plugin_digest": prepared.installed.plugin.digest(),
    });
    let workflow = workflow_of(row);
    let reason = match asks.reasons.is_empty() {
        true => "The skill's configuration asks for an approval of this action.".to_owned(),
        false => asks.reasons.join("; "),
    };
    let who = deciding::who(row);
    let on_behalf_of_key = who.as_ref().and_then(|who| who.on_behalf_of_key);
    let on_behalf_of = who.map_or_else(|| row.actor.clone(), |who| who.on_behalf_of);
    let new = store::NewApproval {
        id,
        role_sets: &json!(asks.role_sets),
        second_person: asks.second_person,
        on_behalf_of: &on_behalf_of,
        on_behalf_of_key,
        task: row.task_id,
        call: row.id,
        workflow_id: &workflow,
        fingerprint: &fingerprint(app, row, prepared),
        request: &request,
        reason: &reason,
        roles: &config.approver_roles,
        requested_by: &row.actor,
        expires_at,
    };
    store::insert_approval(tx, new).await?;
    store::await_approval(tx, row.id, id).await?;
    let mut details = request;
    details["approval_id"] = json!(id);
    details["reason"] = json!(reason);
    details["policies"] = row.policy_verdict.clone().unwrap_or_default();
    details["expires_at"] = json!(
        expires_at
            .format(&time::format_description::well_known::Rfc3339)
            .unwrap_or_default()
    );
    record(
        tx,
        row,
        StepType::ApprovalRequested,
        "approval_requested",
        details,
        None,
    )
    .await?;
    if row.task_id.is_some() {
        let asked = workflow::ApprovalRequested { approval: id };
        let name = workflow::APPROVAL_REQUESTED;
        outbox::push(tx, outbox::Kind::Signal, &workflow, name, asked).await?;
    } else {
        // Somebody has to wait for the answer; a task's own workflow does.
        let input = super::workflow_input(app, tx.tenant(), row.id);
        outbox::push(
            tx,
            outbox::Kind::Start,
            &workflow,
            workflow::WORKFLOW_TYPE,
            input,
        )
        .await?;
    }
    Ok(Taken::Waiting {
        approval: id,
        expires_at,
    })
}

async fn refuse(
    app: &App,
    tx: &mut TenantTx,
    row: &CallRow,
    approval: &ApprovalRow,
    code: &str,
    why: &str,
) -> Result<Taken, Problem> {
    let failure = CallFailure::new(code, why);
    store::decide_approval(
        tx,
        approval.id,
        "expired",
        None,
        Some(why),
        app.clock().now(),
    )
    .await?;
    let end = End::badly(CallStatus::Rejected, &failure);
    store::finish(tx, row.id, Stands::NotBegun, end).await?;
    record(
        tx,
        row,
        StepType::ApprovalRejected,
        "approval_rejected",
        json!({ "approval_id": approval.id, "error": failure }),
        None,
    )
    .await?;
    Ok(Taken::Refused(failure))
}

/// An approval is for one use: it is gone in the transaction in which the call begins.
pub(super) async fn use_up(app: &App, tx: &mut TenantTx, row: &CallRow) -> Result<(), Problem> {
    if let Some(id) = row.approval_id {
        store::decide_approval(tx, id, "used", None, None, app.clock().now()).await?;
    }
    Ok(())
}

/// What a person decides.
#[derive(Debug, Clone)]
pub struct Decision {
    pub approve: bool,
    pub note: Option<String>,
}

/// Which approval is decided.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    Approval(ApprovalId),
    /// This one, of this task.
    ApprovalOf(TaskId, ApprovalId),
    /// The one that the task waits for; the last one, where that was decided like this by the same person.
    PendingOf(TaskId),
}

impl Which {
    fn is_of(&self, approval: &ApprovalRow) -> bool {
        match self {
            Self::Approval(_) => true,
            Self::ApprovalOf(task, _) | Self::PendingOf(task) => approval.task_id == Some(*task),
        }
    }
}

/// Takes a person's decision, and wakes who waits for it. The same decision again changes nothing.
pub async fn decide(
    app: &App,
    caller: &Caller,
    which: Which,
    decision: &Decision,
) -> Result<ApprovalRow, Problem> {
    caller.require(Permission::Approve)?;
    let mut tx = app.db().tenant(caller.tenant).await?;
    let decided_by = tenants::name_of(&mut tx, caller).await?;
    let id = match which {
        Which::Approval(id) | Which::ApprovalOf(_, id) => id,
        Which::PendingOf(task) => {
            let latest = store::latest_of_task(&mut tx, task).await?;
            latest
                .filter(|latest| {
                    latest.status == "pending" || was_said(latest, &decided_by, decision)
                })
                .ok_or_else(|| {
                    Problem::conflict("nothing_to_approve", "The task waits for no approval.")
                })?
                .id
        }
    };
    let call = store::approval(&mut tx, id)
        .await?
        .filter(|approval| which.is_of(approval))
        .ok_or_else(|| Problem::not_found("approval"))?
        .call_id;
    // First the call and then its approval, as the router does.
    let call = store::lock_call(&mut tx, call)
        .await?
        .ok_or_else(|| Problem::internal(&"the call of an approval vanished"))?;
    let approval = store::lock_approval(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("approval"))?;
    let config = store::config(&mut tx, &call.skill_name).await?;
    let asked_now = config.map_or(Vec::new(), |config| config.approver_roles);
    check(app, caller, &approval, &asked_now, decision)?;
    if approval.second_person && decision.approve {
        check_second_person(&mut tx, caller, approval.on_behalf_of_key).await?;
    }
    if approval.status != "pending" {
        return Ok(approval);
    }
    let status = if decision.approve {
        "approved"
    } else {
        "rejected"
    };
    let roles: Vec<_> = caller
        .roles
        .iter()
        .map(|role| role.as_str().to_owned())
        .collect();
    let decider = Decider {
        name: &decided_by,
        roles: &roles,
    };
    store::decide_approval(
        &mut tx,
        id,
        status,
        Some(decider),
        decision.note.as_deref(),
        app.clock().now(),
    )
    .await?;
    let details = json!({ "approval_id": id, "approved_by": decided_by, "skill": call.skill_name, "action": call.action, "note": decision.note });
    if decision.approve {
        record(
            &mut tx,
            &call,
            StepType::ApprovalGranted,
            "approval_granted",
            details,
            None,
        )
        .await?;
    } else {
        let failure = CallFailure::new(
            "approval_rejected",
            format!("{} did not approve the call.", caller.name),
        );
        let end = End::badly(CallStatus::Rejected, &failure);
        store::finish(&mut tx, call.id, Stands::NotBegun, end).await?;
        let mut details = details;
        details["rejected_by"] = details["approved_by"].take();
        record(
            &mut tx,
            &call,
            StepType::ApprovalRejected,
            "approval_rejected",
            details,
            None,
        )
        .await?;
    }
    outbox::push(
        &mut tx,
        outbox::Kind::Signal,
        &approval.workflow_id,
        workflow::APPROVAL_RESPONSE,
        workflow::ApprovalResponse { approval: id },
    )
    .await?;
    let decided = store::approval(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("approval"))?;
    tx.commit().await?;
    app.outbox_wake().notify_one();
    Ok(decided)
}

/// Whether it was decided like that already.
fn is_same(approval: &ApprovalRow, decision: &Decision) -> bool {
    matches!(
        (approval.status.as_str(), decision.approve),
        ("approved" | "used", true) | ("rejected", false)
    )
}

/// Whether they have said the same before: who did not hear the answer says it again.
fn was_said(approval: &ApprovalRow, decided_by: &str, decision: &Decision) -> bool {
    is_same(approval, decision) && approval.decided_by.as_deref() == Some(decided_by)
}

fn check(
    app: &App,
    caller: &Caller,
    approval: &ApprovalRow,
    asked_now: &[String],
    decision: &Decision,
) -> Result<(), Problem> {
    // What the configuration asked for then, and what it asks for since.
    for roles in [&approval.roles, asked_now] {
        let wanted: Vec<Role> = roles.iter().filter_map(|role| Role::parse(role)).collect();
        if !wanted.is_empty() && !wanted.iter().any(|role| caller.roles.contains(role)) {
            return Err(Problem::forbidden(
                "missing_role",
                format!("This approval is for the roles {}.", roles.join(", ")),
            ));
        }
    }
    check_role_sets(caller, &role_sets(approval))?;
    if approval.status != "pending" && !is_same(approval, decision) {
        return Err(Problem::conflict(
            "already_decided",
            format!("The approval is {} already.", approval.status),
        ));
    }
    if approval.status == "pending" && approval.expires_at <= app.clock().now() {
        return Err(Problem::conflict(
            "approval_expired",
            "The approval has run out. Create the task or the call again.",
        ));
    }
    Ok(())
}

/// Refuses whoever has no role of one of the sets.
fn check_role_sets(caller: &Caller, sets: &[Vec<String>]) -> Result<(), Problem> {
    let has_one = |set: &&Vec<String>| {
        let mut roles = caller.roles.iter();
        roles.any(|role| set.iter().any(|wanted| wanted == role.as_str()))
    };
    match sets.iter().find(|set| !has_one(set)) {
        None => Ok(()),
        Some(set) => Err(Problem::forbidden(
            "missing_role",
            format!(
                "A policy asks for an approval by one of the roles {}.",
                set.join(", ")
            ),
        )),
    }
}

/// Refuses whoever is, or may be, the person that asked: two keys do not make two persons.
async fn check_second_person(
    tx: &mut TenantTx,
    caller: &Caller,
    on_behalf_of_key: Option<ApiKeyId>,
) -> Result<(), Problem> {
    let asked = match on_behalf_of_key {
        Some(key) => tenants::holders(tx, key).await?,
        None => Vec::new(),
    };
    if asked.is_empty() {
        return Err(Problem::forbidden(
            "second_person_needed",
            "A policy asks for a second person, and it was not written down who asked for this call. Reject it, and make it again.",
        ));
    }
    let approve = tenants::holders(tx, caller.key).await?;
    if !approve.is_empty() && !approve.iter().any(|holder| asked.contains(holder)) {
        return Ok(());
    }
    Err(Problem::forbidden(
        "second_person_needed",
        "A policy asks for a second person: somebody else than who asked for the call has to approve it, with a key of their own user. A key without a user counts as whoever made it, and one in another's name as that person and whoever made it, unless an owner did.",
    ))
}

/// What a person found out about a call whose outcome is unknown.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    serde::Deserialize,
    serde::Serialize,
    utoipa::ToSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// It happened: go on as if the answer had come.
    Done,
    /// It did not happen: send it again, if the rules of now let a call of this kind be made. It is counted, and costs, as
    /// another one.
    TryAgain,
}

/// Takes what a person found out, and wakes who waits for it.
pub async fn resolve(
    app: &App,
    caller: &Caller,
    id: SkillCallId,
    resolution: Resolution,
    note: Option<&str>,
) -> Result<CallRow, Problem> {
    caller.require(Permission::Approve)?;
    let judged = match resolution {
        // One that is not unknown is refused below, whatever the rules are.
        Resolution::TryAgain => deciding::judge_again(app, caller.tenant, id).await?,
        Resolution::Done => None,
    };
    let mut tx = app.db().tenant(caller.tenant).await?;
    let row = store::lock_call(&mut tx, id)
        .await?
        .ok_or_else(|| Problem::not_found("skill call"))?;
    if row.status() != CallStatus::OutcomeUnknown {
        return Err(Problem::conflict(
            "not_unknown",
            format!(
                "The call is {}; only one whose outcome is unknown is resolved.",
                row.status
            ),
        ));
    }
    if let Some(judged) = judged {
        let behind = deciding::who(&row).and_then(|who| who.on_behalf_of_key);
        send_again(&mut tx, caller, behind, &judged).await?;
    }
    let details = json!({ "resolved_by": caller.name, "resolution": resolution, "skill": row.skill_name, "action": row.action, "note": note });
    match resolution {
        Resolution::Done => {
            let summary = format!("{} says that it was done", caller.name);
            let end = End {
                status: CallStatus::Succeeded,
                output: Some(&Value::Null),
                summary: Some(&summary),
                error: None,
            };
            store::finish(&mut tx, id, Stands::Unknown, end).await?;
        }
        Resolution::TryAgain => store::try_again(&mut tx, id, LEASE).await?,
    }
    let at = app.clock().now().unix_timestamp_nanos();
    record(
        &mut tx,
        &row,
        StepType::SkillCall,
        &format!("resolved:{at}"),
        details,
        None,
    )
    .await?;
    let signal = workflow::OutcomeResolved { call: id };
    match (row.task_id.filter(|_| !row.detached), resolution) {
        (Some(_), _) => {
            outbox::push(
                &mut tx,
                outbox::Kind::Signal,
                &workflow_of(&row),
                workflow::OUTCOME_RESOLVED,
                signal,
            )
            .await?
        }
        // Nobody waits for a call that was made over the API; somebody has to take it further.
        (None, Resolution::TryAgain) => {
            let begun_anew = find(&mut tx, id).await?;
            activities::see_through(app, &mut tx, &begun_anew).await?;
        }
        (None, Resolution::Done) => {}
    }
    let row = find(&mut tx, id).await?;
    tx.commit().await?;
    app.outbox_wake().notify_one();
    Ok(row)
}

/// A person's word stands for an approval, and has to be that of somebody who may give it; it is a use of the skill.
async fn send_again(
    tx: &mut TenantTx,
    caller: &Caller,
    behind: Option<ApiKeyId>,
    judged: &Judged,
) -> Result<(), Problem> {
    if store::stamps(tx).await? != judged.stamps {
        return Err(Problem::conflict(
            "changed_meanwhile",
            "Somebody changed the rules for the call at this moment. Nothing was done; look at them, and resolve it again.",
        ));
    }
    let config = &judged.skill.config;
    if judged.asks_a_person && !config.approver_roles.is_empty() {
        check_role_sets(caller, std::slice::from_ref(&config.approver_roles))?;
    }
    check_role_sets(caller, &judged.asks.role_sets)?;
    if judged.asks.second_person {
        check_second_person(tx, caller, behind).await?;
    }
    router::used(tx, config).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_approved_has_a_role_that_is_asked_for_now() {
        let roles = |roles: &[&str]| roles.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>();
        let (owner, approver) = (roles(&["owner", "member"]), roles(&["approver"]));
        assert!(has_a_role(Some(&owner), &[], &[]));
        assert!(has_a_role(Some(&approver), &[], &approver));
        assert!(!has_a_role(Some(&owner), &[], &approver));
        assert!(!has_a_role(Some(&owner), &owner, &approver));
        // Not written down: whoever it was had one of those.
        let wider = roles(&["approver", "owner"]);
        assert!(has_a_role(None, &approver, &wider));
        assert!(!has_a_role(None, &wider, &approver));
        assert!(!has_a_role(None, &[], &approver));
    }
}
