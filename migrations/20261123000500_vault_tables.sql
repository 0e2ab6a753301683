create table tenant_data_keys (
    id          uuid primary key,
    tenant_id   uuid not null references tenants (id),
    wrapped     text not null,
    created_at  timestamptz not null default now(),
    retired_at  timestamptz
);
create unique index tenant_data_keys_current on tenant_data_keys (tenant_id) where retired_at is null;
call guard_tenant_table('tenant_data_keys');

create table skill_credentials (
    id               uuid primary key,
    tenant_id        uuid not null references tenants (id),
    skill_config_id  uuid not null,
    credential_key   text not null,
    credential_type  text not null check (credential_type in ('api_key', 'oauth_token', 'bot_token', 'pat', 'secret')),
    data_key_id      uuid not null references tenant_data_keys (id),
    encrypted_value  bytea not null,
    -- Bound into the encryption: an old value put back under a newer version does not open.
    version          int not null,
    last_4           text not null check (length(last_4) <= 4),
    status           text not null check (status in ('active', 'expired', 'revoked')),
    rejected_at      timestamptz,
    expires_at       timestamptz,
    last_used_at     timestamptz,
    created_at       timestamptz not null default now(),
    updated_at       timestamptz not null default now()
);
create unique index skill_credentials_one_live on skill_credentials (skill_config_id, credential_key) where status <> 'revoked';
call guard_tenant_table('skill_credentials');
