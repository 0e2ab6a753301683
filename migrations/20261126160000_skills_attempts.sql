-- A request that a person wants sent again is a new request of the next attempt; nothing has to be remembered of it.
alter table skill_calls drop column retry_unknown;
-- How often the call was taken up because nobody worked on it any more.
alter table skill_calls add column taken_up int not null default 0;
create index skill_calls_never_begun on skill_calls (created_at) where status = 'queued' and task_id is null;
