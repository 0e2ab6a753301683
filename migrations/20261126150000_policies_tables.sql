-- Components of routing policies, each stored once and found by its SHA-256.
create table policy_components (
    digest      text primary key check (digest ~ '^[0-9a-f]{64}$'),
    component   bytea not null,
    manifest    jsonb not null,
    created_at  timestamptz not null default now()
);

-- Which of them a tenant brought.
create table policy_uploads (
    tenant_id    uuid not null references tenants (id),
    -- Written first: whoever adds a component must be one who may see it.
    digest       text not null references policy_components (digest) deferrable initially deferred,
    uploaded_by  text not null,
    created_at   timestamptz not null default now(),
    primary key (tenant_id, digest)
);
call guard_tenant_table('policy_uploads');
revoke update, delete on policy_uploads from tsunami_app;

-- The operator's part of the chain: before every tenant's own, and no tenant can take it away.
create table operator_policies (
    id          uuid primary key,
    position    int not null,
    name        text not null,
    digest      text not null references policy_components (digest),
    settings    jsonb not null,
    skills      text[] not null default '{}',
    enabled     boolean not null,
    version     int not null default 1,
    created_by  text not null,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
grant select on operator_policies to tsunami_app;
grant select, insert, update, delete on operator_policies to tsunami_system;

-- A tenant's part.
create table policies (
    id          uuid primary key,
    tenant_id   uuid not null references tenants (id),
    position    int not null,
    name        text not null,
    digest      text not null references policy_components (digest),
    settings    jsonb not null,
    skills      text[] not null default '{}',
    enabled     boolean not null,
    version     int not null default 1,
    created_by  text not null,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create index policies_by_tenant on policies (tenant_id, position, id);
call guard_tenant_table('policies');

-- A tenant reads the components that it brought, and those that the operator put before everybody's calls.
alter table policy_components enable row level security;
alter table policy_components force row level security;
create policy tenant_reads on policy_components for select to tsunami_app using (
    exists (select from policy_uploads u where u.digest = policy_components.digest and u.tenant_id = current_tenant())
    or exists (select from operator_policies o where o.digest = policy_components.digest));
create policy tenant_adds on policy_components for insert to tsunami_app with check (current_tenant() is not null);
create policy system_rows on policy_components to tsunami_system using (true) with check (true);
grant select, insert on policy_components to tsunami_app, tsunami_system;

-- Who called, and what the policies were given and said: for the trace, and to be run again under other policies.
alter table skill_calls
    add column actor_context  jsonb,
    add column policy_input   jsonb,
    add column policy_verdict jsonb;
create index skill_calls_decided on skill_calls (tenant_id, created_at) where policy_input is not null;

-- Each answer of each policy, as it was given. A policy that is asked again and says the same adds nothing.
create table policy_decisions (
    id           uuid primary key,
    tenant_id    uuid not null references tenants (id),
    call_id      uuid not null references skill_calls (id),
    source       text not null check (source in ('operator', 'tenant')),
    policy_id    uuid not null,
    name         text not null,
    digest       text not null,
    input        jsonb not null,
    decision     text not null check (decision in ('allow', 'ask', 'deny')),
    answer       jsonb not null,
    reason       text not null,
    duration_us  bigint not null,
    decided_at   timestamptz not null default now()
);
create index policy_decisions_by_tenant on policy_decisions (tenant_id, id);
create index policy_decisions_by_call on policy_decisions (call_id, id);
call guard_tenant_table('policy_decisions');
revoke update, delete on policy_decisions from tsunami_app;

-- One role of each set is needed; and somebody else than whoever asked, where a policy wants that.
alter table approvals
    add column role_sets       jsonb not null default '[]',
    add column second_person   boolean not null default false,
    add column on_behalf_of    text;
