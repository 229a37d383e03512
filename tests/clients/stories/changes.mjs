// Changes of tables over Realtime.
import { PASSWORD, good, mailbox, same, subscribed } from "./tools.mjs";

export const changes = {
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
