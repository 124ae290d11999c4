import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { parse, Store } from "../../src/storage.js";

/** As a browser's, with its items as keys of the object. */
function storage(items: Record<string, string>): Storage {
  const methods = {
    getItem: (key: string) => items[key] ?? null,
    setItem: (key: string, value: string) => void (items[key] = value),
    removeItem: (key: string) => void delete items[key],
  };
  return new Proxy(items, { get: (_, name) => methods[name as keyof typeof methods] }) as unknown as Storage;
}

function put(descriptor: PropertyDescriptor): void {
  Object.defineProperty(globalThis, "localStorage", { configurable: true, ...descriptor });
}

afterEach(() => put({ value: undefined }));

test("what is set is kept until it is removed", () => {
  const items: Record<string, string> = { theirs: "1" };
  put({ value: storage(items) });
  const store = new Store();

  assert.equal(store.write("mm", "2"), true);
  assert.deepEqual([store.read("mm"), store.read("absent"), store.names()], ["2", null, ["theirs", "mm"]]);
  store.erase("mm");
  assert.deepEqual(items, { theirs: "1" });
});

test("a full storage keeps nothing, and says so", () => {
  const full = storage({ before: "1" });
  const setItem = (): never => {
    throw new DOMException("full", "QuotaExceededError");
  };
  put({ value: new Proxy(full, { get: (kept, name) => (name === "setItem" ? setItem : Reflect.get(kept, name)) }) });
  const store = new Store();

  assert.equal(store.write("mm", "2"), false);
  assert.deepEqual([store.read("mm"), store.read("before")], [null, "1"]);
});

test("where storage is denied or absent, nothing is kept and nothing throws", () => {
  const denied = {
    get: (): never => {
      throw new DOMException("denied", "SecurityError");
    },
  };
  for (const descriptor of [denied, { value: undefined }, { value: null }]) {
    put(descriptor);
    const store = new Store();

    assert.equal(store.write("mm", "2"), false);
    assert.deepEqual([store.read("mm"), store.names()], [undefined, []]);
    store.erase("mm");
  }
});

test("what may not be kept is neither written nor read nor removed", () => {
  const items: Record<string, string> = { mm: "1" };
  put({ value: storage(items) });
  const store = new Store();
  store.isShut = true;

  assert.equal(store.write("mm", "2"), false);
  store.erase("mm");
  assert.deepEqual([store.read("mm"), store.names(), items], [undefined, [], { mm: "1" }]);
});

test("text that is no object of JSON says nothing", () => {
  assert.deepEqual(parse('{"a":1}'), { a: 1 });
  for (const text of ["{", "", "1", '"{}"', "null", "true", null, undefined, 1, {}]) assert.equal(parse(text), null);
});

test("what is too long, or nested too deep to be written again, says nothing", () => {
  assert.deepEqual([parse("[1]", 3), parse("[12]", 3)], [[1], null]);
  assert.equal(parse("[".repeat(50_000) + "]".repeat(50_000)), null);
});

test("names that objects have anyway are fields like any other", () => {
  const read = parse('{"__proto__":{"isAdmin":true},"constructor":{"prototype":{"isAdmin":true}}}');

  assert.equal(({ ...read } as { isAdmin?: boolean }).isAdmin, undefined);
  assert.equal(({} as { isAdmin?: boolean }).isAdmin, undefined);
});
