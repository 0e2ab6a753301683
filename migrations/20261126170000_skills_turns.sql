-- `attempts` counts how often the call was begun anew, for whatever reason. Whoever works on a call names the number
-- that it knows, and writes nothing where the row has another: it was overtaken. Requests of each have ids of their own.
alter table skill_calls
    -- Of those, how often the service or the way to it refused, since a person last had a say.
    add column refusals    int not null default 0,
    -- As the action of the pinned plugin says, from when the call began. Null counts as not.
    add column idempotent  boolean;

-- The number under which the request was sent. Null: sent before it was written down, under the call's own.
alter table skill_call_requests add column attempt int;

-- Calls that were written down and never begun are looked for in the same way as those that nobody works on any more. A
-- workflow that sees one through is named by the call, so nobody counts how often that was asked for.
drop index skill_calls_never_begun;
drop index skill_calls_unfinished;
alter table skill_calls drop column taken_up;
create index skill_calls_unfinished on skill_calls (leased_until) where status in ('queued', 'running');

-- A workflow that is started again where the last one of its id has ended.
alter table outbox drop constraint outbox_kind_check;
alter table outbox add constraint outbox_kind_check check (kind in ('start', 'start_again', 'signal', 'cancel'));
