import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { MAX_BYTES, MAX_EVENTS, Queue, type Batch } from "../../src/queue.js";
import { Store } from "../../src/storage.js";
import { Items, settle } from "./browser.js";

let kept: Items;
beforeEach(() => {
  kept = new Items();
});

const shared = (page: string, more: object = {}): string =>
  JSON.stringify({ anonymousId: "a", context: { page, ...more } });
const event = (n: number, more: object = {}): string =>
  JSON.stringify({ messageId: String(n), context: { sessionSequence: n }, ...more });
const sent = (batch: Batch): unknown[] =>
  batch.events.map((one) => {
    const own = JSON.parse(one) as { context: object };
    return { anonymousId: batch.shared.anonymousId, ...own, context: { ...batch.shared.context, ...own.context } };
  });

test("what is put is written once a microtask, and gone when it is done with", async () => {
  const queue = new Queue(new Store(), "mm.queue.");
  for (let n = 0; n < 100; n++) queue.put(event(n), shared("/"));
  assert.equal(kept.writes, 0);
  await settle();
  assert.equal(kept.writes, 1);
  assert.equal(Object.keys(kept.items).length, 1);

  queue.drop(queue.take(1_000_000));
  assert.deepEqual(kept.items, {});
  assert.equal(queue.waiting, 0);
});

test("the events of another tab that is gone come first, with how often they were sent", async () => {
  const gone = new Queue(new Store(), "mm.queue.");
  gone.put(event(1), shared("/one"));
  gone.put(event(2), shared("/two"));
  gone.take(10); // the first of them
  const next = new Queue(new Store(), "mm.queue.");
  next.put(event(3), shared("/two"));
  await next.adopt();

  assert.deepEqual(sent(next.take(10_000)), [
    { messageId: "1", anonymousId: "a", context: { page: "/one", sessionSequence: 1, attempt: 2 } },
    { messageId: "2", anonymousId: "a", context: { page: "/two", sessionSequence: 2 } },
    { messageId: "3", anonymousId: "a", context: { page: "/two", sessionSequence: 3 } },
  ]);
  assert.equal(Object.keys(kept.items).length, 1);
});

test("the events of another write key are left to its pages", async () => {
  const gone = new Queue(new Store(), "mm.queue.one.");
  gone.put(event(1), shared("/"));
  await settle();
  const other = new Queue(new Store(), "mm.queue.other.");
  await other.adopt();
  assert.equal(other.waiting, 0);
  const next = new Queue(new Store(), "mm.queue.one.");
  await next.adopt();
  assert.equal(next.waiting, 1);
});

test("what is sent again says no more than before but how often", () => {
  const queue = new Queue(new Store(), "mm.queue.");
  for (const n of [1, 2]) queue.put(event(n), shared("/"));
  queue.take(10_000);

  const [first] = queue.take(10_000).events;
  assert.equal(first, '{"messageId":"1","context":{"sessionSequence":1,"attempt":2}}');
});

test("what an event lacks of what its batch shares is said to be null", () => {
  const queue = new Queue(new Store(), "mm.queue.");
  for (const n of [1, 2]) queue.put(event(n), shared("/", { campaign: { name: "May" } }));
  queue.put(event(3, { anonymousId: "own" }), shared("/"));

  assert.deepEqual(sent(queue.take(10_000)).at(-1), {
    messageId: "3",
    anonymousId: "own",
    context: { page: "/", campaign: null, sessionSequence: 3 },
  });
});

test("a batch takes no more bytes than it may, and one event in any case", () => {
  const queue = new Queue(new Store(), "mm.queue.");
  for (let n = 0; n < 10; n++) queue.put(event(n, { text: "中".repeat(100) }), shared("/"));

  const batch = queue.take(1_000);
  assert.equal(batch.events.length, 2);
  assert.ok(new TextEncoder().encode(batch.events.join(",")).length <= 1_000);
  assert.equal(queue.take(1).events.length, 1);
});

test("what is under way is not handed over a second time, nor counted as waiting", () => {
  const queue = new Queue(new Store(), "mm.queue.");
  for (let n = 0; n < 3; n++) queue.put(event(n), shared("/"));
  const first = queue.take(80);
  queue.mark(first, true);

  assert.equal(queue.waiting, 3 - first.events.length);
  assert.ok(queue.underWay > 0);
  const rest = queue.take(10_000);
  assert.deepEqual([...sent(first), ...sent(rest)].map((one) => (one as { messageId: string }).messageId), ["0", "1", "2"]);
  queue.mark(first, false);
  assert.equal(queue.underWay, 0);
  assert.equal(queue.waiting, 3);
});

test("the oldest give way when there are too many events or bytes, and are counted", () => {
  const many = new Queue(new Store(), "mm.queue.");
  for (let n = 0; n < MAX_EVENTS + 7; n++) many.put(event(n), shared("/"));
  assert.equal(many.dropped, 7);
  assert.equal((sent(many.take(10)) as { messageId: string }[])[0]?.messageId, "7");

  const large = new Queue(new Store(), "mm.queue.");
  for (let n = 0; n < 4; n++) large.put(event(n, { text: "x".repeat(MAX_BYTES / 3) }), shared("/"));
  assert.equal(large.waiting, 2);
  assert.equal(large.dropped, 2);
});

test("how many were dropped outlives the tab", async () => {
  const gone = new Queue(new Store(), "mm.queue.");
  gone.put(event(1), shared("/"));
  gone.dropped = 5;
  gone.save();
  const next = new Queue(new Store(), "mm.queue.");
  await next.adopt();

  assert.equal(next.dropped, 5);
});

test("a page that was frozen lets go what another took over meanwhile", async () => {
  const frozen = new Queue(new Store(), "mm.queue.");
  frozen.put(event(1), shared("/"));
  await settle();
  const other = new Queue(new Store(), "mm.queue.");
  await other.adopt();
  frozen.resume();
  assert.equal(frozen.waiting, 0);
  assert.equal(other.waiting, 1);
});

test("a page that could keep nothing goes on with what it has in memory", async () => {
  kept.room = 0;
  const queue = new Queue(new Store(), "mm.queue.");
  queue.put(event(1), shared("/"));
  await settle();
  queue.resume();

  assert.equal(queue.waiting, 1);
});

test("what somebody else wrote under a name of ours stops nothing", async () => {
  Object.assign(kept.items, { "mm.queue.a": "{", "mm.queue.b": '{"q":1}', "mm.queue.c": "null", "mm.queue.d": "[]" });
  const gone = new Queue(new Store(), "mm.queue.");
  gone.put(event(1), shared("/"));
  gone.save();
  const queue = new Queue(new Store(), "mm.queue.");
  await queue.adopt();

  assert.equal(queue.waiting, 1);
});
