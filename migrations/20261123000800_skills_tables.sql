create table skill_configs (
    id                    uuid primary key,
    tenant_id             uuid not null references tenants (id),
    instance_id           uuid references tenant_instances (id),
    skill_name            text not null,
    enabled               boolean not null,
    requires_approval     boolean not null,
    -- Actions that need approval though the skill as a whole does not, and actions that are switched off.
    approval_actions      text[] not null default '{}',
    disabled_actions      text[] not null default '{}',
    approval_ttl_seconds  int not null default 86400 check (approval_ttl_seconds between 60 and 2592000),
    approver_roles        text[] not null default '{}',
    rate_limit            jsonb,
    allowed_scopes        jsonb not null default '{}',
    settings              jsonb not null default '{}',
    version               int not null default 1,
    created_at            timestamptz not null default now(),
    updated_at            timestamptz not null default now(),
    constraint skill_configs_skill_taken unique (tenant_id, skill_name)
);
call guard_tenant_table('skill_configs');
alter table skill_credentials add foreign key (skill_config_id) references skill_configs (id);

create table skill_calls (
    id                uuid primary key,
    tenant_id         uuid not null references tenants (id),
    task_id           uuid,
    task_step         int,
    agent_id          uuid,
    actor             text not null,
    idempotency_key   text not null,
    request_sha256    bytea not null,
    skill_name        text not null,
    action            text not null,
    params            jsonb not null,
    status            text not null check (status in (
                          'queued', 'awaiting_approval', 'running', 'outcome_unknown',
                          'succeeded', 'failed', 'rejected', 'cancelled')),
    skill_config_id   uuid,
    instance_id       uuid,
    plugin_digest     text,
    settings          jsonb,
    approval_id       uuid,
    -- Its task has ended: no task's workflow takes the call further.
    detached          boolean not null default false,
    -- Attempts that the service or the way to it refused; nothing of them happened.
    attempts          int not null default 0,
    -- A person said of an unknown outcome: send it again.
    retry_unknown     boolean not null default false,
    rate_counted_at   timestamptz,
    credentials_used  jsonb not null default '[]',
    output            jsonb,
    summary           text,
    error             jsonb,
    -- While one process works on the call; another takes it up after this.
    leased_until      timestamptz,
    started_at        timestamptz,
    finished_at       timestamptz,
    created_at        timestamptz not null default now(),
    constraint skill_calls_idempotency unique (tenant_id, idempotency_key)
);
create index skill_calls_by_tenant on skill_calls (tenant_id, id);
create index skill_calls_by_task on skill_calls (task_id, task_step) where task_id is not null;
create index skill_calls_rate on skill_calls (skill_config_id, rate_counted_at) where rate_counted_at is not null;
create index skill_calls_unfinished on skill_calls (leased_until) where status = 'running';
call guard_tenant_table('skill_calls', 'select');

-- One row for each request of a call, so that no reply is asked for twice.
create table skill_call_requests (
    tenant_id    uuid not null references tenants (id),
    call_id      uuid not null references skill_calls (id),
    seq          int not null,
    digest       text not null,
    journal_id   text,
    status       text not null check (status in ('sending', 'finished', 'unknown')),
    reply        jsonb,
    sent_at      timestamptz not null default now(),
    finished_at  timestamptz,
    primary key (call_id, seq)
);
call guard_tenant_table('skill_call_requests');

create table approvals (
    id            uuid primary key,
    tenant_id     uuid not null references tenants (id),
    task_id       uuid,
    call_id       uuid not null references skill_calls (id),
    workflow_id   text not null,
    status        text not null check (status in ('pending', 'approved', 'rejected', 'expired', 'used')),
    -- SHA-256 of exactly what was asked for: action, parameters, target, plugin digest.
    fingerprint   bytea not null check (length(fingerprint) = 32),
    request       jsonb not null,
    reason        text not null,
    roles         text[] not null default '{}',
    requested_by  text not null,
    expires_at    timestamptz not null,
    decided_by    text,
    decided_at    timestamptz,
    note          text,
    created_at    timestamptz not null default now()
);
create index approvals_by_tenant on approvals (tenant_id, id);
create unique index approvals_one_pending on approvals (call_id) where status in ('pending', 'approved');
call guard_tenant_table('approvals');
