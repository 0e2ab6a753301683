-- A credential schema that is a plugin of its own: it is installed beside the skill whose credentials it describes.
set local lock_timeout = '5s';

-- What the installation does for its skill: carry its calls out, or describe its credentials where the first does not.
alter table plugin_installations
    add column serves text not null default 'skill' check (serves in ('skill', 'credentials'));
drop index plugin_installations_one_live;
create unique index plugin_installations_one_live on plugin_installations (tenant_id, skill_name, serves) where removed_at is null;

-- What a schema says besides its fields: its skill, and what people read of it.
alter table plugin_components add column credential_schema jsonb;

-- Those that were brought before say nothing there, and nothing could be done with them: they can be brought again.
-- (Who had published one, while that was possible, publishes a new version.)
alter table plugin_versions no force row level security;
alter table plugin_releases no force row level security;
alter table plugin_components no force row level security;
delete from plugin_versions v using plugin_components c
    where c.digest = v.digest and c.kinds = '{credential-schema}'
      and not exists (select from plugin_releases r where r.digest = c.digest);
delete from plugin_components c
    where kinds = '{credential-schema}' and not exists (select from plugin_releases r where r.digest = c.digest);
alter table plugin_components force row level security;
alter table plugin_releases force row level security;
alter table plugin_versions force row level security;
