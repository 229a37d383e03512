// Tables and functions over REST.
import { good, same } from "./tools.mjs";

export const rest = {
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
    same(await ids(authors().select("id").contains("tags", ["y"])), [1]);
    same(await ids(authors().select("id").overlaps("tags", ["x", "q"])), [1]);
    same(await ids(authors().select("id").contains("about", { a: [1] })), [1]);
    same(await ids(authors().select("id").eq("about->a->>0", "1")), [1]);
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

  async "embed what belongs together"({ db, authors, prefix }) {
    const books = () => db.from(`${prefix}_books`);
    good(await books().insert([{ id: 1, title: "Notes", author: 1 }, { id: 2, title: "Sketch", author: 1 }, { id: 3, title: "Anon" }], { defaultToNull: false }));
    same(good(await books().select(`title, by:${prefix}_authors(name)`).order("id")), [
      { title: "Notes", by: { name: "Ada" } }, { title: "Sketch", by: { name: "Ada" } }, { title: "Anon", by: null },
    ]);
    same(good(await books().select(`title, ${prefix}_authors!inner(name)`).eq(`${prefix}_authors.name`, "Ada").order("id", { ascending: false }).limit(1)), [
      { title: "Sketch", [`${prefix}_authors`]: { name: "Ada" } },
    ]);
    const shelves = authors().select(`name, books:${prefix}_books(title)`).order("id").limit(2);
    same(good(await shelves.order("title", { referencedTable: "books", ascending: false })), [
      { name: "Ada", books: [{ title: "Sketch" }, { title: "Notes" }] }, { name: "Bob", books: [] },
    ]);
    same(good(await authors().select(`${prefix}_books(count)`).eq("id", 1).single()), { [`${prefix}_books`]: [{ count: 2 }] });
    const none = await authors().select(`${prefix}_notes(*)`);
    same([none.status, none.error.code], [400, "PGRST200"]);
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
