-- What a payload has to be like: the JSON Schema that handlers are published with, read as their own judge reads it.
--
-- A schema of ours says: type (one, or one and "null"), format, enum of texts, minLength, maxLength, pattern, minimum,
-- maximum and their exclusive kinds, items, prefixItems, minItems, maxItems, properties, required, a second spelling
-- per property ("x-spellings": {"order_id": "orderId"}), additionalProperties, anyOf, and $ref to $defs. Any other
-- word is not looked at, and what is doubtful fits: a worker judges again.

-- Says in what a value does not fit a schema, "data.order_id must be a UUID", or null when it does, and how many steps
-- are left of those it may take.
-- Callers: check_payloads. Quotes no value: a key that is no plain word may be one.
-- defs has the $defs. depth counts the anyOf within anyOf; the deepest are left to the worker, and so is what lies
-- behind the last step, so that no payload and no schema makes an INSERT slow. A step is one look at one part by one
-- rule, some ten microseconds; a look at something large is more, and where too few are left for it, it is not taken.
create function public.payload_problem(
    schema jsonb, value jsonb, path text default 'data', defs jsonb default null, depth integer default 0,
    inout steps integer default 10000, out problem text
)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    -- What waits to be looked at, and how much of it has been.
    schemas jsonb[] := array[payload_problem.schema];
    parts jsonb[] := array[payload_problem.value];
    paths text[] := array[payload_problem.path];
    waiting integer := 1;
    known integer;
    looked integer := 0;
    cost integer;
    rule jsonb;
    part jsonb;
    place text;
    kind text;
    is_kind text;
    spellings jsonb;
    others jsonb;
    problems text[];
    said record;
    one record;
begin
    defs := coalesce(defs, payload_problem.schema -> '$defs', '{}');
    while looked < waiting and steps > 0 loop
        looked := looked + 1;
        rule := schemas[looked];
        part := parts[looked];
        place := paths[looked];
        if rule ? '$ref' then
            rule := defs -> substr(rule ->> '$ref', 9);
        end if;
        continue when rule is null;
        is_kind := jsonb_typeof(part);
        cost := 1 + pg_column_size(rule) / 1000 + pg_column_size(part)
            / case when is_kind <> 'string' then 10000 when rule ? 'pattern' then 10 else 1000 end;
        if cost > steps then
            steps := steps - 1;
            continue;
        end if;
        steps := steps - cost;

        if rule ? 'anyOf' then
            continue when payload_problem.depth > 3;
            problems := '{}';
            for one in select c.choice from jsonb_array_elements(rule -> 'anyOf') as c (choice) loop
                said := public.payload_problem(one.choice, part, place, defs, payload_problem.depth + 1, steps);
                steps := said.steps;
                exit when said.problem is null;
                problems := problems || said.problem;
            end loop;
            if said.problem is not null then
                -- The choices of another kind are not what was meant, if one is of this kind.
                problem := (
                    select string_agg(distinct told.word, ', or ')
                    from unnest(problems) as told (word)
                    where
                        not starts_with(told.word, place || ' must be ')
                        or not exists (
                            select from unnest(problems) as nearer (word)
                            where not starts_with(nearer.word, place || ' must be ')
                        )
                );
                return;
            end if;
            continue;
        end if;

        kind := case jsonb_typeof(rule -> 'type') when 'array' then rule -> 'type' ->> 0 else rule ->> 'type' end;
        continue when kind is null;
        if is_kind = 'null' then
            continue when kind = 'null' or jsonb_typeof(rule -> 'type') = 'array';
            problem := place || ' must be ' || public.payload_kind(kind, rule ->> 'format') || ', not null';
            return;
        end if;

        if kind = 'object' then
            if is_kind <> 'object' then
                problem := place || ' must be an object';
                return;
            end if;
            spellings := rule -> 'x-spellings';
            known := waiting;
            for one in
                select p.key, p.value, coalesce(part -> (spellings ->> p.key), part -> p.key) as given
                from jsonb_each(rule -> 'properties') as p
                where
                    coalesce(part -> (spellings ->> p.key), part -> p.key) is not null
                    or rule -> 'required' ? p.key
            loop
                if one.given is null then
                    problem := place || '.' || one.key || ' is missing';
                    return;
                end if;
                waiting := waiting + 1;
                schemas[waiting] := one.value;
                parts[waiting] := one.given;
                paths[waiting] := place || '.' || one.key;
            end loop;
            others := rule -> 'additionalProperties';
            if others is not null and (select count(*) > waiting - known from jsonb_object_keys(part)) then
                for one in
                    select k.key, k.value, case when k.key ~ '^[A-Za-z_]{1,30}$' then k.key else '‹key›' end as plain
                    from jsonb_each(part) as k
                    where
                        not coalesce(rule -> 'properties' ? k.key, false)
                        and not exists (select from jsonb_each_text(spellings) as s where s.value = k.key)
                    limit steps
                loop
                    if others = 'false' then
                        problem := place || '.' || one.plain || ' is unknown';
                        return;
                    end if;
                    waiting := waiting + 1;
                    schemas[waiting] := others;
                    parts[waiting] := one.value;
                    paths[waiting] := place || '.' || one.plain;
                end loop;
            end if;
        elsif kind = 'array' then
            if is_kind <> 'array' then
                problem := place || ' must be a list';
                return;
            end if;
            if jsonb_array_length(part) < (rule ->> 'minItems')::integer then
                problem := place || ' must have at least ' || (rule ->> 'minItems') || ' elements';
                return;
            elsif jsonb_array_length(part) > (rule ->> 'maxItems')::integer then
                problem := place || ' must have at most ' || (rule ->> 'maxItems') || ' elements';
                return;
            end if;
            if rule ? 'items' or rule ? 'prefixItems' then
                for one in
                    select e.element, e.n - 1 as n
                    from jsonb_array_elements(part) with ordinality as e (element, n)
                    where e.n <= steps
                loop
                    waiting := waiting + 1;
                    schemas[waiting] := coalesce(rule -> 'prefixItems' -> one.n::integer, rule -> 'items', '{}');
                    parts[waiting] := one.element;
                    paths[waiting] := place || '[' || one.n || ']';
                end loop;
            end if;
        -- The usual kinds of text without a call.
        elsif kind = 'string' and is_kind = 'string' and not rule ?| array['format', 'enum', 'pattern'] then
            if length(part #>> '{}') < (rule ->> 'minLength')::integer
                or length(part #>> '{}') > (rule ->> 'maxLength')::integer then
                problem := place || ' ' || public.leaf_problem(rule, kind, is_kind, part #>> '{}');
                return;
            end if;
        elsif rule ->> 'format' = 'uuid' and is_kind = 'string' and length(part #>> '{}') = 36
            and part #>> '{}' ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' then
            null;
        else
            problem := place || ' ' || public.leaf_problem(rule, kind, is_kind, part #>> '{}');
            if problem is not null then
                return;
            end if;
        end if;
    end loop;
end
$$;


-- Says in what a value that is neither an object nor a list does not fit its rule, or null when it does.
-- Callers: payload_problem. is_kind and word are the value's own kind, and the value as text.
create function public.leaf_problem(rule jsonb, kind text, is_kind text, word text) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    format constant text := leaf_problem.rule ->> 'format';
begin
    if leaf_problem.is_kind in ('object', 'array') then
        return case
            when format is distinct from 'decimal' or leaf_problem.is_kind = 'object'
                then 'must be ' || public.payload_kind(leaf_problem.kind, format)
        end;
    end if;

    if leaf_problem.kind = 'boolean' then
        return case leaf_problem.is_kind
            when 'string'
                then case
                    when lower(btrim(leaf_problem.word)) not in (
                        'true', 'false', 't', 'f', 'yes', 'no', 'y', 'n', 'on', 'off', '0', '1'
                    ) then 'must be true or false'
                end
            when 'number' then case when leaf_problem.word::numeric not in (0, 1) then 'must be true or false' end
        end;
    end if;

    if leaf_problem.kind in ('integer', 'number') or format in ('decimal', 'date-time', 'date', 'time', 'duration') then
        if leaf_problem.is_kind = 'string' then
            -- Text without a digit is neither a number nor a moment; letters of others than ASCII may be digits.
            if leaf_problem.word ~ '^[\x01-\x2f\x3a-\x7f]*$' and leaf_problem.word !~* 'nan|inf' then
                return 'must be ' || public.payload_kind(leaf_problem.kind, format);
            end if;
            if leaf_problem.word !~ '^[+-]?[0-9]{1,100}(\.[0-9]{1,100})?$' then
                return null;
            end if;
        elsif leaf_problem.is_kind <> 'number' then
            return null;
        elsif leaf_problem.kind = 'integer' and leaf_problem.word::numeric <> trunc(leaf_problem.word::numeric) then
            return 'must be ' || public.payload_kind(leaf_problem.kind, format);
        end if;
        return public.bound_problem(leaf_problem.rule, leaf_problem.kind = 'number', leaf_problem.word::numeric);
    end if;

    if leaf_problem.kind <> 'string' then
        return case when leaf_problem.kind = 'null' then 'must be null' end;
    end if;
    if leaf_problem.is_kind <> 'string' then
        return 'must be ' || public.payload_kind(leaf_problem.kind, format);
    end if;
    if format = 'uuid' then
        return case
            when length(leaf_problem.word) > 100
                or regexp_replace(leaf_problem.word, '^urn:uuid:|[{}-]', '', 'gi') !~* '^[0-9a-f]{32}$' then 'must be a UUID'
        end;
    end if;
    if not (leaf_problem.rule -> 'enum' ? leaf_problem.word) then
        return 'must be one of ' || (
            select string_agg(e.word, ', ' order by e.n)
            from jsonb_array_elements_text(leaf_problem.rule -> 'enum') with ordinality as e (word, n)
            where e.n <= 20
        );
    end if;
    return case
        when length(leaf_problem.word) < (leaf_problem.rule ->> 'minLength')::integer
            then 'must have at least ' || (leaf_problem.rule ->> 'minLength') || ' characters'
        when length(leaf_problem.word) > (leaf_problem.rule ->> 'maxLength')::integer
            then 'must have at most ' || (leaf_problem.rule ->> 'maxLength') || ' characters'
        when leaf_problem.word !~ (leaf_problem.rule ->> 'pattern')
            then 'must match ' || (leaf_problem.rule ->> 'pattern')
    end;
end
$$;


-- Says which bound of its rule a number is beyond, or null. One that the worker rounds is compared rounded.
-- Callers: leaf_problem.
create function public.bound_problem(rule jsonb, is_rounded boolean, number numeric) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    bound numeric;
    told record;
begin
    -- Where a double ends, what it becomes is the worker's to say.
    if bound_problem.is_rounded
        and bound_problem.number <> 0
        and abs(bound_problem.number) not between 1e-300 and 1e300 then
        return null;
    end if;
    for told in
        select b.name, b.said
        from (
            values
            ('minimum', 'at least'), ('maximum', 'at most'),
            ('exclusiveMinimum', 'more than'), ('exclusiveMaximum', 'less than')
        ) as b (name, said)
        where bound_problem.rule ? b.name
    loop
        bound := bound_problem.rule ->> told.name;
        if (case
            when bound_problem.is_rounded and told.name = 'minimum' then number::float8 < bound::float8
            when bound_problem.is_rounded and told.name = 'maximum' then number::float8 > bound::float8
            when bound_problem.is_rounded and told.name = 'exclusiveMinimum' then number::float8 <= bound::float8
            when bound_problem.is_rounded then number::float8 >= bound::float8
            when told.name = 'minimum' then number < bound
            when told.name = 'maximum' then number > bound
            when told.name = 'exclusiveMinimum' then number <= bound
            else number >= bound
        end) then
            return 'must be ' || told.said || ' ' || bound;
        end if;
    end loop;
    return null;
end
$$;


-- Says what a kind of value is called in a sentence.
-- Callers: payload_problem, leaf_problem.
create function public.payload_kind(kind text, format text) returns text
language sql immutable parallel safe
return case
    when format = 'uuid' then 'a UUID'
    when format = 'decimal' then 'a number, as text'
    when format = 'date-time' then 'a date and time'
    when format = 'date' then 'a date'
    when format = 'time' then 'a time of day'
    when format = 'duration' then 'a duration'
    when kind = 'string' then 'text'
    when kind = 'integer' then 'a whole number'
    when kind = 'number' then 'a number'
    when kind = 'boolean' then 'true or false'
    when kind = 'array' then 'a list'
    when kind = 'object' then 'an object'
    else kind
end;


revoke all on function
public.payload_problem(jsonb, jsonb, text, jsonb, integer, integer),
public.leaf_problem(jsonb, text, text, text),
public.bound_problem(jsonb, boolean, numeric),
public.payload_kind(text, text)
from public, anon, authenticated, service_role, pulse_worker;
