create table tenant_instances (
    id                uuid primary key,
    tenant_id         uuid not null references tenants (id),
    instance_type     text not null check (instance_type in ('openclaw')),
    name              text not null,
    version           text not null,
    driver            text not null check (driver in ('local', 'kubernetes')),
    status            text not null check (status in ('provisioning', 'running', 'stopped', 'upgrading', 'error', 'destroying', 'destroyed', 'asleep')),
    -- What was asked for last; a lifecycle workflow moves `status` towards it.
    desired           text not null check (desired in ('running', 'stopped', 'destroyed')),
    internal_url      text,
    helm_release      text,
    k8s_namespace     text,
    resource_config   jsonb not null default '{}',
    health            jsonb,
    error             text,
    data_key_id       uuid not null references tenant_data_keys (id),
    encrypted_secrets bytea not null,
    created_by        text not null,
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now()
);
create unique index tenant_instances_one_live on tenant_instances (tenant_id, instance_type) where status <> 'destroyed';
create unique index tenant_instances_name on tenant_instances (name) where status <> 'destroyed';
call guard_tenant_table('tenant_instances', 'select');
