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
  assert.deepEqual([cookies.length, kept.writes], [1, 2], "the user is written, too");
});
