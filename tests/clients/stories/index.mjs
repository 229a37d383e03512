// What users do with the official client, the same in Node and in a browser: each story throws when it goes otherwise.
// `project` is { url, key, secret, prefix, vsn, groups }; without `secret`, as in a browser, the admin's story is left out.
import { auth } from "./auth.mjs";
import { changes } from "./changes.mjs";
import { channels } from "./channels.mjs";
import { rest } from "./rest.mjs";
import { soon } from "./tools.mjs";

const GROUPS = { rest, auth, realtime: { ...changes, ...channels } };

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
