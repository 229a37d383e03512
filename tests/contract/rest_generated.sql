-- Two tables and a few functions for generated requests; `fresh()` puts every row back.
-- No autovacuum: what it learns of one of the two copies, while it has not yet seen the other, changes planned counts.

create type colour as enum ('red', 'green', 'blue');
create table things (
  id int primary key, name text not null default 'new', colour colour, amount numeric, seen_at timestamptz, tags text[],
  data jsonb, is_good bool, unique (name)
) with (autovacuum_enabled = off);
create table notes (id int primary key, thing_id int references things on delete cascade, body text, rank int default 0)
  with (autovacuum_enabled = off);
create view good_things as select id, name, is_good from things where is_good;
create schema other;
create table other.things (id int primary key, label text);
insert into other.things values (1, 'elsewhere');

create function fresh() returns void language sql as $$
  truncate things, notes;
  insert into things values
    (1, 'one', 'red', 1.50, '2026-01-01T00:00:00Z', '{a,b}', '{"x": 1, "y": {"z": [1, 2]}}', true),
    (2, 'two', 'green', 20, '2026-02-03T04:05:06Z', '{}', '{"x": "two"}', false),
    (3, 'three, "3"', null, null, null, null, null, null),
    (4, 'per%cent*', 'blue', -4, '2025-12-31T23:59:59Z', '{b,"c,d"}', '[1, {"x": 2}]', true);
  insert into notes values (1, 1, 'first', 1), (2, 1, 'second', 2), (3, 2, 'third', 1), (4, null, null, 0);
$$;
create function add(a int, b int default 10) returns int language sql immutable as 'select a + b';
create function things_of(colour colour) returns setof things language sql stable as $$
  select * from things where things.colour = things_of.colour order by id
$$;
create function pairs(n int) returns table (x int, y text) language sql stable as $$
  select i, 't' || i from generate_series(1, n) as i
$$;
create function echo(json) returns json language sql stable as 'select $1';
create function words(variadic w text[]) returns text[] language sql stable as 'select w';
create function nothing() returns void language sql as 'select 1';
create function paint(thing int, colour colour) returns things language sql as $$
  update things set colour = paint.colour where id = thing returning *
$$;
select fresh();
grant usage on schema other to anon, service_role;
grant all on all tables in schema public, other to service_role;
grant select on things to anon;
