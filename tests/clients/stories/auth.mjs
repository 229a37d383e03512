// People: signing up and in, being oneself under row level security, and what the admin does with them.
import { PASSWORD, good, mailbox, same } from "./tools.mjs";

export const auth = {
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
