-- Three roles. The owner (who runs this file) owns every table and serves no request. `tsunami_app`
-- serves tenants and sees only rows of the tenant that its transaction names. `tsunami_system` does
-- the few jobs that span tenants, and is let into the tables that those jobs need, and no others.
do $$
begin
    if not exists (select from pg_roles where rolname = 'tsunami_app') then
        create role tsunami_app nologin;
    end if;
    if not exists (select from pg_roles where rolname = 'tsunami_system') then
        create role tsunami_system nologin;
    end if;
end
$$;

grant usage on schema public to tsunami_app, tsunami_system;

-- The tenant that the current transaction is for; null, and so equal to nothing, where none was named.
create function current_tenant() returns uuid
    language sql stable parallel safe
    return nullif(current_setting('tsunami.tenant_id', true), '')::uuid;

-- Puts a table under the rule: the application role sees and writes rows of its tenant alone.
-- `system_access` names what the system role may do (`select`, `select, update`, ...); null for nothing.
create procedure guard_tenant_table(table_name regclass, system_access text default null)
    language plpgsql as $$
begin
    execute format('alter table %s enable row level security', table_name);
    execute format('alter table %s force row level security', table_name);
    execute format(
        'create policy tenant_rows on %s to tsunami_app using (tenant_id = current_tenant()) with check (tenant_id = current_tenant())',
        table_name);
    execute format('grant select, insert, update, delete on %s to tsunami_app', table_name);
    if system_access is not null then
        execute format('create policy system_rows on %s to tsunami_system using (true) with check (true)', table_name);
        execute format('grant %s on %s to tsunami_system', system_access, table_name);
    end if;
end
$$;
