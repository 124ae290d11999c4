/** localStorage may hold anything: of an older version, of a page's own code, cut short. The SDK goes on, whatever it is. */
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Identity } from "../../src/identity.js";
import { MAX_EVENTS, Queue, type Batch } from "../../src/queue.js";
import { Session } from "../../src/session.js";
import { Store } from "../../src/storage.js";
import { Items, settle } from "./browser.js";

const LIST = "mm.queue.gone";
const SHARED = '{"anonymousId":"a-1","context":{"page":"/"}}';
const RUNS = Number(process.env["HOSTILE_RUNS"] ?? 1_500);

Object.assign(globalThis, { location: new URL("https://shop.example/"), document: { cookie: "" } });

let kept: Items;
beforeEach(() => {
  kept = new Items();
});

const event = (id: string): string => JSON.stringify({ messageId: id, context: {} });

/** What goes out of a tab that takes over this list: three tries of each batch, so that each event is said again. */
async function sent(list: string): Promise<{ ids: string[]; queue: Queue }> {
  kept = new Items();
  kept.items[LIST] = list;
  const queue = new Queue(new Store(), "mm.queue.");
  await queue.adopt();
  assert.equal(kept.items[LIST], undefined, "it is gone");
  queue.put(event("own"), SHARED);
  await settle();
  for (let turn = 0; turn < 3; turn++) queue.take(50_000);
  const ids: string[] = [];
  for (let batches = 0; queue.waiting; batches++) {
    assert.ok(batches <= MAX_EVENTS, "it comes to an end");
    const batch = queue.take(50_000);
    ids.push(...idsOf(batch));
    queue.drop(batch);
  }
  assert.ok(ids.includes("own"), "what is tracked from now on goes out");
  return { ids, queue };
}

/** Each must be JSON, and the body of them all, too. */
function idsOf(batch: Batch): string[] {
  const body = JSON.parse(`{"shared":${JSON.stringify(batch.shared)},"batch":[${batch.events.join(",")}]}`) as {
    shared: { anonymousId: unknown; context: unknown };
    batch: { messageId?: unknown; context: { attempt?: unknown } }[];
  };
  assert.equal(typeof body.shared.anonymousId, "string");
  for (const one of body.batch) assert.ok(Number.isInteger(one.context.attempt ?? 1));
  return body.batch.map(({ messageId }) => String(messageId));
}

test("a list that names no shared text does not stop the queue", async () => {
  const { queue } = await sent('{"d":0,"s":[],"q":[["{}",0,0]]}');

  assert.equal(queue.dropped, 1);
  assert.equal(kept.items["mm.bad"], '{"d":0,"s":[],"q":[["{}",0,0]]}');
});

test("of a list with bad entries the good ones are sent, and the bad ones counted", async () => {
  const good = (id: string): unknown[] => [event(id), 0, 0];
  const bad = [
    ...[null, 5, "abc", {}, [], [1], [event("x")], [event("x"), 7, 0], [event("x"), "length", 0]],
    ...[[event("x"), "__proto__", 0], [event("x"), 1, 0], [event("x"), 2, 0], [event("x"), 3, 0]],
    ...[["{", 0, 0], ["5", 0, 0], ["null", 0, 0], ['"{}"', 0, 0], ["", 0, 0], [{}, 0, 0], [["{}"], 0, 0]],
    ["[".repeat(50_000) + "]".repeat(50_000), 0, 0],
  ];
  const texts = [SHARED, "{}", '{"anonymousId":1,"context":{}}', 5];
  const mixed = bad.flatMap((one, at) => [good(String(at)), one]);

  const { ids, queue } = await sent(JSON.stringify({ d: 3, s: texts, q: mixed }));

  assert.deepEqual(ids, [...bad.map((_, at) => String(at)), "own"]);
  assert.equal(queue.dropped, bad.length + 3);
});

test("how often an entry was sent, and how many were dropped, are numbers or none", async () => {
  for (const n of [null, "5", -1, 1.5, 1e300, {}, [], "x", true]) {
    const { ids } = await sent(JSON.stringify({ d: n, s: [SHARED], q: [[event("a"), 0, n]] }));
    assert.deepEqual(ids, ["a", "own"]);
  }
  for (const [d, count] of [[7, 7], ["7", 0], [-7, 0], ["x", 0], [null, 0], [{ toString: 1 }, 0]] as const) {
    assert.equal((await sent(JSON.stringify({ d, s: [], q: [] }))).queue.dropped, count);
  }
});

test("what is no list at all is one loss, and an empty list is none", async () => {
  for (const text of ["{", "null", "5", '"q"', "[]", "{}", '{"q":{}}', '{"q":"abc"}', '{"q":null}', "\0"]) {
    assert.equal((await sent(text)).queue.dropped, 1, text);
    assert.equal(kept.items["mm.bad"], text);
  }
  assert.equal((await sent('{"d":0,"s":[],"q":[]}')).queue.dropped, 0);
  assert.equal(kept.items["mm.bad"], undefined);
});

test("a list cut anywhere is survived", async () => {
  const whole = JSON.stringify({ d: 1, s: [SHARED], q: [[event("a"), 0, 0], [event("b"), 0, 1]] });
  for (let length = 1; length < whole.length; length++) await sent(whole.slice(0, length));
});

test("huge lists take little time, and what is set aside is bounded", async () => {
  const many = `[${"0,".repeat(1_000_000)}0]`;
  assert.equal((await sent(`{"d":0,"s":[],"q":${many}}`)).queue.dropped, 1_000_001);
  assert.equal(kept.items["mm.bad"]?.length, 10_000);
  assert.equal((await sent(`{"q":"${"x".repeat(3_000_000)}"}`)).queue.dropped, 1);
  const events = Array.from({ length: 3 * MAX_EVENTS }, (_, n) => [event(String(n)), 0, 0]);
  const { ids } = await sent(JSON.stringify({ s: [SHARED], q: events }));
  assert.equal(ids.at(-2), String(3 * MAX_EVENTS - 1));
  const large = `{"anonymousId":"a","context":{"page":"${"x".repeat(2_000_000)}"}}`;
  assert.deepEqual((await sent(JSON.stringify({ d: 0, s: [large], q: [[event("a"), 0, 0]] }))).ids, ["own"]);
});

test("whatever user and session are kept, events have ids and numbers that the API takes", () => {
  const values: unknown[] = [null, 5, "x", true, [], {}, [[1]], { a: 1 }, { toString: 1, valueOf: 1 }, -1, 1e300, "x".repeat(200_000)];
  const deep = "[".repeat(50_000) + "]".repeat(50_000);
  const texts = values.flatMap((one) => [
    JSON.stringify(one),
    JSON.stringify({ id: one, group: one, properties: one, n: one, at: one, campaign: one }),
    JSON.stringify({ id: one, group: one, properties: one, n: one, at: 1_000, campaign: one }),
  ]);
  for (const text of [...texts, "{", "", `{"properties":${deep},"campaign":${deep},"n":1,"at":1000}`]) {
    kept.items["mm.user"] = kept.items["mm.session"] = kept.items["mm_id"] = text;
    const identity = new Identity(new Store());
    assert.ok(["string", "undefined"].includes(typeof (identity.user.id ?? undefined)));
    assert.equal(typeof (identity.user.properties ?? {}), "object");
    assert.match(identity.anonymousId, /^[\w-]{8,64}$/);
    identity.keep();
    const session = new Session(new Store());
    const numbers = [session.next(1_000, undefined), session.next(1_001, undefined)].map(({ n }) => n);
    assert.equal(typeof numbers[0], "number");
    assert.ok(numbers[0]! > 0 && numbers[1]! >= numbers[0]!);
    assert.ok(JSON.stringify([identity.user, session.next(1_002, undefined)]).length < 300_000);
  }
});

test("random content never stops it", async () => {
  const random = generator(20_261_129);
  for (let run = 0; run < RUNS; run++) {
    const list = random.chance(0.3) ? random.text() : JSON.stringify(random.list());
    await sent(random.chance(0.1) ? list.slice(0, random.below(list.length + 1)) || "?" : list);
    kept.items["mm.user"] = JSON.stringify(random.value(0)) ?? "";
    kept.items["mm.session"] = JSON.stringify(random.value(0)) ?? "";
    const identity = new Identity(new Store());
    identity.set({ id: "u" });
    assert.ok(new Session(new Store()).next(run, undefined).n > 0);
    assert.equal(({} as { polluted?: unknown }).polluted, undefined);
  }
});

/** A small seeded generator of values that a list may hold, and of lists that are nearly right. */
function generator(seed: number) {
  const next = (): number => (seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31) / 2 ** 31;
  const below = (count: number): number => Math.floor(next() * count);
  const pick = <T>(of: readonly T[]): T => of[below(of.length)]!;
  const names = ["__proto__", "constructor", "toString", "length", "context", "anonymousId", "q", "s", "d", "n", "at", "id"];
  const value = (depth: number): unknown =>
    pick<() => unknown>([
      () => pick([null, true, false, 0, -1, 1e300, 2 ** 53, "", "x", "\ud800", "{}", "null", SHARED, event("r")]),
      () => below(100),
      () => (depth > 3 ? [] : Array.from({ length: below(4) }, () => value(depth + 1))),
      () => (depth > 3 ? {} : Object.fromEntries(Array.from({ length: below(4) }, () => [pick(names), value(depth + 1)]))),
    ])();
  const or = <T>(right: T): unknown => (next() < 0.7 ? right : value(0));
  const list = (): unknown => ({
    d: or(below(5)),
    s: or([or(SHARED), or(SHARED), or('{"anonymousId":"b-2","context":{"page":"/b"}}')]),
    q: or(Array.from({ length: below(6) }, () => or([or(event("r")), or(below(3)), or(below(3))]))),
  });
  const text = (): string => Array.from({ length: 1 + below(40) }, () => pick([...'{}[]",:0sqd\\u null'])).join("");
  return { below, value, list, text, chance: (share: number): boolean => next() < share };
}
