-- Who may do what. Nothing is left to default privileges, which differ from project to project.
--
--   service_role    reads everything, inserts a producer's columns, calls the functions;
--   pulse_worker    calls the functions that a worker needs, and reads the keys of rows, so as to hear of
--                   them (see open_to_workers);
--   authenticated   reads the harmless columns of their own jobs (see guard_queue_table);
--   anon            nothing.
-- The functions are `security definer` for one reason: nobody but their owner may change a job's state.

select public.guard_queue_table('jobs');
grant insert (queue) on public.jobs to service_role;

-- No policies: only roles that bypass row level security, and the owner, see rows here.
alter table public.jobs_unknown_queue enable row level security;
alter table public.failed_jobs enable row level security;
alter table public.stale_outcomes enable row level security;
alter table public.realtime_canary enable row level security;

revoke all on
public.jobs_unknown_queue, public.failed_jobs, public.stale_outcomes, public.realtime_canary
from public, anon, authenticated, service_role, pulse_worker;

grant select on public.failed_jobs, public.stale_outcomes, public.realtime_canary to service_role;

revoke all on sequence public.jobs_id_seq, public.failed_jobs_id_seq, public.realtime_canary_id_seq
from public, anon, authenticated, service_role, pulse_worker;

-- A worker hears its own canary: Realtime wants the key of the row, and the column by which it is filtered.
grant select (id, token) on public.realtime_canary to pulse_worker;
create policy "workers hear canaries" on public.realtime_canary for select to pulse_worker using (true);

-- A plain INSERT computes the defaults with the rights of its caller.
grant usage on sequence public.jobs_id_seq to service_role;

revoke all on function
public.clock_now(),
public.trace_of_request(),
public.publish_table(text),
public.create_queue(text),
public.guard_queue_table(text),
public.open_to_producers(text),
public.open_to_workers(text),
public.announce_insert(),
public.announce_canary(),
public.announce_problem(),
public.announce_by_broadcast(boolean),
public.announce_table(text),
public.enqueue(jsonb),
public.check_enqueue(jsonb),
public.is_another(public.jobs, jsonb),
public.claim(text, text[], integer, double precision, text, text, jsonb, boolean, jsonb),
public.find_due(text, text[], integer, jsonb, boolean, boolean, bigint[], text[], text[], text[]),
public.unknown_types(text, text[]),
public.check_lease(double precision),
public.renew_held(jsonb, double precision),
public.heartbeat(text, jsonb, double precision),
public.report_progress(jsonb),
public.cancel(bigint[]),
public.end_lost_attempts(text),
public.finish(jsonb, jsonb),
public.record_outcomes(jsonb),
public.status_after(text, boolean, integer, integer),
public.retry_delay(text, integer),
public.replay(bigint[], text, text, integer),
public.next_old_jobs(bigint, timestamptz, timestamptz),
public.old_letters(timestamptz, integer),
public.prune(double precision, double precision, integer),
public.canary(text)
from public, anon, authenticated, service_role, pulse_worker;

grant execute on function
public.clock_now(),
public.trace_of_request(),
public.enqueue(jsonb),
public.claim(text, text[], integer, double precision, text, text, jsonb, boolean, jsonb),
public.heartbeat(text, jsonb, double precision),
public.report_progress(jsonb),
public.cancel(bigint[]),
public.finish(jsonb, jsonb),
public.replay(bigint[], text, text, integer),
public.prune(double precision, double precision, integer),
public.canary(text)
to service_role;

grant execute on function
public.enqueue(jsonb),
public.claim(text, text[], integer, double precision, text, text, jsonb, boolean, jsonb),
public.heartbeat(text, jsonb, double precision),
public.report_progress(jsonb),
public.finish(jsonb, jsonb),
public.prune(double precision, double precision, integer),
public.canary(text)
to pulse_worker;
