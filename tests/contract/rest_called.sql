-- Functions of every shape that a call over the REST API can meet, beside the tables of rest_recorded.sql.

insert into payment_jobs (job_type, payload, status, priority, attempts, dedup_key)
values ('a', '{"x": 1}', 'pending', 0, 0, 'k1'), ('b', '{"x": "two"}', 'done', 5, 2, 'k2'),
       ('c, "d"', '{}', 'failed', 6, 1, null), ('per%cent', '[]', 'pending', 9, 0, null);

create function ret_col() returns table (x int) language sql stable as 'select 7';
create function ret_out(a int, out b int) language sql stable as 'select a + 1';
create function ret_outs(a int, out b int, out c text) language sql stable as $$ select a + 1, 'c' $$;
create function ret_both(a int) returns table (a_twice int, a_thrice int) language sql stable as 'select a * 2, a * 3';
create function ret_text() returns text language sql stable as $$ select 'a "text"' $$;
create function ret_time() returns timestamptz language sql stable as $$ select '2026-01-02 03:04:05+00'::timestamptz $$;
create function ret_bool() returns bool language sql stable as 'select true';
create function ret_bytea() returns bytea language sql stable as $$ select '\x0102'::bytea $$;
create function ret_numeric() returns numeric language sql stable as 'select 12345678901234567890.123450';
create function ret_array() returns text[] language sql stable as $$ select array['a', null, 'c'] $$;
create function ret_jsonb() returns jsonb language sql stable as $$ select '{"b": 1, "a": [1, 2]}'::jsonb $$;
create function ret_json_null() returns json language sql stable as 'select null::json';
create function ret_addr() returns addr language sql stable as $$ select row('S', 1)::addr $$;
create function set_of_text(n int) returns setof text language sql stable as $$
  select 't' || i from generate_series(1, n) as i
$$;
create function set_of_json() returns setof json language sql stable as $$ values ('{"a":1}'::json), ('{"a":2}'::json) $$;
create function set_of_jobs(n int) returns setof payment_jobs language sql stable as $$
  select * from payment_jobs order by priority desc limit n
$$;

create function takes_list(variadic v text[]) returns text language sql stable as $$ select array_to_string(v, '-') $$;
create function takes_rest(a int, variadic v int[] default '{9}') returns int[] language sql stable as 'select a || v';
create function takes_array(a int[]) returns int[] language sql stable as 'select a';
create function takes_json(a json) returns json language sql stable as 'select a';
create function takes_jsonb(a jsonb) returns jsonb language sql stable as 'select a';
create function takes_text(a text) returns text language sql stable as 'select a';
create function takes_numeric(a numeric) returns numeric language sql stable as 'select a';
create function takes_float(a float8) returns float8 language sql stable as 'select a';
create function takes_bool(a bool) returns bool language sql stable as 'select a';
create function takes_time(a timestamptz) returns timestamptz language sql stable as 'select a';
create function takes_mood(a mood) returns mood language sql stable as 'select a';
create function takes_addr(a addr) returns text language sql stable as 'select a.street || a.zip';
create function takes_defaults(a int default 1, b text default 'x') returns text language sql stable as 'select a || b';
create function "Odd Name"("arg One" int) returns int language sql stable as 'select $1';
create function whole_text(text) returns text language sql stable as 'select upper($1)';
create function whole_bytea(bytea) returns int language sql stable as 'select length($1)';
create function whole_jsonb(jsonb) returns jsonb language sql stable as 'select $1';
create function named_or_whole(a int) returns text language sql stable as $$ select 'named' $$;
create function named_or_whole(json) returns text language sql stable as $$ select 'whole' $$;
create function two_unnamed(int, text) returns text language sql stable as $$ select 'no' $$;
create function one_unnamed(int) returns text language sql stable as $$ select 'no' $$;

create function cookies() returns json language sql stable as $$ select current_setting('request.cookies')::json $$;
create function about() returns json language sql stable as $$
  select json_build_object(
    'method', current_setting('request.method'), 'path', current_setting('request.path'),
    'claims', current_setting('request.jwt.claims')::jsonb - 'exp' - 'iat', 'role', current_user,
    'said', current_setting('request.headers')::json ->> 'x-said',
    'read_only', current_setting('transaction_read_only'), 'isolation', current_setting('transaction_isolation'),
    'search_path', current_setting('search_path'), 'timeout', current_setting('statement_timeout')
  )
$$;
create function own_timeout() returns text language sql stable set statement_timeout = '1234ms' as $$
  select current_setting('statement_timeout')
$$;
create function own_isolation() returns text language sql set default_transaction_isolation = 'serializable' as $$
  select current_setting('transaction_isolation')
$$;
create function volatile_read() returns int language sql as 'select 1';
create function stable_write() returns int language plpgsql stable as $$
begin
  insert into nopk values (1);
  return 1;
end $$;
create function says_status(s text) returns int language sql as $$
  select set_config('response.status', s, true);
  select 1
$$;
create function says_headers(h text) returns int language sql as $$
  select set_config('response.headers', h, true);
  select 1
$$;
create function raise_as_told(message text, detail text) returns void language plpgsql as $$
begin
  raise sqlstate 'PGRST' using message = message, detail = detail;
end $$;
create function raise_code(code text, message text default 'm') returns void language plpgsql as $$
begin
  raise exception '%', message using errcode = code;
end $$;
create procedure no_function() language sql as 'select 1';
