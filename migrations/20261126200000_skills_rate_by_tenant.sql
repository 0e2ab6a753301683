-- What counts the calls of a window asks for one tenant's calls of one skill, as the rule on rows does: an index that
-- lacks one of the two is joined with another, and then reads all calls that the tenant ever made.
drop index skill_calls_rate;
create index skill_calls_rate on skill_calls (tenant_id, skill_name, rate_counted_at) where rate_counted_at is not null;
