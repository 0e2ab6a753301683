-- The number of a trace's next step. Whoever asks holds the trace's lock until its transaction ends, so that two
-- writers at once take two numbers. It is a volatile function because such a one looks anew for each of its statements:
-- the steps are counted as they are after the wait. Lock and count in one statement would both see what there was
-- before it.
create function next_step_order(of_task uuid, of_call uuid) returns int language plpgsql volatile as $$
declare
    last int;
begin
    perform pg_advisory_xact_lock(hashtextextended(coalesce(of_task, of_call)::text, 0));
    if of_task is not null then
        select max(step_order) into last from execution_traces where task_id = of_task;
    else
        select max(step_order) into last from execution_traces where task_id is null and call_id = of_call;
    end if;
    return coalesce(last, 0) + 1;
end
$$;

-- One index names a step within its trace, whosever trace it is, so that a repetition can be told from any other
-- conflict: only the repetition may be dropped.
create unique index execution_traces_step on execution_traces (coalesce(task_id, call_id), step_key);
drop index execution_traces_task_step;
drop index execution_traces_call_step;
create index execution_traces_by_call on execution_traces (call_id, step_order) where task_id is null;
