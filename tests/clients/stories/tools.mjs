// What the stories share: asserting, waiting for a promised message, and collecting what is heard.

export const PASSWORD = "correct horse";
const PATIENCE = 15_000; // milliseconds that a promised message may take

const plain = (value) => JSON.stringify(value, (_, part) =>
  part && typeof part === "object" && !Array.isArray(part) ? Object.fromEntries(Object.entries(part).sort()) : part);

export function same(seen, wanted, what = "seen") {
  if (plain(seen) !== plain(wanted)) throw new Error(`${what}: ${plain(seen)} instead of ${plain(wanted)}`);
}

/** The data of an answer that has to be good. */
export function good({ data, error }) {
  if (error) throw new Error(`${error.code ?? ""} ${error.message}`);
  return data;
}

/** Waits for a promise, with a sentence when it takes too long. */
export function soon(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A list that fills from outside, and a way to wait until it holds something. */
export function mailbox() {
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
export async function subscribed(channel, { changes = false } = {}) {
  const told = mailbox();
  if (changes) channel.on("system", {}, (message) => told.put(message.message));
  channel.subscribe((status, error) => told.put(error ? `${status}: ${error.message}` : status));
  await told.holds("SUBSCRIBED", (word) => word === "SUBSCRIBED");
  if (changes) await told.holds("Subscribed to PostgreSQL", (word) => word === "Subscribed to PostgreSQL");
}
