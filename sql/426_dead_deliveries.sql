-- Deliveries whose job is no more: none stays open for ever, each is explained.
--
-- A job may die without having written what became of its delivery: its worker was killed again and again, it took too
-- long, the database did not answer. Its dead letter is written by the queue, and explains the delivery at once. What
-- has no dead letter, since somebody canceled the job, is found when it is old.

-- Ends the delivery of a job that has become a dead letter. It is failed, and the replay of that dead letter sends it;
-- if a send was under way, the time of that stays, so that what follows is marked as a second copy.
-- Callers: the trigger below, in the transaction that writes the dead letter, and with it outcomes of other jobs: it
-- waits for nobody. A delivery that somebody holds just then is explained when it is old; replaying sends it as well.
create function public.explain_delivery() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    said constant text := coalesce(new.job_data #>> '{data,deliveryId}', new.job_data #>> '{data,delivery_id}');
begin
    -- A dead letter may be of anything that somebody inserted as a job.
    if said ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
        update public.alert_deliveries as d
        set
            status = 'failed', is_unsent = true, reason = coalesce(d.reason, 'job_died'),
            words = coalesce(d.words, 'Its job failed. When its dead letter is replayed, it is sent.')
        where
            d.id = (
                select open.id from public.alert_deliveries as open
                where open.id = said::uuid and open.status in ('pending', 'sending')
                for update skip locked
            );
    end if;
    return null;
end
$$;

create trigger explain_delivery after insert on public.failed_jobs
for each row when (new.job_type = 'alerts') execute function public.explain_delivery();


-- Ends deliveries that have been too old for a day and have no job that could end them: how many, at most max_rows.
-- Callers: prune.
create function public.explain_open_deliveries(max_rows integer) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    ended integer;
begin
    update public.alert_deliveries as d
    set status = case d.status when 'sending' then 'unknown' else 'failed' end, reason = coalesce(d.reason, 'too_old')
    where
        d.id = any (
            array(
                select old.id from public.alert_deliveries as old
                where
                    old.status in ('pending', 'sending')
                    and old.give_up_at < public.clock_now() - interval '1 day'
                    and not exists (
                        select from public.jobs as j
                        where
                            j.queue = 'alerts' and j.idempotency_key = 'delivery:' || old.id
                            and j.status in ('pending', 'running')
                    )
                limit explain_open_deliveries.max_rows
                for update skip locked
            )
        );
    get diagnostics ended = row_count;
    return ended;
end
$$;

revoke all on function
public.explain_delivery(),
public.explain_open_deliveries(integer)
from public, anon, authenticated, service_role, pulse_worker;
