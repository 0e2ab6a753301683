-- Who stands behind a key, a task and an approval, so that one person with two keys is not taken for two.
alter table api_keys add column created_by_key uuid references api_keys (id);
alter table agent_tasks add column created_by_key uuid;
alter table approvals add column on_behalf_of_key uuid;

-- Until now it was written down as `name (prefix)`, by the host.
alter table api_keys no force row level security;
alter table agent_tasks no force row level security;
alter table approvals no force row level security;
update api_keys k set created_by_key = m.id from api_keys m
where m.tenant_id = k.tenant_id and m.prefix = substring(k.created_by from '\(([^()]*)\)$');
update agent_tasks t set created_by_key = m.id from api_keys m
where m.tenant_id = t.tenant_id and m.prefix = substring(t.created_by from '\(([^()]*)\)$');
update approvals a set on_behalf_of_key = m.id from api_keys m
where m.tenant_id = a.tenant_id and m.prefix = substring(a.on_behalf_of from '\(([^()]*)\)$');
alter table api_keys force row level security;
alter table agent_tasks force row level security;
alter table approvals force row level security;
