// Broadcast and presence over Realtime, public and private.
import { PASSWORD, good, mailbox, same, subscribed } from "./tools.mjs";

export const channels = {
  async "broadcast, with and without echo"({ client, prefix }) {
    const [una, max] = [client(), client()];
    const config = { broadcast: { self: true, ack: true } };
    const [hers, his] = [una.channel(`${prefix} room`, { config }), max.channel(`${prefix} room`)];
    const [atHers, atHis] = [mailbox(), mailbox()];
    hers.on("broadcast", { event: "word" }, ({ payload }) => atHers.put(payload.n));
    his.on("broadcast", { event: "*" }, ({ event, payload }) => atHis.put([event, payload.n]));
    await subscribed(hers);
    await subscribed(his);
    same(await hers.send({ type: "broadcast", event: "word", payload: { n: 1 } }), "ok");
    same(await his.send({ type: "broadcast", event: "word", payload: { n: 2 } }), "ok");
    same(await hers.send({ type: "broadcast", event: "other", payload: { n: 3 } }), "ok");
    await atHers.holds("his word", (n) => n === 2);
    await atHis.holds("her other word", ([event]) => event === "other");
    same([atHers.items, atHis.items], [[1, 2], [["word", 1], ["other", 3]]]);
    same(await max.removeChannel(his), "ok");
  },

  async "private channels by policies, and broadcast from the database"({ client, email, prefix }) {
    const una = client();
    const refused = mailbox();
    una.channel(`${prefix} private`, { config: { private: true } })
      .subscribe((status, error) => refused.put([status, error?.message ?? ""]));
    const [, why] = await refused.holds("a refusal", ([status]) => status === "CHANNEL_ERROR");
    same(why.includes("You do not have permissions to read from this Channel topic"), true, why);
    await una.removeAllChannels();

    good(await una.auth.signUp({ email: email("uma"), password: PASSWORD }));
    const heard = mailbox();
    const channel = una.channel(`${prefix} private`, { config: { private: true } });
    channel.on("broadcast", { event: "shout" }, ({ payload }) => heard.put(payload.body));
    await subscribed(channel);
    good(await una.rpc(`${prefix}_shout`, { topic: `${prefix} private`, body: "hello" }));
    await heard.holds("the shout", (body) => body === "hello");
  },

  async "presence"({ client, prefix }) {
    const [una, max] = [client(), client()];
    const room = (who, key) => who.channel(`${prefix} lobby`, { config: { presence: { key } } });
    const [hers, his] = [room(una, "una"), room(max, "max")];
    const seen = mailbox();
    hers.on("presence", { event: "sync" }, () => seen.put({ here: Object.keys(hers.presenceState()).sort().join() }));
    hers.on("presence", { event: "join" }, ({ key, newPresences }) => seen.put({ key, mood: newPresences[0].mood }));
    hers.on("presence", { event: "leave" }, ({ key }) => seen.put({ left: key }));
    his.on("presence", { event: "sync" }, () => {});
    await subscribed(hers);
    same(await hers.track({ mood: "good" }), "ok");
    await seen.holds("herself", ({ here }) => here === "una");
    await subscribed(his);
    same(await his.track({ mood: "fine" }), "ok");
    await seen.holds("both", ({ here }) => here === "max,una");
    same((await seen.holds("his mood", ({ key }) => key === "max")).mood, "fine");
    same(hers.presenceState().max[0].mood, "fine");
    same(await his.untrack(), "ok");
    await seen.holds("his leave", ({ left }) => left === "max");
    await seen.holds("herself alone again", ({ here }) => here === "una");
  },

  async "broadcast over HTTP, and bytes where the protocol has them"({ client, prefix, project }) {
    const [una, max] = [client(), client()];
    const heard = mailbox();
    const [hers, his] = [una, max].map((who) => who.channel(`${prefix} post`));
    hers.on("broadcast", { event: "*" }, ({ event, payload }) => heard.put([event, payload]));
    await subscribed(hers);
    same(await his.httpSend("letter", { n: 1 }), { success: true });
    same(await his.send({ type: "broadcast", event: "card", payload: { n: 2 } }), "ok"); // not subscribed: HTTP as well
    await heard.holds("the card", ([event]) => event === "card");
    same(heard.items, [["letter", { n: 1 }], ["card", { n: 2 }]]);
    if (project.vsn === "2.0.0") {
      const bytes = new Uint8Array([0, 255]).buffer;
      await his.httpSend("parcel", bytes);
      await subscribed(his);
      await his.send({ type: "broadcast", event: "box", payload: bytes });
      for (const wanted of ["parcel", "box"]) {
        const [, payload] = await heard.holds(wanted, ([event]) => event === wanted);
        same([...new Uint8Array(payload)], [0, 255]);
      }
    }
    const secret = max.channel(`${prefix} private`, { config: { private: true } });
    same(await secret.httpSend("letter", {}).catch((error) => error.message), "Unauthorized");
  },

  async "what was broadcast before is replayed to those who ask"({ client, email, prefix }) {
    const una = client();
    good(await una.auth.signUp({ email: email("ute"), password: PASSWORD }));
    const topic = `${prefix} replayed`;
    for (const body of ["one", "two", "three"]) good(await una.rpc(`${prefix}_shout`, { topic, body }));
    const heard = mailbox();
    const replay = { since: Date.now() - 600_000, limit: 2 };
    const channel = una.channel(topic, { config: { private: true, broadcast: { replay } } });
    channel.on("broadcast", { event: "shout" }, ({ payload, meta }) => heard.put([payload.body, meta.replayed ?? false]));
    await subscribed(channel);
    await heard.holds("the last before", ([body]) => body === "three");
    good(await una.rpc(`${prefix}_shout`, { topic, body: "four" }));
    await heard.holds("the first after", ([body]) => body === "four");
    same(heard.items, [["two", true], ["three", true], ["four", false]]);
  },
};
