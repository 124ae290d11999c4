import assert from "node:assert/strict";
import { test } from "node:test";
import { Identity } from "../../src/identity.js";
import { Store } from "../../src/storage.js";
import { Items } from "./browser.js";

test("a first visit writes its id once, to the cookie and to storage", () => {
  const kept = new Items();
  const cookies: string[] = [];
  const page = {
    location: { hostname: "localhost", protocol: "http:" },
    document: Object.defineProperty({}, "cookie", { get: () => "", set: (cookie: string) => void cookies.push(cookie) }),
  };
  Object.assign(globalThis, page);
  const identity = new Identity(new Store());

  identity.keep();

  assert.deepEqual(kept.items["mm_id"], identity.anonymousId);
  assert.deepEqual([cookies.length, kept.writes], [1, 1], "nothing is known of a user yet");
});

test("who was known before anything was kept is written by the next call", () => {
  const kept = new Items();
  const store = new Store();
  const identity = new Identity(store);
  store.isShut = true;
  identity.set({ id: "u-1" });

  store.isShut = false;
  identity.set({});

  assert.equal(new Identity(store).user.id, "u-1");
  identity.renew();
  assert.equal(new Identity(store).user.id, null);
  assert.ok(kept.items["mm.user"]);
});
