set local lock_timeout = '5s';

-- That a call's tenant exists needs no look at it each time: the rows' rule demands the tenant that a key was found for, keys
-- refer to tenants, and tenants are never deleted. Each look locked the tenant's row, which all its calls share: a tenth of
-- what the database did for a call that no policy decides, and more where many ran at once.
alter table skill_calls drop constraint skill_calls_tenant_id_fkey;
alter table skill_call_requests drop constraint skill_call_requests_tenant_id_fkey;
alter table execution_traces drop constraint execution_traces_tenant_id_fkey;
