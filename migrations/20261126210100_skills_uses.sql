-- Uses of a skill are numbered, so that those of a window are counted by two look-ups, however many there are: the number
-- of the last one, less that of the first one in the window.
create table skill_uses (
    tenant_id   uuid not null references tenants (id),
    skill_name  text not null,
    uses        bigint not null,
    primary key (tenant_id, skill_name)
) with (fillfactor = 50);
call guard_tenant_table('skill_uses');
revoke delete on skill_uses from tsunami_app;

alter table skill_calls add column rate_number bigint;
-- For what was there before the owner looks past its own rule.
alter table skill_calls no force row level security;
alter table skill_uses no force row level security;
update skill_calls c set rate_number = n.number
    from (select id, row_number() over (partition by tenant_id, skill_name order by rate_counted_at, id) as number
          from skill_calls where rate_counted_at is not null) n
    where n.id = c.id;
insert into skill_uses (tenant_id, skill_name, uses)
    select tenant_id, skill_name, max(rate_number) from skill_calls where rate_number is not null group by tenant_id, skill_name;
alter table skill_calls force row level security;
alter table skill_uses force row level security;
alter table skill_calls add check ((rate_counted_at is null) = (rate_number is null));

-- Uses of a skill within the seconds before a moment: the numbers of the first and the last one.
create function uses_within(of_skill text, per_seconds float8, moment timestamptz, out first bigint, out last bigint)
    language sql stable as $$
    select (select rate_number from skill_calls
            where skill_name = of_skill and rate_counted_at > moment - make_interval(secs => per_seconds) and rate_counted_at < moment
            order by rate_counted_at limit 1),
           (select rate_number from skill_calls
            where skill_name = of_skill and rate_counted_at > moment - make_interval(secs => per_seconds) and rate_counted_at < moment
            order by rate_counted_at desc limit 1)
$$;

-- Numbers one use more of a skill; with how many seconds it has to wait, where the limit leaves no room for it. Then the
-- transaction is not to be committed, and the number is free again. The count's row is locked until it ends, so two at
-- once look one after the other; and a volatile function looks anew for each of its statements, so what the first one did
-- is seen.
create function number_use(of_skill text, uses_max bigint, per_seconds float8, out number bigint, out moment timestamptz, out wait float8)
    language plpgsql volatile as $$
declare
    first bigint;
begin
    insert into skill_uses as u (tenant_id, skill_name, uses) values (current_tenant(), of_skill, 1)
        on conflict (tenant_id, skill_name) do update set uses = u.uses + 1
        returning uses into number;
    moment := clock_timestamp();
    if uses_max is null then
        return;
    end if;
    select rate_number into first from skill_calls
        where skill_name = of_skill and rate_counted_at > moment - make_interval(secs => per_seconds)
        order by rate_counted_at limit 1;
    if number - first >= uses_max then
        select greatest(extract(epoch from rate_counted_at + make_interval(secs => per_seconds) - moment), 0.1) into wait
            from skill_calls
            where skill_name = of_skill and rate_counted_at > moment - make_interval(secs => per_seconds)
            order by rate_counted_at offset number - first - uses_max limit 1;
    end if;
end
$$;
