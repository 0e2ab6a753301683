-- Where a tenant's client is registered: what an administrator agreed to for a field that is had by signing in.
create table oauth_clients (
    id                uuid primary key,
    tenant_id         uuid not null references tenants (id),
    skill_config_id   uuid not null references skill_configs (id),
    credential_key    text not null,
    -- The endpoints, as they were agreed to, and which of the skill's credentials are the client's id and secret.
    provider          jsonb not null,
    agreed_by         text not null,
    agreed_at         timestamptz not null,
    unique (skill_config_id, credential_key)
);
call guard_tenant_table('oauth_clients');
revoke delete on oauth_clients from tsunami_app;

-- A sign-in, from the address that a person is sent to until the tokens are revoked at the provider.
create table oauth_grants (
    id                uuid primary key,
    tenant_id         uuid not null references tenants (id),
    skill_config_id   uuid not null references skill_configs (id),
    credential_key    text not null,
    credential_id     uuid references skill_credentials (id),
    status            text not null check (status in ('asked', 'exchanging', 'granted', 'active', 'to_renew', 'ending', 'ended')),
    -- As it was when the sign-in began: tokens go to whom they came from, whatever a later plugin names.
    provider          jsonb not null,
    redirect_uri      text not null,
    started_by        text not null,
    started_by_key    uuid not null,
    started_by_user   uuid,
    state_sha256      bytea not null unique,
    confirm_sha256    bytea,
    confirm_attempts  int not null default 0,
    data_key_id       uuid references tenant_data_keys (id),
    sealed            bytea,
    -- Bound into the encryption.
    sealed_version    int not null default 0,
    -- Who works on it: whoever comes back with another number than this writes nothing.
    fence             int not null default 0,
    leased_until      timestamptz,
    -- Until when the step of the sign-in, or the access token, is good.
    expires_at        timestamptz,
    -- When the sweep looks at it; null where there is nothing to do.
    due_at            timestamptz,
    failures          int not null default 0,
    error             text,
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now()
);
create index oauth_grants_due on oauth_grants (due_at) where due_at is not null;
create index oauth_grants_by_credential on oauth_grants (credential_id) where credential_id is not null;
call guard_tenant_table('oauth_grants');
-- The callback finds the tenant by the state, and the sweep what is due.
create policy system_rows on oauth_grants for select to tsunami_system using (true);
grant select (id, tenant_id, state_sha256, due_at, leased_until) on oauth_grants to tsunami_system;

-- Set where the value was had by a sign-in, and is renewed.
alter table skill_credentials add column grant_id uuid references oauth_grants (id);
