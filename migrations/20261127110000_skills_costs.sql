set local lock_timeout = '5s';

-- What the tenant says that a call of an action costs, in millionths of a US dollar: {"send_text": 5000}.
alter table skill_configs add column costs jsonb not null default '{}';

-- What a call was expected to cost when it began: what the policies were given then. A generated column would say the
-- same, and be worked out anew by each statement that writes a call.
alter table skill_calls add column cost_micro_usd bigint not null default 0;
create index skill_calls_priced on skill_calls (tenant_id, started_at) where cost_micro_usd > 0;

create function expected_cost(policy_input jsonb) returns bigint
    language sql immutable parallel safe
    return coalesce((policy_input #>> '{usage,estimated_cost_micro_usd}')::bigint, 0);

-- What counts as spent of a call: of one that runs or whose outcome nobody knows, too; and of one that failed, unless the
-- service refused each request that left. What a plugin says of its own failure does not decide.
create function spent_on(a skill_calls) returns bigint
    language sql stable as $$
    select case
        when a.status in ('running', 'outcome_unknown', 'succeeded') then a.cost_micro_usd
        when a.status = 'failed' and exists (
            select from skill_call_requests r where r.call_id = a.id and coalesce((r.reply ->> 'status')::int, 0) < 400) then a.cost_micro_usd
        else 0
    end
$$;

-- The sum of it by tenant and day, UTC, of the calls that began on that day: a policy that goes by it reads a month of rows
-- at most, however many calls there were.
create table daily_spend (
    tenant_id  uuid not null references tenants (id),
    day        date not null,
    micro_usd  numeric(38) not null,
    primary key (tenant_id, day)
);
call guard_tenant_table('daily_spend');
revoke delete on daily_spend from tsunami_app;

-- When all of the transaction is written: the last reply is kept after the call's end.
create function account_spending() returns trigger language plpgsql as $$
declare
    change bigint := spent_on(new);
begin
    if tg_op = 'UPDATE' then
        change := change - spent_on(old);
    end if;
    if change <> 0 then
        insert into daily_spend as d (tenant_id, day, micro_usd)
            values (new.tenant_id, (new.started_at at time zone 'UTC')::date, change)
            on conflict (tenant_id, day) do update set micro_usd = d.micro_usd + excluded.micro_usd;
    end if;
    return null;
end
$$;
create constraint trigger skill_calls_spending after insert or update of status on skill_calls
    deferrable initially deferred for each row when (new.cost_micro_usd > 0) execute function account_spending();

-- What the tenant spent, in millionths of a US dollar, since the beginning of the day and of the month, UTC; at an earlier
-- moment, by what is known now of the calls that had begun.
create function spent_until(moment timestamptz, out day bigint, out month bigint)
    language sql stable as $$
    with today as (select (coalesce(moment, now()) at time zone 'UTC')::date as date),
        of_day as (
            select case when moment is null
                then (select coalesce(sum(micro_usd), 0) from daily_spend, today where daily_spend.day = date)
                else (select coalesce(sum(spent_on(c)), 0) from skill_calls c
                      where cost_micro_usd > 0 and started_at >= date_trunc('day', moment, 'UTC') and started_at < moment)
            end as sum),
        of_days_before as (
            select coalesce(sum(micro_usd), 0) as sum from daily_spend, today
            where daily_spend.day >= date_trunc('month', date)::date and daily_spend.day < date)
    select least(of_day.sum, 9223372036854775807)::bigint, least(of_day.sum + of_days_before.sum, 9223372036854775807)::bigint
        from of_day, of_days_before
$$;
create function spent_for_task(of_task uuid) returns bigint
    language sql stable as $$
    select least(coalesce(sum(spent_on(c)), 0), 9223372036854775807)::bigint from skill_calls c where task_id = of_task
$$;

-- As before, with what the call is expected to cost.
create or replace function begin_call(
    of_tenant uuid, stamps_seen text, uses_max bigint, per_seconds float8, lease_seconds float8,
    call uuid, of_task uuid, step int, of_agent uuid, who text, who_as jsonb, key text, request bytea,
    skill text, asked text, asked_with jsonb, made_at timestamptz,
    config uuid, instance uuid, digest text, set_to jsonb, credentials jsonb, repeatable boolean,
    input jsonb, verdict jsonb, decisions jsonb, request_digest text, journal text,
    out came_to text, out wait float8, out began_at timestamptz, out counted_at timestamptz)
    language plpgsql volatile set plan_cache_mode = force_generic_plan as $$
declare
    number bigint;
begin
    perform set_config('tsunami.tenant_id', of_tenant::text, true);
    if current_stamps() is distinct from stamps_seen then
        came_to := 'changed';
        return;
    end if;
    select u.number, u.moment, u.wait into number, counted_at, wait from number_use(skill, uses_max, per_seconds) u;
    if wait is not null then
        perform uncount_use(skill);
        came_to := 'limited';
        return;
    end if;
    began_at := now();
    insert into skill_calls (
            id, tenant_id, task_id, task_step, agent_id, actor, actor_context, idempotency_key, request_sha256,
            skill_name, action, params, created_at, status, skill_config_id, instance_id, plugin_digest, settings, credentials_used,
            idempotent, policy_input, policy_verdict, started_at, rate_counted_at, rate_number, leased_until, cost_micro_usd)
        values (
            call, of_tenant, of_task, step, of_agent, who, who_as, key, request,
            skill, asked, asked_with, made_at, 'running', config, instance, digest, set_to, credentials,
            repeatable, input, verdict, began_at, counted_at, number, began_at + make_interval(secs => lease_seconds), expected_cost(input))
        on conflict on constraint skill_calls_idempotency do nothing;
    -- To look for it first would leave it to the planner by which index: a plan made while there are few calls reads all
    -- of the tenant's when there are many.
    if not found then
        perform uncount_use(skill);
        came_to := 'written';
        return;
    end if;
    if decisions is not null then
        perform record_decisions(call, decisions);
    end if;
    insert into skill_call_requests (tenant_id, call_id, attempt, seq, digest, journal_id, status)
        values (of_tenant, call, 0, 0, request_digest, journal, 'sending');
    came_to := 'begun';
end
$$;
