-- The roles lose what no code of theirs does. Whoever comes to need it grants it again, in the migration that needs it.

-- These rows are ended by a column and kept. (`skill_configs` and `skill_credentials` may go with their plugin.)
revoke delete on users, api_keys, idempotency_keys, agents, agent_skills, agent_relationships, agent_memories,
    tenant_data_keys, plugin_versions, plugin_installations, tenant_instances, skill_calls, approvals, agent_tasks,
    agent_messages from tsunami_app;
-- And these are not changed either, once they are written.
revoke update on tenants, idempotency_keys, agent_memories, tenant_data_keys, plugin_versions, agent_messages from tsunami_app;
-- It writes what must reach Temporal; the relay, which is the system's, does the rest.
revoke select, update, delete on outbox from tsunami_app;

-- The system role: of each table the columns that its jobs read, and the marks that they leave.
revoke all on idempotency_keys from tsunami_system;
drop policy system_rows on idempotency_keys;
drop index idempotency_keys_by_age;
revoke all on skill_calls, tenant_instances from tsunami_system;
grant select (tenant_id, id, task_id, status, detached, leased_until, created_at) on skill_calls to tsunami_system;
grant select (tenant_id, id, status, desired, lost_since) on tenant_instances to tsunami_system;
revoke update on tenants, api_keys, operator_keys, outbox from tsunami_system;
grant update (last_used_at) on api_keys, operator_keys to tsunami_system;
grant update (attempts, next_attempt_at) on outbox to tsunami_system;
