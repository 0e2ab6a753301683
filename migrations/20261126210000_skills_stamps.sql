-- A stamp that is a new one whenever something changes that a call is decided by: the instance, the skill's
-- configuration and plugin, its credentials, the policies. Who kept a copy under a stamp knows by one look whether it
-- is still the state of things. `scope` is a tenant, or all zeros for what the operator sets for everybody.
create table stamps (
    scope       uuid primary key,
    stamp       uuid not null,
    changed_in  xid8 not null
);
-- Written by the trigger alone, which is the owner's.
alter table stamps enable row level security;
create policy own_rows on stamps for select to tsunami_app
    using (scope in (current_tenant(), '00000000-0000-0000-0000-000000000000'));
grant select on stamps to tsunami_app;
insert into stamps (scope, stamp, changed_in)
    values ('00000000-0000-0000-0000-000000000000', gen_random_uuid(), pg_current_xact_id());

-- At the end of the transaction that changes something, when it holds all its other locks: two of them never wait for
-- each other.
create function change_stamp() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
declare
    of_scope uuid := '00000000-0000-0000-0000-000000000000';
begin
    if tg_nargs = 0 then
        of_scope := case when tg_op = 'DELETE' then old.tenant_id else new.tenant_id end;
    end if;
    insert into stamps as s (scope, stamp, changed_in) values (of_scope, gen_random_uuid(), pg_current_xact_id())
        on conflict (scope) do update set stamp = excluded.stamp, changed_in = excluded.changed_in
        where s.changed_in <> excluded.changed_in;
    return null;
end
$$;
revoke all on function change_stamp() from public;

create constraint trigger changes_stamp after insert or update or delete on tenant_instances
    deferrable initially deferred for each row execute function change_stamp();
create constraint trigger changes_stamp after insert or update or delete on skill_configs
    deferrable initially deferred for each row execute function change_stamp();
create constraint trigger changes_stamp after insert or update or delete on skill_credentials
    deferrable initially deferred for each row execute function change_stamp();
create constraint trigger changes_stamp after insert or update or delete on plugin_versions
    deferrable initially deferred for each row execute function change_stamp();
create constraint trigger changes_stamp after insert or update or delete on plugin_installations
    deferrable initially deferred for each row execute function change_stamp();
create constraint trigger changes_stamp after insert or update or delete on policies
    deferrable initially deferred for each row execute function change_stamp();
create constraint trigger changes_stamp after insert or update or delete on operator_policies
    deferrable initially deferred for each row execute function change_stamp('operator');

-- The tenant's stamp and the operator's, as one text.
create function current_stamps() returns text language sql stable parallel safe as $$
    select string_agg(stamp::text, ' ' order by scope) from stamps
    where scope in (current_tenant(), '00000000-0000-0000-0000-000000000000')
$$;
