// What users do with the official client, the same in Node and in a browser: each story throws when it goes otherwise.
// `project` is { url, key, secret, prefix, vsn, groups }; without `secret`, as in a browser, the admin's story is left out.

const PASSWORD = "correct horse";
const PATIENCE = 15_000; // milliseconds that a promised message may take

const plain = (value) => JSON.stringify(value, (_, part) =>
  part && typeof part === "object" && !Array.isArray(part) ? Object.fromEntries(Object.entries(part).sort()) : part);

function same(seen, wanted, what = "seen") {
  if (plain(seen) !== plain(wanted)) throw new Error(`${what}: ${plain(seen)} instead of ${plain(wanted)}`);
}

/** The data of an answer that has to be good. */
function good({ data, error }) {
  if (error) throw new Error(`${error.code ?? ""} ${error.message}`);
  return data;
}

/** Waits for a promise, with a sentence when it takes too long. */
function soon(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A list that fills from outside, and a way to wait until it holds something. */
function mailbox() {
  const items = [];
  const waiting = [];
  return {
    items,
    put(item) {
      items.push(item);
      for (const look of waiting.splice(0)) look();
    },
    async holds(what, test) {
      const found = async () => {
        while (!items.some(test)) await new Promise((again) => waiting.push(again));
      };
      await soon(what, found());
      return items.find(test);
    },
  };
}

/** Subscribes and returns when the server has said so; for postgres_changes also that it listens to the database. */
async function subscribed(channel, { changes = false } = {}) {
  const told = mailbox();
  if (changes) channel.on("system", {}, (message) => told.put(message.message));
  channel.subscribe((status, error) => told.put(error ? `${status}: ${error.message}` : status));
  await told.holds("SUBSCRIBED", (word) => word === "SUBSCRIBED");
  if (changes) await told.holds("Subscribed to PostgreSQL", (word) => word === "Subscribed to PostgreSQL");
}

const rest = {
  async "insert and select"({ authors }) {
    same(good(await authors().insert({ id: 1, name: "Ada", born: "1815-12-10", tags: ["x", "y"], about: { a: [1] } })), null);
    const rows = good(await authors().insert([{ id: 2, name: "Bob" }, { id: 3, name: "Eve" }]).select("id, name"));
    same(rows, [{ id: 2, name: "Bob" }, { id: 3, name: "Eve" }]);
    same(good(await authors().select().eq("id", 1)), [
      { id: 1, name: "Ada", born: "1815-12-10", tags: ["x", "y"], about: { a: [1] } },
    ]);
    same(good(await authors().select("called:name, first:about->a->0").eq("id", 1)), [{ called: "Ada", first: 1 }]);
  },

  async "filter, order, range and count"({ authors }) {
    const ids = async (query) => good(await query).map((row) => row.id);
    same(await ids(authors().select("id").gt("id", 1).order("id", { ascending: false })), [3, 2]);
    same(await ids(authors().select("id").in("name", ["Ada", "Eve"]).order("id")), [1, 3]);
    same(await ids(authors().select("id").ilike("name", "%B%")), [2]);
    same(await ids(authors().select("id").is("born", null).order("id")), [2, 3]);
    same(await ids(authors().select("id").or("id.eq.1,name.eq.Eve").order("id")), [1, 3]);
    same(await ids(authors().select("id").not("id", "eq", 2).neq("id", 3)), [1]);
    const page = await authors().select("id", { count: "exact" }).order("id").range(1, 1);
    same([good(page), page.count], [[{ id: 2 }], 3]);
    const head = await authors().select("*", { count: "exact", head: true });
    same([head.data, head.count], [null, 3]);
    same(await ids(authors().select("id").order("id").limit(2)), [1, 2]);
  },

  async "single and maybeSingle"({ authors }) {
    same(good(await authors().select("name").eq("id", 2).single()), { name: "Bob" });
    same(good(await authors().select("name").eq("id", 9).maybeSingle()), null);
    const none = await authors().select("name").eq("id", 9).single();
    same([none.status, none.error.code], [406, "PGRST116"]);
  },

  async "update, upsert and delete"({ authors }) {
    same(good(await authors().update({ tags: ["z"] }).eq("id", 2).select("tags").single()), { tags: ["z"] });
    const merged = await authors().upsert([{ id: 3, name: "Eva" }, { id: 4, name: "Joe" }]).select("id, name").order("id");
    same(good(merged), [{ id: 3, name: "Eva" }, { id: 4, name: "Joe" }]);
    const kept = await authors()
      .upsert({ id: 9, name: "Eva" }, { onConflict: "name", ignoreDuplicates: true }).select("id");
    same(good(kept), []);
    same(good(await authors().delete().eq("id", 4).select("name")), [{ name: "Joe" }]);
    same((await authors().delete().eq("id", 4)).status, 204);
  },

  async "rpc"({ db, prefix }) {
    same(good(await db.rpc(`${prefix}_add`, { a: 2, b: 3 })), 5);
    same(good(await db.rpc(`${prefix}_add`, { a: 2, b: 3 }, { get: true })), 5);
    same(good(await db.rpc(`${prefix}_named`, { tag: "z" }).select("name").eq("id", 2)), [{ name: "Bob" }]);
    same(good(await db.rpc(`${prefix}_me`)), null);
  },

  async "errors"({ db, authors, prefix }) {
    const told = async (query) => {
      const { error, status } = await query;
      return [status, error.code];
    };
    same(await told(authors().insert({ id: 1, name: "Zoe" })), [409, "23505"]);
    same(await told(authors().insert({ id: 8, name: "" })), [400, "23514"]);
    same(await told(authors().select("nope")), [400, "42703"]);
    same(await told(db.from(`${prefix}_nope`).select()), [404, "PGRST205"]);
    same(await told(db.rpc(`${prefix}_nope`)), [404, "PGRST202"]);
    same(await told(db.from(`${prefix}_notes`).select()), [401, "42501"]);
    const refused = (await db.rpc(`${prefix}_refuse`)).error;
    same([refused.message, refused.details, refused.hint], ["not today", "tea", "coffee"]);
  },
};

const auth = {
  async "sign up, sign in, refresh, change, sign out"({ client, email }) {
    const person = client();
    const seen = mailbox();
    const { data: { subscription } } = person.auth.onAuthStateChange((event) => seen.put(event));
    const up = good(await person.auth.signUp({ email: email("ann"), password: PASSWORD, options: { data: { n: 1 } } }));
    same([up.user.email, up.user.user_metadata.n, up.session.token_type], [email("ann"), 1, "bearer"]);
    const again = await client().auth.signUp({ email: email("ann"), password: PASSWORD });
    same([again.error.code, again.error.status], ["user_already_exists", 422]);
    const weak = await client().auth.signUp({ email: email("weak"), password: "abc" });
    same([weak.error.name, weak.error.reasons], ["AuthWeakPasswordError", ["length"]]);
    const wrong = await client().auth.signInWithPassword({ email: email("ann"), password: "wrong" });
    same([wrong.error.code, wrong.error.status], ["invalid_credentials", 400]);

    const first = good(await person.auth.signInWithPassword({ email: email("ann"), password: PASSWORD })).session;
    const second = good(await person.auth.refreshSession()).session;
    same(first.refresh_token === second.refresh_token, false);
    same(good(await person.auth.getUser()).user.id, up.user.id);
    same(good(await person.auth.getClaims()).claims.sub, up.user.id);
    const changed = good(await person.auth.updateUser({ data: { n: null, m: 2 }, password: "another one" })).user;
    same([changed.user_metadata.n ?? null, changed.user_metadata.m], [null, 2]);
    same((await person.auth.signOut()).error, null);
    same(good(await person.auth.getSession()).session, null);
    const dead = await client().auth.refreshSession({ refresh_token: second.refresh_token });
    same(dead.error.code, "refresh_token_not_found");
    await seen.holds("SIGNED_OUT", (event) => event === "SIGNED_OUT");
    subscription.unsubscribe();
    for (const event of ["SIGNED_IN", "TOKEN_REFRESHED", "USER_UPDATED"]) {
      same(seen.items.includes(event), true, event);
    }
  },

  async "row level security as a person"({ client, email, notes, prefix }) {
    const bob = client();
    const id = good(await bob.auth.signUp({ email: email("bob"), password: PASSWORD })).user.id;
    same(good(await bob.rpc(`${prefix}_me`)), id);
    same(good(await notes(bob).insert({ body: "mine" }).select("owner").single()), { owner: id });
    const other = client();
    good(await other.auth.signUp({ email: email("eve"), password: PASSWORD }));
    same(good(await notes(other).select()), []);
    const forged = await notes(other).insert({ body: "not mine", owner: id });
    same([forged.status, forged.error.code], [403, "42501"]);
    same(good(await notes(bob).select("body")), [{ body: "mine" }]);
  },

  async "the admin makes, finds and deletes people"({ client, email, project }) {
    if (!project.secret) return;
    const { admin } = client(project.secret).auth;
    const words = { email: email("joe"), password: PASSWORD, email_confirm: true, user_metadata: { n: 1 } };
    const { user } = good(await admin.createUser(words));
    same((await admin.createUser(words)).error.code, "email_exists");
    same(good(await admin.getUserById(user.id)).user.user_metadata.n, 1);
    const listed = good(await admin.listUsers({ page: 1, perPage: 1 }));
    same([listed.users.length, listed.aud, listed.total > 0], [1, "authenticated", true]);
    same(good(await admin.updateUserById(user.id, { app_metadata: { plan: "gold" } })).user.app_metadata.plan, "gold");
    good(await client().auth.signInWithPassword({ email: email("joe"), password: PASSWORD }));
    good(await admin.deleteUser(user.id));
    same((await admin.getUserById(user.id)).error.code, "user_not_found");
    const refused = await client().auth.admin.listUsers();
    same(refused.error.status, 403);
  },
};

const realtime = {
  async "changes of a table"({ db, authors, prefix }) {
    const heard = mailbox();
    const channel = db.channel(`${prefix} authors`);
    const named = { schema: "public", table: `${prefix}_authors` };
    channel.on("postgres_changes", { event: "*", ...named }, (change) => heard.put(change));
    channel.on("postgres_changes", { event: "INSERT", ...named, filter: "id=eq.22" }, (change) => heard.put({ only: change.new.id }));
    await subscribed(channel, { changes: true });
    const rows = [{ id: 21, name: "Kim", tags: ["a"], about: { n: 1.5 } }, { id: 22, name: "Lou" }];
    // One after the other: a row that is gone when Realtime looks at its policies is heard of by nobody.
    good(await authors().insert(rows, { defaultToNull: false }));
    await heard.holds("the filtered INSERT", (change) => change.only === 22);
    good(await authors().update({ name: "Lee" }).eq("id", 22));
    await heard.holds("the UPDATE", (change) => change.eventType === "UPDATE");
    good(await authors().delete().eq("id", 21));
    await heard.holds("the DELETE", (change) => change.eventType === "DELETE");
    const changes = heard.items.filter((change) => change.eventType);
    same(changes.map((change) => change.eventType), ["INSERT", "INSERT", "UPDATE", "DELETE"]);
    same(changes[0].new, { id: 21, name: "Kim", born: null, tags: ["a"], about: { n: 1.5 } });
    same([changes[2].new.name, changes[2].old, changes[3].old], ["Lee", { id: 22 }, { id: 21 }]);
    same(heard.items.filter((change) => change.only).length, 1);
    same(await db.removeChannel(channel), "ok");
    same(db.getChannels(), []);
  },

  async "changes of one's own rows"({ client, email, notes, prefix }) {
    const [una, max] = [client(), client()];
    good(await una.auth.signUp({ email: email("una"), password: PASSWORD }));
    good(await max.auth.signUp({ email: email("max"), password: PASSWORD }));
    const heard = mailbox();
    const channel = una.channel(`${prefix} notes`);
    const named = { event: "INSERT", schema: "public", table: `${prefix}_notes` };
    channel.on("postgres_changes", named, (change) => heard.put(change.new.body));
    await subscribed(channel, { changes: true });
    good(await notes(max).insert({ body: "hers" }));
    good(await notes(una).insert({ body: "mine" }));
    await heard.holds("her own row", (body) => body === "mine");
    same(heard.items, ["mine"]);
    same(await una.removeAllChannels(), ["ok"]);
  },
};

const GROUPS = { rest, auth, realtime };

/** Tells the stories of `project.groups` and answers what went wrong: { story: null or a sentence }. */
export async function stories(createClient, project) {
  const clients = [];
  const client = (key = project.key) => {
    const made = createClient(project.url, key, {
      auth: { persistSession: false, autoRefreshToken: false, storageKey: `story ${clients.length}` },
      realtime: { vsn: project.vsn },
    });
    clients.push(made);
    return made;
  };
  const { prefix } = project;
  const db = client();
  const told = {};
  const tools = {
    project, client, db, prefix,
    authors: () => db.from(`${prefix}_authors`),
    notes: (who) => who.from(`${prefix}_notes`),
    email: (name) => `${prefix}.${name}@example.com`,
  };
  for (const [name, story] of project.groups.flatMap((group) => Object.entries(GROUPS[group]))) {
    try {
      await soon("the end of the story", story(tools));
      told[name] = null;
    } catch (error) {
      told[name] = error.stack ?? String(error);
    }
  }
  for (const each of clients) await each.realtime.disconnect();
  return told;
}
