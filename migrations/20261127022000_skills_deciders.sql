-- The roles of who decided: what is asked for when the call goes on may be more than when they were asked.
alter table approvals add column decided_with_roles text[];
