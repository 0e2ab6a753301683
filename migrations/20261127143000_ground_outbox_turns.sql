-- The relay takes the tenants' entries in turn.
set local lock_timeout = '5s';
drop index outbox_due;
create index outbox_by_tenant on outbox (tenant_id, next_attempt_at, id);
-- Whether an entry of its workflow comes before it.
create index outbox_by_workflow on outbox (workflow_id, id);
