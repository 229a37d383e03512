-- Writes down each change of a job's state as it is committed: what the proof is drawn from.
--
-- Only for the lab's own database. A row's changes are numbered while the row is locked, so the numbers of one job
-- are in the order in which its changes happened. Renewed leases are no change of state.

create schema chaos;

create table chaos.history (
    n bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    job_id bigint not null,
    before text,                        -- null: the job was inserted
    after text,                         -- null: the row was deleted
    attempt_before integer,
    attempt integer,
    uncounted_before integer,
    uncounted integer,
    max_attempts integer,
    run_at timestamptz,
    worker_id text,
    outcome text,
    lease_over boolean                  -- whether the lease that it had before had run out
);

create function chaos.note_insert() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into chaos.history (job_id, after, attempt, uncounted, max_attempts, run_at)
    values (new.id, new.status, new.attempt, new.uncounted, new.max_attempts, new.run_at);
    return null;
end
$$;

create function chaos.note_update() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into chaos.history (
        job_id, before, after, attempt_before, attempt, uncounted_before, uncounted, max_attempts, run_at, worker_id,
        outcome, lease_over
    )
    values (
        new.id, old.status, new.status, old.attempt, new.attempt, old.uncounted, new.uncounted, new.max_attempts,
        new.run_at, new.worker_id, case when new.status <> 'running' then new.last_outcome end,
        old.lease_expires_at < public.clock_now()
    );
    return null;
end
$$;

create function chaos.note_delete() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into chaos.history (job_id, before, attempt_before) values (old.id, old.status, old.attempt);
    return null;
end
$$;

create trigger chaos_note_insert after insert on public.jobs
for each row execute function chaos.note_insert();

create trigger chaos_note_update after update on public.jobs
for each row
when (
    old.status is distinct from new.status or old.attempt is distinct from new.attempt
    or old.uncounted is distinct from new.uncounted or old.worker_id is distinct from new.worker_id
)
execute function chaos.note_update();

create trigger chaos_note_delete after delete on public.jobs
for each row execute function chaos.note_delete();


-- When an outcome was refused: stale_outcomes itself tells when the call began, before it waited for the row.
create table chaos.refused (
    n bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    job_id bigint not null,
    attempt integer not null,
    kind text not null
);

create function chaos.note_refused() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into chaos.refused (job_id, attempt, kind) values (new.job_id, new.attempt, new.kind);
    return null;
end
$$;

create trigger chaos_note_refused after insert on public.stale_outcomes
for each row execute function chaos.note_refused();
