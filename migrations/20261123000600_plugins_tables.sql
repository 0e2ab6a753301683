create table plugin_versions (
    id          uuid primary key,
    tenant_id   uuid not null references tenants (id),
    digest      text not null check (digest ~ '^[0-9a-f]{64}$'),
    component   bytea not null,
    manifest    jsonb,
    credential_fields  jsonb not null default '[]',
    created_at  timestamptz not null default now(),
    unique (tenant_id, digest)
);
call guard_tenant_table('plugin_versions');

create table plugin_installations (
    id                 uuid primary key,
    tenant_id          uuid not null references tenants (id),
    plugin_version_id  uuid not null references plugin_versions (id),
    skill_name         text not null,
    digest             text not null,
    installed_by       text not null,
    installed_at       timestamptz not null default now(),
    removed_at         timestamptz
);
create unique index plugin_installations_one_live on plugin_installations (tenant_id, skill_name) where removed_at is null;
call guard_tenant_table('plugin_installations');
