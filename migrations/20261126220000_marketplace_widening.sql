-- An operator approved a release for those whom it was for then. Whoever owns it may hand it in again, for others, and
-- may say nothing else of what is thought of it.
create function plugin_releases_state() returns trigger language plpgsql as $$
begin
    if current_user = 'tsunami_app' and new.state is distinct from old.state then
        if old.state <> 'approved' or new.state <> 'submitted' then
            raise insufficient_privilege using message = 'permission denied: only an operator decides about a release';
        end if;
        new.state_reason := null;
        new.reviewed_by := null;
        new.reviewed_at := null;
    end if;
    return new;
end
$$;
create trigger plugin_releases_state before update of state on plugin_releases
    for each row execute function plugin_releases_state();
grant update (state) on plugin_releases to tsunami_app;

-- A policy that a tenant made of the operator's component stays when the operator removes theirs. For this the owner
-- looks past its own rule.
alter table policies no force row level security;
alter table plugin_versions no force row level security;
insert into plugin_versions (id, tenant_id, digest)
    select uuidv7(), p.tenant_id, p.digest
    from (select distinct tenant_id, digest from policies) p
    where not exists (select from plugin_versions v where v.tenant_id = p.tenant_id and v.digest = p.digest)
    on conflict do nothing;
alter table plugin_versions force row level security;
alter table policies force row level security;
