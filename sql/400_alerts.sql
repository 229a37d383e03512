-- What people are told: alerts, over which channels and where to, and how each of them likes it.
--
-- An alert is a row before anybody is told. 410_routing.sql says who is told where, 420_deliveries.sql how each target
-- is told once. SQL knows no list of channels: a channel is a word, the type of the jobs that send, and rows in
-- alert_targets. user_id null stands for those who run the platform.

-- Whether this is a time zone with daylight saving time and all, which a letter-code such as EST is not.
create function public.is_timezone(name text) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_catalog.now() at time zone is_timezone.name;
    -- Other names with an offset are taken by PostgreSQL, whatever they say, and by nobody else.
    return is_timezone.name ~ '^(UTC|Etc/GMT(\+(\d|1[0-2])|-(\d|1[0-4]))|[A-Z][A-Za-z_]+(/[A-Za-z_-]+){1,2})$';
exception when invalid_parameter_value then
    return false;
end
$$;

-- info 1, warning 2, error 3, critical 4.
create function public.severity_rank(severity text) returns integer
language sql immutable
set search_path = pg_catalog, pg_temp
return array_position(array['info', 'warning', 'error', 'critical'], severity);


-- How a user likes to be told. Users keep their own row; without one it is these defaults.
create table public.notification_preferences (
    user_id uuid primary key,
    locale text not null default 'en_US' check (locale ~ '^[a-z]{2,3}([_-][A-Za-z0-9]{2,8}){0,4}$'),
    timezone text not null default 'UTC',
    muted_types text[] not null default '{}' check (
        cardinality(muted_types) <= 100 and length(array_to_string(muted_types, '')) <= 10000
    ),
    quiet_from time,                                    -- of the local day; across midnight when it is the later one
    quiet_until time,
    quiet_bypass text not null default 'critical',      -- this severe and more is told in quiet hours too
    digest_daily boolean not null default false,
    digest_weekly boolean not null default false,
    digest_at time not null default '08:00',
    digest_weekday integer not null default 1 check (digest_weekday between 1 and 7),   -- Monday is 1
    digest_channels text[] not null default '{email}' check (
        cardinality(digest_channels) <= 10 and length(array_to_string(digest_channels, '')) <= 630
    ),
    constraint "timezone must be the name of one, such as Europe/Berlin" check (public.is_timezone(timezone)),
    constraint "quiet hours have a beginning and another end" check (   -- 24:00 is 00:00
        num_nulls(quiet_from, quiet_until) = 2
        or num_nulls(quiet_from, quiet_until) = 0
        and quiet_until - quiet_from not in (interval '0', interval '24 hours', interval '-24 hours')
    ),
    constraint "quiet_bypass must be info, warning, error or critical" check (
        public.severity_rank(quiet_bypass) is not null
    )
);

-- Which channels a user wants, and from which severity on. Without a row a channel is on, for everything.
create table public.channel_preferences (
    user_id uuid not null,
    channel text not null check (channel ~ '^[a-z][a-z0-9_]{1,62}$'),
    enabled boolean not null default true,
    min_severity text not null default 'info',
    primary key (user_id, channel),
    constraint "min_severity must be info, warning, error or critical" check (
        public.severity_rank(min_severity) is not null
    )
);

-- What is told. Whoever has the app open reads it here, whatever became of the deliveries.
create table public.alerts (
    id uuid primary key default gen_random_uuid(),
    user_id uuid,
    alert_type text not null check (length(alert_type) between 1 and 100),
    severity text not null default 'info',
    title text not null check (title <> ''),
    message text not null default '',
    metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    dedupe_key text not null,                           -- the producer's, or the key of the job that told it
    created_at timestamptz not null default public.clock_now(),
    read_at timestamptz,
    unique nulls not distinct (user_id, dedupe_key),
    constraint "severity must be info, warning, error or critical" check (
        public.severity_rank(severity) is not null
    )
);
create index alerts_by_user on public.alerts (user_id, created_at desc);
create index alerts_by_age on public.alerts using brin (created_at);

-- Where alerts go: devices, Discord webhooks, further e-mail addresses. A user's own address is not here, where a user
-- could write anybody's: it is taken from auth.users, when it is confirmed.
create table public.alert_targets (
    id uuid primary key default gen_random_uuid(),
    user_id uuid,
    channel text not null check (channel ~ '^[a-z][a-z0-9_]{1,62}$'),
    address text,                                       -- a device's token, a webhook's id, an e-mail address
    secret_id uuid,                                     -- in Vault: what else it takes, such as a webhook's token
    secret_mark text,                                   -- which one that is, without showing it
    kind text,                                          -- of a device's address: token or fid
    label text check (length(label) <= 100),
    status text not null default 'active' check (status in ('active', 'disabled')),
    status_reason text,
    last_seen_at timestamptz not null default public.clock_now(),   -- registered for the last time
    created_at timestamptz not null default public.clock_now(),
    unique nulls not distinct (user_id, channel, address)
);
-- A device is with one user at a time.
create unique index one_user_per_device on public.alert_targets (address) where channel = 'push';

-- A summary of a period, for one user; period_key is the local date on which it is due.
create table public.digests (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null,
    period text not null check (period in ('daily', 'weekly')),
    period_key date not null,
    window_start timestamptz not null,
    window_end timestamptz not null,
    status text not null default 'due' check (status in ('due', 'sent', 'empty')),
    created_at timestamptz not null default public.clock_now(),
    sent_at timestamptz,
    unique (user_id, period, period_key),
    constraint "a window has a beginning and a later end" check (window_start < window_end)
);

-- One alert, or digest, to one target. The row is the fence: there is no second one.
--
--     pending ──▶ sending ──▶ sent | failed | unknown
--        │  ▲        │
--        │  └────────┘  not now; nothing was delivered
--        └──▶ suppressed
--
-- `sending` whose time is over was cut off, or its outcome is not known: it may be sent again, which `resends` counts.
create table public.alert_deliveries (
    id uuid primary key default gen_random_uuid(),
    alert_id uuid references public.alerts (id) on delete cascade,
    digest_id uuid references public.digests (id) on delete cascade,
    user_id uuid,                                       -- whose; as its alert or digest says
    channel text not null,
    target_id uuid,                                     -- no reference: a target may go, what was sent there stays
    address text,                                       -- of the user, when it was routed
    status text not null default 'pending' check (
        status in ('pending', 'sending', 'sent', 'failed', 'suppressed', 'unknown')
    ),
    sends integer not null default 0,                   -- how often it was begun: the fence of each
    resends integer not null default 0,                 -- how many of those followed one that may have arrived
    begun_by text,                                      -- the attempt that began the newest send
    sending_until timestamptz,                          -- by then that send is over, one way or another
    not_before timestamptz,                             -- the end of quiet hours, or its turn
    give_up_at timestamptz not null default public.clock_now() + interval '1 day',  -- news of yesterday is not sent
    is_unsent boolean not null default false,           -- failed, and not by a refusal: replaying its job sends it
    provider_id text,
    reason text,                                        -- one word for programs
    words text,                                         -- one sentence for people
    created_at timestamptz not null default public.clock_now(),
    sent_at timestamptz,
    unique nulls not distinct (alert_id, digest_id, channel, target_id, address),
    constraint "a delivery is of an alert or of a digest" check (num_nonnulls(alert_id, digest_id) = 1),
    constraint "what was sent says when" check ((status = 'sent') = (sent_at is not null))
);
create index alert_deliveries_by_user on public.alert_deliveries (user_id, created_at desc);
-- For the end of a digest, which takes its deliveries along; those of alerts have the unique index.
create index alert_deliveries_by_digest on public.alert_deliveries (digest_id) where digest_id is not null;
create index alert_deliveries_open on public.alert_deliveries (give_up_at) where status in ('pending', 'sending');
create index alert_deliveries_by_provider_id on public.alert_deliveries (provider_id) where provider_id is not null;

-- The pace at one target (`discord:<webhook>`) or of a whole channel (`discord`), for all processes together.
create table public.delivery_lanes (
    lane text primary key,
    held_until timestamptz,                             -- nothing is sent before: the provider said so
    busy_with uuid,                                     -- the one delivery that is under way,
    busy_until timestamptz,                             -- at the longest until then
    turn_at timestamptz                                 -- when the last of those that wait has its turn
);

-- Addresses that get no mail, or no digests: written in lower case.
create table public.email_suppressions (
    address text not null check (address = lower(address)),
    scope text not null default 'all' check (scope in ('all', 'digest')),
    reason text not null check (reason in ('bounce', 'unsubscribe', 'spam', 'invalid', 'manual')),
    created_at timestamptz not null default public.clock_now(),
    primary key (address, scope)
);


-- Access: users read what is theirs and edit how they are told; tokens and secrets are for the service alone.

alter table public.notification_preferences enable row level security;
alter table public.channel_preferences enable row level security;
alter table public.alerts enable row level security;
alter table public.alert_targets enable row level security;
alter table public.digests enable row level security;
alter table public.alert_deliveries enable row level security;
alter table public.delivery_lanes enable row level security;
alter table public.email_suppressions enable row level security;

revoke all on
public.notification_preferences, public.channel_preferences, public.alerts, public.alert_targets, public.digests,
public.alert_deliveries, public.delivery_lanes, public.email_suppressions
from public, anon, authenticated, service_role, pulse_worker;

grant select on
public.notification_preferences, public.channel_preferences, public.alerts, public.alert_targets, public.digests,
public.alert_deliveries, public.delivery_lanes, public.email_suppressions
to service_role;
grant insert (user_id, channel, address, label), update (label, status, status_reason), delete
on public.alert_targets to service_role;
grant insert, delete on public.email_suppressions to service_role;

grant select on public.notification_preferences to authenticated;
grant insert (
    user_id, locale, timezone, muted_types, quiet_from, quiet_until, quiet_bypass, digest_daily, digest_weekly,
    digest_at, digest_weekday, digest_channels
), update (
    locale, timezone, muted_types, quiet_from, quiet_until, quiet_bypass, digest_daily, digest_weekly,
    digest_at, digest_weekday, digest_channels
) on public.notification_preferences to authenticated;
grant select, insert, update (enabled, min_severity), delete on public.channel_preferences to authenticated;
grant select (id, user_id, alert_type, severity, title, message, metadata, created_at, read_at), update (read_at)
on public.alerts to authenticated;
grant select (id, user_id, channel, kind, label, status, status_reason, last_seen_at, created_at)
on public.alert_targets to authenticated;
grant select on public.digests to authenticated;
grant select (
    id, alert_id, digest_id, user_id, channel, target_id, status, reason, words, not_before, created_at, sent_at
) on public.alert_deliveries to authenticated;

create policy "users see their own preferences" on public.notification_preferences
for select to authenticated using (user_id = (select auth.uid()));
create policy "users make their own preferences" on public.notification_preferences
for insert to authenticated with check (user_id = (select auth.uid()));
create policy "users change their own preferences" on public.notification_preferences
for update to authenticated using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
create policy "users keep their own channels" on public.channel_preferences
for all to authenticated using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
create policy "users see their own alerts" on public.alerts
for select to authenticated using (user_id = (select auth.uid()));
create policy "users read their own alerts" on public.alerts
for update to authenticated using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
create policy "users see their own targets" on public.alert_targets
for select to authenticated using (user_id = (select auth.uid()));
create policy "users see their own digests" on public.digests
for select to authenticated using (user_id = (select auth.uid()));
create policy "users see their own deliveries" on public.alert_deliveries
for select to authenticated using (user_id = (select auth.uid()));

-- The first is asked by a check of a table, with the rights of whoever writes there.
revoke all on function
public.is_timezone(text),
public.severity_rank(text)
from public, anon, authenticated, service_role, pulse_worker;
grant execute on function
public.is_timezone(text),
public.severity_rank(text)
to authenticated, service_role;
