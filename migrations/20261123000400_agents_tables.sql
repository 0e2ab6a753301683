create table agents (
    id            uuid primary key,
    tenant_id     uuid not null references tenants (id),
    name          text not null check (length(name) between 1 and 200),
    description   text not null check (length(description) <= 4000),
    capabilities  text[] not null,
    backend       text not null check (backend in ('openclaw', 'adk', 'mcp')),
    trust         double precision not null check (trust between 0 and 1),
    status        text not null check (status in ('active', 'paused')),
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    constraint agents_name_taken unique (tenant_id, name)
);
call guard_tenant_table('agents');

create table agent_skills (
    tenant_id     uuid not null references tenants (id),
    agent_id      uuid not null references agents (id) on delete cascade,
    skill_name    text not null,
    proficiency   double precision not null check (proficiency between 0 and 1),
    times_used    bigint not null default 0,
    times_failed  bigint not null default 0,
    last_used_at  timestamptz,
    primary key (agent_id, skill_name)
);
call guard_tenant_table('agent_skills');

-- `from_agent` hands work to `to_agent` with this much trust; the dispatcher of a delegated task reads it.
create table agent_relationships (
    tenant_id          uuid not null references tenants (id),
    from_agent_id      uuid not null references agents (id) on delete cascade,
    to_agent_id        uuid not null references agents (id) on delete cascade,
    relationship_type  text not null check (relationship_type in ('delegates_to', 'reports_to', 'collaborates_with')),
    trust              double precision not null check (trust between 0 and 1),
    primary key (from_agent_id, to_agent_id, relationship_type),
    check (from_agent_id <> to_agent_id)
);
call guard_tenant_table('agent_relationships');

create table agent_memories (
    id           uuid primary key,
    tenant_id    uuid not null references tenants (id),
    agent_id     uuid not null references agents (id) on delete cascade,
    task_id      uuid,
    content      text not null check (length(content) <= 4000),
    importance   double precision not null check (importance between 0 and 1),
    created_at   timestamptz not null default now(),
    words        tsvector not null generated always as (to_tsvector('simple', content)) stored,
    unique (agent_id, task_id)
);
create index agent_memories_words on agent_memories using gin (words);
call guard_tenant_table('agent_memories');
