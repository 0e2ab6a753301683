create table execution_traces (
    id           uuid primary key,
    tenant_id    uuid not null references tenants (id),
    -- A step belongs to a task, or to a skill call that was made without one.
    task_id      uuid,
    call_id      uuid,
    step_type    text not null check (step_type in (
                     'dispatched', 'memory_recall', 'executing', 'skill_call', 'delegated',
                     'approval_requested', 'approval_granted', 'approval_rejected',
                     'completed', 'failed', 'cancelled')),
    step_order   int not null,
    -- Names the step so that an activity that runs again does not write it again.
    step_key     text not null,
    agent_id     uuid,
    details      jsonb not null,
    duration_ms  int,
    created_at   timestamptz not null default now(),
    check (task_id is not null or call_id is not null)
);
create unique index execution_traces_task_step on execution_traces (task_id, step_key) where task_id is not null;
create unique index execution_traces_task_order on execution_traces (task_id, step_order) where task_id is not null;
create unique index execution_traces_call_step on execution_traces (call_id, step_key) where task_id is null;
create index execution_traces_by_tenant on execution_traces (tenant_id, id);
call guard_tenant_table('execution_traces');
revoke update, delete on execution_traces from tsunami_app;

-- Wakes the live views. The payload names the task alone; what it holds is read under its tenant's rules.
create function notify_trace() returns trigger language plpgsql as $$
begin
    perform pg_notify('tsunami_trace', coalesce(new.task_id, new.call_id)::text);
    return null;
end
$$;
create trigger execution_traces_notify after insert on execution_traces for each row execute function notify_trace();
