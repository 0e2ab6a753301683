-- Tasks whose workflow is gone are found by a job, which looks first at those that it looked at longest ago.
alter table agent_tasks add column looked_at timestamptz;
-- How often a workflow of its own was started anew, because the one before it was gone.
alter table agent_tasks add column taken_up int not null default 0;
create index agent_tasks_to_look_at on agent_tasks ((coalesce(looked_at, created_at)))
    where status not in ('completed', 'failed', 'cancelled');
create policy system_rows on agent_tasks to tsunami_system using (true) with check (true);
grant select (tenant_id, id, parent_task_id, status, created_at, updated_at, looked_at) on agent_tasks to tsunami_system;
grant update (looked_at) on agent_tasks to tsunami_system;
