-- A component's bytes and what it says of itself, once for all who have it. The name is checked here: whatever wrote the
-- row, the bytes are those that the digest names.
create table plugin_components (
    digest             text primary key,
    bytes              bytea not null check (digest = encode(sha256(bytes), 'hex')),
    kinds              text[] not null check (cardinality(kinds) > 0 and kinds <@ array['skill-adapter', 'credential-schema', 'routing-policy']),
    manifest           jsonb,
    credential_fields  jsonb not null default '[]',
    policy_manifest    jsonb,
    created_at         timestamptz not null default now()
);

-- Who publishes. `owner_tenant_id` is null for the operator's own; it is not called `tenant_id`, since others see a
-- publisher whose releases they see.
create table publishers (
    id                uuid primary key,
    owner_tenant_id   uuid references tenants (id),
    namespace         text not null constraint publishers_namespace_taken unique check (namespace ~ '^[a-z][a-z0-9-]{1,38}$'),
    name              text not null check (length(name) between 1 and 200),
    sigstore_subject  text check (length(sigstore_subject) between 1 and 1000),
    sigstore_issuer   text check (length(sigstore_issuer) between 1 and 1000),
    created_by        text not null,
    created_at        timestamptz not null default now(),
    check ((sigstore_subject is null) = (sigstore_issuer is null)),
    unique (id, owner_tenant_id)
);
create index publishers_by_owner on publishers (owner_tenant_id);

-- A retired key signs nothing new; what a revoked key signed is not run any more.
create table publisher_keys (
    id            uuid primary key,
    publisher_id  uuid not null references publishers (id),
    name          text not null check (length(name) between 1 and 200),
    public_key    bytea not null check (length(public_key) = 32),
    created_by    text not null,
    created_at    timestamptz not null default now(),
    retired_at    timestamptz,
    revoked_at    timestamptz,
    constraint publisher_keys_key_taken unique (publisher_id, public_key),
    unique (id, publisher_id)
);

-- A version of a plugin: what is published never changes, only what is thought of it.
create table plugin_releases (
    id               uuid primary key,
    publisher_id     uuid not null references publishers (id),
    owner_tenant_id  uuid,
    namespace        text not null,
    name             text not null,
    version          text not null,
    -- To be ordered by: major, minor, patch.
    version_numbers  bigint[] not null check (cardinality(version_numbers) = 3),
    prerelease       boolean not null,
    digest           text not null references plugin_components (digest),
    contract         text not null,
    kinds            text[] not null,
    title            text not null,
    summary          text not null,
    licence          text not null,
    categories       text[] not null,
    homepage         text,
    readme           text not null,
    words            tsvector not null,
    key_id           uuid not null,
    signature        bytea not null check (length(signature) = 64),
    sigstore         jsonb,
    sigstore_bundle  text,
    source_kind      text not null check (source_kind in ('upload', 'oci')),
    source           text,
    visibility       text not null check (visibility in ('public', 'private')),
    state            text not null check (state in ('submitted', 'approved', 'rejected')),
    state_reason     text,
    reviewed_by      text,
    reviewed_at      timestamptz,
    yanked_at        timestamptz,
    yanked_by        text,
    yank_reason      text,
    conformance      jsonb,
    downloads        bigint not null default 0,
    submitted_by     text not null,
    created_at       timestamptz not null default now(),
    constraint plugin_releases_version_taken unique (publisher_id, name, version),
    unique (id, owner_tenant_id),
    -- The publisher is its owner's, and the key is the publisher's.
    foreign key (publisher_id, owner_tenant_id) references publishers (id, owner_tenant_id),
    foreign key (key_id, publisher_id) references publisher_keys (id, publisher_id)
);
create index plugin_releases_by_name on plugin_releases (namespace, name, version_numbers);
create index plugin_releases_by_digest on plugin_releases (digest);
create index plugin_releases_by_owner on plugin_releases (owner_tenant_id);
create index plugin_releases_words on plugin_releases using gin (words);

-- Whom a private release is for.
create table release_audience (
    release_id       uuid not null,
    tenant_id        uuid not null constraint release_audience_tenant_known references tenants (id),
    owner_tenant_id  uuid,
    primary key (release_id, tenant_id),
    foreign key (release_id) references plugin_releases (id),
    foreign key (release_id, owner_tenant_id) references plugin_releases (id, owner_tenant_id)
);
create index release_audience_by_tenant on release_audience (tenant_id);

-- What is not run any more. Of a digest, everywhere and whatever it came by; or of one release alone, where its publisher
-- says so: the same bytes may be somebody else's too.
create table plugin_revocations (
    id          uuid primary key,
    digest      text not null check (digest ~ '^[0-9a-f]{64}$'),
    release_id  uuid references plugin_releases (id),
    reason      text not null check (length(reason) between 1 and 2000),
    revoked_by  text not null,
    created_at  timestamptz not null default now(),
    unique nulls not distinct (digest, release_id)
);
create index plugin_revocations_by_release on plugin_revocations (release_id);

-- Wakes the hosts. The payload says nothing: each reads the list.
create function notify_revocation() returns trigger language plpgsql as $$
begin
    perform pg_notify('tsunami_revocation', '');
    return null;
end
$$;
create trigger plugin_revocations_notify after insert on plugin_revocations
    for each statement execute function notify_revocation();
create trigger publisher_keys_notify after update of revoked_at on publisher_keys
    for each statement execute function notify_revocation();

-- The components move out of the tenants' rows. For this the owner looks past its own rule.
alter table plugin_versions no force row level security;
insert into plugin_components (digest, bytes, kinds, manifest, credential_fields)
    select distinct on (digest) digest, component,
           array['skill-adapter'] || case when credential_fields = '[]' then array[]::text[] else array['credential-schema'] end,
           manifest, credential_fields
    from plugin_versions order by digest, created_at;
alter table plugin_versions
    drop column component,
    drop column manifest,
    drop column credential_fields,
    drop constraint plugin_versions_tenant_id_digest_key,
    add column release_id uuid references plugin_releases (id),
    add foreign key (digest) references plugin_components (digest),
    add unique nulls not distinct (tenant_id, digest, release_id);

-- So do those of policies, which had a table of their own.
alter table policy_components no force row level security;
alter table policy_uploads no force row level security;
insert into plugin_components (digest, bytes, kinds, policy_manifest)
    select digest, component, array['routing-policy'], manifest from policy_components
    on conflict (digest) do update set kinds = plugin_components.kinds || excluded.kinds, policy_manifest = excluded.policy_manifest;
insert into plugin_versions (id, tenant_id, digest, created_at)
    select uuidv7(), tenant_id, digest, created_at from policy_uploads on conflict do nothing;
alter table policies drop constraint policies_digest_fkey, add foreign key (digest) references plugin_components (digest);
alter table operator_policies
    drop constraint operator_policies_digest_fkey,
    add foreign key (digest) references plugin_components (digest);
drop policy tenant_reads on policy_components;
drop table policy_uploads;
drop table policy_components;
alter table plugin_versions force row level security;
create index plugin_versions_by_release on plugin_versions (release_id, tenant_id) where release_id is not null;

alter table plugin_installations
    add column previous_id     uuid references plugin_installations (id),
    -- What was agreed to, by whom; null for a file of the tenant's own.
    add column consent         jsonb,
    add column consent_sha256  text check (consent_sha256 ~ '^[0-9a-f]{64}$'),
    add column agreed_by       text,
    add column agreed_at       timestamptz,
    add column auto_upgrade    boolean not null default false;
create index plugin_installations_auto on plugin_installations (id) where auto_upgrade and removed_at is null;

-- Which calls used a digest.
create index skill_calls_by_digest on skill_calls (plugin_digest) where plugin_digest is not null;

-- Who sees what -------------------------------------------------------------------------------------------------------

alter table plugin_components enable row level security;
alter table plugin_components force row level security;
alter table publishers enable row level security;
alter table publishers force row level security;
alter table publisher_keys enable row level security;
alter table publisher_keys force row level security;
alter table plugin_releases enable row level security;
alter table plugin_releases force row level security;
alter table release_audience enable row level security;
alter table release_audience force row level security;
alter table plugin_revocations enable row level security;
alter table plugin_revocations force row level security;

-- A tenant reads a release that is its own, or approved and meant for it, or that it once installed.
create policy tenant_reads on plugin_releases for select to tsunami_app using (
    owner_tenant_id = current_tenant()
    or (state = 'approved' and current_tenant() is not null and (visibility = 'public' or exists (
        select from release_audience a where a.release_id = plugin_releases.id and a.tenant_id = current_tenant())))
    or exists (select from plugin_versions v where v.release_id = plugin_releases.id and v.tenant_id = current_tenant()));
create policy tenant_adds on plugin_releases for insert to tsunami_app
    with check (owner_tenant_id = current_tenant() and state = 'submitted' and reviewed_by is null);
create policy tenant_changes on plugin_releases for update to tsunami_app
    using (owner_tenant_id = current_tenant()) with check (owner_tenant_id = current_tenant());
grant select, insert on plugin_releases to tsunami_app;
-- Neither what was published nor what the operator thinks of it.
grant update (visibility, yanked_at, yanked_by, yank_reason) on plugin_releases to tsunami_app;

create policy tenant_rows on release_audience for select to tsunami_app
    using (tenant_id = current_tenant() or owner_tenant_id = current_tenant());
create policy tenant_adds on release_audience for insert to tsunami_app with check (owner_tenant_id = current_tenant());
create policy tenant_removes on release_audience for delete to tsunami_app using (owner_tenant_id = current_tenant());
grant select, insert, delete on release_audience to tsunami_app;

create policy tenant_reads on publishers for select to tsunami_app using (
    owner_tenant_id = current_tenant() or exists (select from plugin_releases r where r.publisher_id = publishers.id));
create policy tenant_adds on publishers for insert to tsunami_app with check (owner_tenant_id = current_tenant());
create policy tenant_changes on publishers for update to tsunami_app
    using (owner_tenant_id = current_tenant()) with check (owner_tenant_id = current_tenant());
grant select, insert on publishers to tsunami_app;
grant update (name, sigstore_subject, sigstore_issuer) on publishers to tsunami_app;

create policy tenant_reads on publisher_keys for select to tsunami_app
    using (exists (select from publishers p where p.id = publisher_id));
create policy tenant_adds on publisher_keys for insert to tsunami_app with check (
    exists (select from publishers p where p.id = publisher_id and p.owner_tenant_id = current_tenant()));
create policy tenant_changes on publisher_keys for update to tsunami_app
    using (exists (select from publishers p where p.id = publisher_id and p.owner_tenant_id = current_tenant()));
grant select, insert on publisher_keys to tsunami_app;
grant update (retired_at, revoked_at) on publisher_keys to tsunami_app;

create policy tenant_reads on plugin_components for select to tsunami_app using (
    exists (select from plugin_versions v where v.digest = plugin_components.digest and v.tenant_id = current_tenant())
    or exists (select from plugin_releases r where r.digest = plugin_components.digest)
    or exists (select from operator_policies o where o.digest = plugin_components.digest));
create policy tenant_adds on plugin_components for insert to tsunami_app with check (current_tenant() is not null);
grant select, insert on plugin_components to tsunami_app;

create policy tenant_reads on plugin_revocations for select to tsunami_app using (current_tenant() is not null);
create policy tenant_adds on plugin_revocations for insert to tsunami_app with check (exists (
    select from plugin_releases r where r.id = release_id and r.digest = plugin_revocations.digest
        and r.owner_tenant_id = current_tenant()));
grant select, insert on plugin_revocations to tsunami_app;

create policy system_rows on plugin_components to tsunami_system using (true) with check (true);
create policy system_rows on publishers to tsunami_system using (true) with check (true);
create policy system_rows on publisher_keys to tsunami_system using (true) with check (true);
create policy system_rows on plugin_releases to tsunami_system using (true) with check (true);
create policy system_rows on release_audience to tsunami_system using (true) with check (true);
create policy system_rows on plugin_revocations to tsunami_system using (true) with check (true);
create policy system_rows on plugin_installations to tsunami_system using (true) with check (true);
create policy system_rows on plugin_versions to tsunami_system using (true) with check (true);
grant select, insert on plugin_components, plugin_revocations to tsunami_system;
grant select, insert, update on publishers, publisher_keys, plugin_releases to tsunami_system;
grant select, insert, delete on release_audience to tsunami_system;
grant select on plugin_installations, plugin_versions to tsunami_system;
grant select (plugin_digest) on skill_calls to tsunami_system;
