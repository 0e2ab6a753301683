-- `stopping`: so that nothing else is asked of an instance while it stops.
alter table tenant_instances drop constraint tenant_instances_status_check;
alter table tenant_instances add constraint tenant_instances_status_check check (status in (
    'provisioning', 'running', 'stopping', 'stopped', 'upgrading', 'error', 'destroying', 'destroyed', 'asleep'));

-- Since when it should run and could not be brought back: it is tried again by itself. (An operation that failed is
-- not: somebody asks for another one.)
alter table tenant_instances add column lost_since timestamptz;

-- `start_again`: of a workflow whose id served before. It begins when the one before has ended.
alter table outbox drop constraint outbox_kind_check;
alter table outbox add constraint outbox_kind_check check (kind in ('start', 'start_again', 'signal', 'cancel'));
