// Uses the REST side as a page or a server in JavaScript would; prints what the client got, as one JSON object.
import { createRequire } from "node:module";

const [modules, url, key] = process.argv.slice(2);
const { createClient } = createRequire(`${modules}/`)("@supabase/supabase-js");
const db = createClient(url, key, { auth: { persistSession: false } });
const jobs = () => db.from("payment_jobs");
const seen = {};
const keep = (name, { data, error, count, status }) => {
  seen[name] = { data, code: error?.code ?? null, count, status };
};

keep("insert", await jobs().insert({ job_type: "a", dedup_key: "k" }).select("job_type").single());
keep("bulk", await jobs().insert([{ job_type: "b" }, { job_type: "c", priority: 2 }], { defaultToNull: false }));
keep("again", await jobs().insert({ job_type: "a", dedup_key: "k" }));
keep("select", await jobs().select("job_type", { count: "exact" }).in("job_type", ["a", "b"]).order("job_type").range(0, 0));
keep("head", await jobs().select("*", { count: "exact", head: true }));
keep("or", await jobs().select("job_type").or("priority.eq.2,job_type.eq.b").order("job_type"));
keep("upsert", await jobs().upsert({ job_type: "z", dedup_key: "k" }, { onConflict: "dedup_key" }).select("job_type"));
keep("update", await jobs().update({ status: "done" }).eq("job_type", "c").select("status"));
keep("delete", await jobs().delete().eq("job_type", "c"));
keep("none", await jobs().select("*").eq("job_type", "none").maybeSingle());
keep("single", await jobs().select("*").eq("job_type", "none").single());
keep("rpc", await db.rpc("add", { a: 1, b: 2 }));
keep("rpcGet", await db.rpc("add", { a: 1, b: 2 }, { get: true }));
keep("rpcRows", await db.rpc("ret_table", { n: 3 }).gt("x", 1).order("x", { ascending: false }).limit(1));
keep("rpcVoid", await db.rpc("ret_void"));
keep("rpcError", await db.rpc("raise_custom"));
keep("rpcNone", await db.rpc("nope"));
keep("embed", await jobs().select("id, broker_jobs(id)"));
console.log(JSON.stringify(seen));
