-- The one clock of the queue.
--
-- Everything that asks for the time asks here, so that a test moves time by replacing this function
-- instead of sleeping. It is the start of the transaction: all rows that one call touches agree.
-- No `set search_path` on this one: it names all it uses in full, and a function with settings cannot
-- be inlined into the statements that call it.

create function public.clock_now() returns timestamptz
language sql stable parallel safe
return pg_catalog.now();
