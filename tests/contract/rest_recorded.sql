-- The tables and functions that the recorded REST requests speak of.

create table payment_jobs (
  id uuid primary key default gen_random_uuid(),
  job_type text not null,
  payload jsonb not null default '{}',
  status text not null default 'pending',
  priority int not null default 0,
  user_id uuid,
  attempts int not null default 0,
  created_at timestamptz not null default now(),
  dedup_key text unique
);
create table broker_jobs (like payment_jobs including all);
create table alerts_jobs (like payment_jobs including all);
create table failed_jobs (id bigint primary key, error text);
create table nopk (a int);
create table rls_jobs (id int primary key, note text);
create table rls_nopolicy (id int primary key, note text);
create table many_rows (id int primary key, v text);
create view v_jobs as select id, job_type, status from payment_jobs;
alter table rls_jobs enable row level security;
alter table rls_nopolicy enable row level security;
insert into many_rows select n, 'v' || n from generate_series(2, 2500) as n;
insert into many_rows values (1, 'v1');
analyze many_rows;

create type mood as enum ('sad', 'ok', 'happy');
create domain posint as int check (value > 0);
create type addr as (street text, zip int);
create table all_types (
  id int primary key,
  c_bool bool, c_int2 int2, c_int4 int4, c_int8 int8, c_numeric numeric, c_numeric_scale numeric(10, 2),
  c_float4 float4, c_float8 float8, c_money money, c_text text, c_varchar varchar(20), c_char char(5), c_bytea bytea,
  c_uuid uuid, c_json json, c_jsonb jsonb, c_date date, c_time time, c_timetz timetz, c_ts timestamp,
  c_tstz timestamptz, c_interval interval, c_textarr text[], c_intarr int[], c_jsonbarr jsonb[],
  c_tsarr timestamptz[], c_numarr numeric[], c_boolarr bool[], c_uuidarr uuid[], c_enum mood, c_enumarr mood[],
  c_domain posint, c_comp addr, c_inet inet, c_cidr cidr, c_macaddr macaddr, c_bit bit(3), c_varbit varbit(8),
  c_point point, c_int4range int4range, c_tstzrange tstzrange, c_tsvector tsvector, c_xml xml, c_null text,
  c_gen int generated always as (1 + 1) stored
);
insert into all_types (
  id, c_bool, c_int2, c_int8, c_numeric, c_float8, c_money, c_char, c_bytea, c_jsonb, c_tstz, c_textarr, c_interval
)
values (
  5, true, null, 9223372036854775807, 1234567890.1234567, 0.1, '$1,234.50', 'ab', '\xdeadbeef', '{"a": 1.1}',
  '2026-02-28T11:14:15.123456Z', '{"a","b,c"}', null
);

create function add(a int, b int) returns int language sql immutable as 'select a + b';
create function with_default(a int, b int default 7) returns int language sql as 'select a * b';
create function claim_jobs(n int) returns setof payment_jobs language sql as $$
  update payment_jobs set status = 'processing', attempts = attempts + 1
  where id in (select id from payment_jobs where status = 'pending' order by priority desc, created_at limit n)
  returning *
$$;
create function ret_table(n int) returns table (x int, y text) language sql as $$
  select i, 't' || i from generate_series(1, n) as i
$$;
create function ret_one() returns payment_jobs language sql as $$
  select * from payment_jobs where job_type = 'a' order by created_at limit 1
$$;
create function ret_none() returns payment_jobs language sql as 'select * from payment_jobs where false';
create function ret_setof_none() returns setof payment_jobs language sql as 'select * from payment_jobs where false';
create function ret_void() returns void language sql as 'select 1';
create function ret_null() returns int language sql as 'select null::int';
create function ret_json() returns json language sql as $$ select '{"a": 1, "b": [1, 2]}'::json $$;
create function many(n int) returns setof int language sql as 'select generate_series(1, n)';
create function overloaded(a int) returns text language sql as $$ select 'int' $$;
create function overloaded(a text) returns text language sql as $$ select 'text' $$;
-- Twenty times quicker than it says, like the roles' time-outs where the recordings are played.
create function slow(s float8) returns text language sql as $$ select pg_sleep(s / 20); select 'done' $$;
create function single_json(json) returns json language sql as 'select $1';

create function raise_custom() returns void language plpgsql as $$
begin
  raise exception 'job already claimed' using errcode = 'PJ001', detail = 'job 42', hint = 'retry later';
end $$;
create function raise_p0001() returns void language plpgsql as $$
begin
  raise exception 'plain raise %', 1;
end $$;
create function raise_pt() returns void language plpgsql as $$
begin
  raise exception 'conflict-ish' using errcode = 'PT409', detail = 'd', hint = 'h';
end $$;
create function raise_pt429() returns void language plpgsql as $$
begin
  raise exception 'slow down' using errcode = 'PT429';
end $$;
create function raise_pgrst() returns void language plpgsql as $$
begin
  raise sqlstate 'PGRST' using
    message = '{"code":"123","message":"Payment Required","details":"Quota exceeded","hint":"Upgrade your plan"}',
    detail = '{"status":402,"headers":{"X-Powered-By":"Nerd Rage"}}';
end $$;
do $make$
declare
  code text;
begin
  foreach code in array string_to_array(
    '23505 23503 23502 23514 42501 42P01 42883 22P02 40001 40P01 53300 57014 55P03 P0002 P0003 54001 XX000 25006 '
    '28000 08006 21000 PT200 PT599 PTabc ZZ999', ' '
  )
  loop
    execute format(
      'create function %I() returns void language plpgsql as %L', 'raise_' || lower(code),
      format('begin raise exception %L using errcode = %L, detail = ''d'', hint = ''h''; end', 'test ' || code, code)
    );
  end loop;
end
$make$;

grant all on all tables in schema public to anon, authenticated, service_role;
revoke all on failed_jobs from anon, authenticated;
