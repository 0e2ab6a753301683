create table agent_tasks (
    id                  uuid primary key,
    tenant_id           uuid not null references tenants (id),
    objective           text not null check (length(objective) between 1 and 4000),
    status              text not null check (status in (
                            'queued', 'thinking', 'executing', 'waiting_input', 'delegated',
                            'completed', 'failed', 'cancelled')),
    priority            text not null check (priority in ('low', 'normal', 'high', 'urgent')),
    requested_agent_id  uuid references agents (id),
    agent_id            uuid references agents (id),
    parent_task_id      uuid references agent_tasks (id),
    delegation_depth    int not null default 0 check (delegation_depth between 0 and 8),
    capabilities        text[] not null default '{}',
    plan                jsonb not null,
    -- What a person is being asked, while the status is `waiting_input`.
    waiting_for         jsonb,
    output              jsonb,
    error               jsonb,
    confidence          double precision,
    tokens_used         bigint not null default 0,
    cost_micro_usd      bigint not null default 0,
    created_by          text not null,
    cancel_requested_at timestamptz,
    started_at          timestamptz,
    finished_at         timestamptz,
    created_at          timestamptz not null default now(),
    updated_at          timestamptz not null default now()
);
create index agent_tasks_by_tenant on agent_tasks (tenant_id, id);
create index agent_tasks_by_status on agent_tasks (tenant_id, status, id);
create index agent_tasks_by_parent on agent_tasks (parent_task_id) where parent_task_id is not null;
call guard_tenant_table('agent_tasks');

create table agent_messages (
    id          uuid primary key,
    tenant_id   uuid not null references tenants (id),
    task_id     uuid not null references agent_tasks (id),
    agent_id    uuid,
    message_key text not null,
    role        text not null check (role in ('system', 'agent', 'tool', 'person')),
    content     text not null,
    created_at  timestamptz not null default now(),
    unique (task_id, message_key)
);
call guard_tenant_table('agent_messages');
