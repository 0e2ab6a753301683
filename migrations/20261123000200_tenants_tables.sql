create table tenants (
    id          uuid primary key,
    name        text not null check (length(name) between 1 and 200),
    slug        text not null constraint tenants_slug_taken unique check (slug ~ '^[a-z0-9](-?[a-z0-9])*$' and length(slug) <= 63),
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
alter table tenants enable row level security;
alter table tenants force row level security;
create policy tenant_rows on tenants to tsunami_app using (id = current_tenant()) with check (id = current_tenant());
create policy system_rows on tenants to tsunami_system using (true) with check (true);
grant select, update on tenants to tsunami_app;
grant select, insert, update on tenants to tsunami_system;

create table users (
    id            uuid primary key,
    tenant_id     uuid not null references tenants (id),
    email         text not null check (length(email) between 3 and 320),
    display_name  text not null check (length(display_name) <= 200),
    roles         text[] not null check (roles <@ array['owner', 'admin', 'member', 'approver', 'auditor']),
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    constraint users_email_taken unique (tenant_id, email)
);
call guard_tenant_table('users');

-- The secret itself is never stored: 256 random bits need no slow hash, SHA-256 is enough.
create table api_keys (
    id             uuid primary key,
    tenant_id      uuid not null references tenants (id),
    user_id        uuid references users (id),
    name           text not null check (length(name) between 1 and 200),
    prefix         text not null unique,
    secret_sha256  bytea not null check (length(secret_sha256) = 32),
    roles          text[] not null check (cardinality(roles) > 0 and roles <@ array['owner', 'admin', 'member', 'approver', 'auditor']),
    created_by     text not null,
    expires_at     timestamptz,
    last_used_at   timestamptz,
    revoked_at     timestamptz,
    created_at     timestamptz not null default now()
);
create index api_keys_by_tenant on api_keys (tenant_id, id);
call guard_tenant_table('api_keys', 'select, insert, update');

-- Keys of the people who run the gateway; they create tenants and see nothing inside of them.
create table operator_keys (
    id             uuid primary key,
    name           text not null,
    prefix         text not null unique,
    secret_sha256  bytea not null check (length(secret_sha256) = 32),
    last_used_at   timestamptz,
    revoked_at     timestamptz,
    created_at     timestamptz not null default now()
);
grant select, insert, update on operator_keys to tsunami_system;

-- What a creating request with an Idempotency-Key made, so that its repetition finds it.
create table idempotency_keys (
    tenant_id       uuid not null references tenants (id),
    operation       text not null,
    key             text not null,
    request_sha256  bytea not null,
    resource_id     uuid not null,
    created_at      timestamptz not null default now(),
    primary key (tenant_id, operation, key)
);
call guard_tenant_table('idempotency_keys', 'select, delete');
create index idempotency_keys_by_age on idempotency_keys (created_at);

-- What must reach Temporal, written in the transaction of the state that it follows from.
create table outbox (
    id               bigint generated always as identity primary key,
    tenant_id        uuid not null references tenants (id),
    kind             text not null check (kind in ('start', 'signal', 'cancel')),
    workflow_id      text not null,
    name             text not null,
    payload          jsonb not null,
    attempts         int not null default 0,
    next_attempt_at  timestamptz not null default now(),
    created_at       timestamptz not null default now()
);
call guard_tenant_table('outbox', 'select, update, delete');
create index outbox_due on outbox (next_attempt_at, id);
