-- What a call writes before its request leaves, and after it was answered, each as one statement that is a transaction of
-- its own: most of a call's time in the gateway was the way to the database and back. The functions name the tenant
-- themselves, run with the caller's rights, and see that tenant's rows alone. Their statements find rows by keys, so one
-- plan serves them all.

-- Takes the number back that was given last in this transaction, which has locked the count.
create function uncount_use(of_skill text) returns void language plpgsql volatile as $$
begin
    update skill_uses set uses = uses - 1 where tenant_id = current_tenant() and skill_name = of_skill;
end
$$;

-- Nobody watches the trace of a call that was made without a task while it is written. Who notifies takes a lock of the
-- whole server until its commit is on the disk.
drop trigger execution_traces_notify on execution_traces;
create trigger execution_traces_notify after insert on execution_traces for each row
    when (new.task_id is not null) execute function notify_trace();

-- Writes a step into the trace of a task, or into a call's own where there is none; false where one with its key is there.
-- Any other conflict is an error.
create function record_step(
    step uuid, of_task uuid, of_call uuid, kind text, key text, of_agent uuid, what jsonb, took_ms int) returns boolean
    language plpgsql volatile as $$
begin
    insert into execution_traces (id, tenant_id, task_id, call_id, step_type, step_order, step_key, agent_id, details, duration_ms)
        values (step, current_tenant(), of_task, of_call, kind, next_step_order(of_task, of_call), key, of_agent, what, took_ms)
        on conflict (coalesce(task_id, call_id), step_key) do nothing;
    return found;
end
$$;

-- Writes down what policies answered of a call: an array of objects whose members are named as the columns.
create function record_decisions(of_call uuid, decisions jsonb) returns void
    language sql volatile as $$
    insert into policy_decisions (id, tenant_id, call_id, source, policy_id, name, digest, input, decision, answer, reason, duration_us)
        select d.id, current_tenant(), of_call, d.source, d.policy_id, d.name, d.digest, d.input, d.decision, d.answer, d.reason, d.duration_us
        from jsonb_to_recordset(decisions) as d(
            id uuid, source text, policy_id uuid, name text, digest text, input jsonb, decision text, answer jsonb, reason text, duration_us bigint)
$$;

-- Writes a new call down as one that runs, with the request that is about to leave, and counts it. `came_to` says
-- whether it did: `changed` where what it was decided by is not `stamps_seen` any more; `written` where a call bears the
-- key already; `limited` where the skill was used too often, with the seconds to wait. Then nothing is written.
create function begin_call(
    of_tenant uuid, stamps_seen text, uses_max bigint, per_seconds float8, lease_seconds float8,
    call uuid, of_task uuid, step int, of_agent uuid, who text, who_as jsonb, key text, request bytea,
    skill text, asked text, asked_with jsonb, made_at timestamptz,
    config uuid, instance uuid, digest text, set_to jsonb, credentials jsonb, repeatable boolean,
    input jsonb, verdict jsonb, decisions jsonb, request_digest text, journal text,
    out came_to text, out wait float8, out began_at timestamptz, out counted_at timestamptz)
    language plpgsql volatile set plan_cache_mode = force_generic_plan as $$
declare
    number bigint;
begin
    perform set_config('tsunami.tenant_id', of_tenant::text, true);
    if current_stamps() is distinct from stamps_seen then
        came_to := 'changed';
        return;
    end if;
    select u.number, u.moment, u.wait into number, counted_at, wait from number_use(skill, uses_max, per_seconds) u;
    if wait is not null then
        perform uncount_use(skill);
        came_to := 'limited';
        return;
    end if;
    began_at := now();
    insert into skill_calls (
            id, tenant_id, task_id, task_step, agent_id, actor, actor_context, idempotency_key, request_sha256,
            skill_name, action, params, created_at, status, skill_config_id, instance_id, plugin_digest, settings, credentials_used,
            idempotent, policy_input, policy_verdict, started_at, rate_counted_at, rate_number, leased_until)
        values (
            call, of_tenant, of_task, step, of_agent, who, who_as, key, request,
            skill, asked, asked_with, made_at, 'running', config, instance, digest, set_to, credentials,
            repeatable, input, verdict, began_at, counted_at, number, began_at + make_interval(secs => lease_seconds))
        on conflict on constraint skill_calls_idempotency do nothing;
    -- To look for it first would leave it to the planner by which index: a plan made while there are few calls reads all
    -- of the tenant's when there are many.
    if not found then
        perform uncount_use(skill);
        came_to := 'written';
        return;
    end if;
    if decisions is not null then
        perform record_decisions(call, decisions);
    end if;
    insert into skill_call_requests (tenant_id, call_id, attempt, seq, digest, journal_id, status)
        values (of_tenant, call, 0, 0, request_digest, journal, 'sending');
    came_to := 'begun';
end
$$;

-- Ends a call that runs, in this attempt: keeps the reply that came last, where one did, and writes the step that tells of
-- the end. Null where the call is not that any more: then nothing is written.
create function end_call(
    of_tenant uuid, call uuid, attempt int, reply_seq int, last_reply jsonb,
    ends_as text, ends_with jsonb, told text, failure jsonb,
    step uuid, of_task uuid, step_key text, of_agent uuid, what jsonb, took_ms int,
    out ended_at timestamptz)
    language plpgsql volatile set plan_cache_mode = force_generic_plan as $$
begin
    perform set_config('tsunami.tenant_id', of_tenant::text, true);
    update skill_calls set status = ends_as, output = ends_with, summary = told, error = failure, leased_until = null,
            finished_at = case when ends_as <> 'outcome_unknown' then now() end
        where id = call and attempts = attempt and status = 'running';
    if not found then
        return;
    end if;
    if reply_seq is not null then
        update skill_call_requests set status = 'finished', reply = last_reply, finished_at = now()
            where call_id = call and seq = reply_seq and status <> 'finished';
    end if;
    perform record_step(step, of_task, call, 'skill_call', step_key, of_agent, what, took_ms);
    ended_at := now();
end
$$;
