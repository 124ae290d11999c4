import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { Queue } from "../../src/queue.js";
import { Sender } from "../../src/sender.js";
import { Store } from "../../src/storage.js";
import type { Outcome } from "../../src/transport.js";
import { Items, settle } from "./browser.js";

const SHARED = JSON.stringify({ anonymousId: "a", context: {} });
let requests: { at: number; events: number; isLast: boolean }[] = [];
let answer: (request: number) => Partial<Outcome> | Promise<Partial<Outcome>>;
let queue: Queue;
let sender: Sender;
let others: { startTime: number; responseStatus: number }[] = [];

beforeEach(() => {
  new Items();
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  Object.defineProperty(globalThis, "navigator", { configurable: true, value: { onLine: true } });
  mock.method(performance, "getEntriesByType", () => others);
  mock.method(performance, "now", () => Date.now());
  others = [];
  requests = [];
  answer = () => ({ status: 200 });
  queue = new Queue(new Store(), "mm.queue.");
  sender = new Sender(queue, async (batch, isLast) => {
    requests.push({ at: Date.now(), events: batch.events.length, isLast });
    return { status: 200, waitMs: 0, ...(await answer(requests.length)) };
  });
});

function put(count: number, bytes = 0): void {
  for (let n = 0; n < count; n++) queue.put(JSON.stringify({ context: {}, text: "x".repeat(bytes) }), SHARED);
  sender.wake();
}

/** Lets the clock go on so far. */
async function after(ms: number): Promise<void> {
  for (const until = Date.now() + ms; Date.now() < until; ) {
    mock.timers.tick(Math.min(100, until - Date.now()));
    await settle();
  }
}

const times = (): number[] => requests.map(({ at }) => at);

test("events go out together three seconds after the first, and many at once", async () => {
  put(1);
  await after(2_000);
  put(1);
  await after(900);
  assert.equal(requests.length, 0);
  await after(100);
  assert.deepEqual(requests, [{ at: 3_000, events: 2, isLast: false }]);

  put(50);
  await after(100);
  assert.equal(requests[1]?.events, 50);
});

test("while the API is out there are three requests in five seconds, and one at most five seconds after it is back", async () => {
  answer = () => ({ status: 503 });
  put(1);
  await after(3_000 + 5_000);
  assert.equal(requests.length, 3);
  answer = () => ({ status: 200 });
  await after(5_000);
  assert.equal(queue.waiting, 0);
});

test("a long outage ends with a request a minute", async () => {
  answer = () => ({ status: 503 });
  put(1);
  await after(30 * 60_000);
  const last = times().slice(-2);
  assert.ok(requests.length < 50, `${requests.length}`);
  assert.ok(last[1]! - last[0]! <= 60_000 && last[1]! - last[0]! >= 54_000, `${last}`);
});

test("what the API asks to wait is waited, whatever happens meanwhile", async () => {
  answer = (request) => (request === 1 ? { status: 429, waitMs: 20_000 } : { status: 200 });
  put(1);
  await after(3_000);
  for (let second = 0; second < 19; second++) {
    put(60);
    sender.handOver();
    await sender.flush();
    await after(1_000);
  }
  assert.equal(requests.length, 1);
  await after(2_000);
  await after(10_000);
  assert.equal(requests[1]?.at, 23_000);
  assert.equal(queue.waiting, 0);
});

test("a wait that is longer than a timer can be doesn't run out at once", async () => {
  answer = () => ({ status: 429, waitMs: 1e12 });
  put(1);
  await after(3_000);
  const waits = mock.method(globalThis, "setTimeout").mock;
  await sender.flush();
  sender.wake();
  put(60);
  await sender.flush();
  await after(10_000);
  assert.equal(requests.length, 1);
  for (const { arguments: given } of waits.calls) assert.ok(given[1]! < 2 ** 31, `${given[1]}`);
});

test("what goes as the page goes is bounded, beside what is under way", async () => {
  let end = (): void => undefined;
  answer = (request) => (request === 1 ? new Promise((done) => (end = () => done({ status: 200 }))) : { status: 200 });
  put(20, 1_000);
  void sender.flush();
  await settle();
  put(60, 1_000);
  sender.handOver();
  await settle();
  const [first, last] = requests;
  assert.equal(first?.events, 80 - 60);
  assert.deepEqual([last?.isLast, last!.events < 34, last!.events > 25], [true, true, true]);
  end();
  await after(5_000);
  assert.equal(queue.waiting, 0);
});

test("leaving twice hands nothing over twice", async () => {
  answer = () => new Promise(() => undefined);
  put(3);
  sender.handOver();
  await settle();
  sender.handOver();
  await settle();
  assert.deepEqual(requests.map(({ events }) => events), [3]);
});

test("a page that is left and stays tries again", async () => {
  answer = (request) => ({ status: request === 1 ? 503 : 200 });
  put(3);
  sender.handOver();
  await after(2_000);
  assert.deepEqual(requests.map(({ isLast }) => isLast), [true, false]);
  assert.equal(queue.waiting, 0);
});

for (const status of [400, 401, 403, 415]) {
  test(`what is refused with ${status} is dropped and counted`, async () => {
    answer = () => ({ status });
    put(2);
    await after(60_000);
    assert.equal(requests.length, 1);
    assert.deepEqual([queue.waiting, queue.dropped], [0, 2]);
  });
}

for (const status of [0, 302, 404, 408, 429, 500, 502, 503]) {
  test(`nothing is lost with ${status}`, async () => {
    answer = (request) => ({ status: request < 4 ? status : 200 });
    put(2);
    await after(60_000);
    assert.deepEqual([queue.waiting, queue.dropped, requests.length], [0, 0, 4]);
  });
}

test("a body that is too large goes in halves, until a single event is dropped", async () => {
  answer = (request) => ({ status: requests[request - 1]!.events > 4 ? 413 : 200 });
  put(40, 1_000);
  await after(120_000);
  assert.deepEqual([queue.waiting, queue.dropped], [0, 0]);
  answer = () => ({ status: 413 });
  put(1);
  await after(10_000);
  assert.deepEqual([queue.waiting, queue.dropped], [0, 1]);
});

test("what was dropped is said once", async () => {
  queue.dropped = 3;
  answer = (request) => ({ status: request === 1 ? 503 : 200 });
  put(1);
  await after(3_500);
  assert.equal(queue.dropped, 3);
  await after(10_000);
  assert.equal(queue.dropped, 0);
});

test("an API that nothing comes back from, while others answer, is left alone", async () => {
  answer = () => ({ status: 0 });
  put(1);
  await after(3_500);
  others = [{ startTime: Date.now(), responseStatus: 200 }];
  await after(30_000);
  assert.equal(requests.length, 3);
  await after(30 * 60_000);
  assert.ok(requests.length < 14, `${requests.length}`);
  const tried = requests.length;
  sender.look();
  await settle();
  assert.equal(requests.length, tried + 1);
  answer = () => ({ status: 200 });
  await after(5 * 60_000);
  assert.equal(queue.waiting, 0);
});

test("where nobody answers, the network is out, and it is tried again", async () => {
  answer = () => ({ status: 0 });
  put(1);
  others = [{ startTime: 0, responseStatus: 200 }, { startTime: 50_000, responseStatus: 0 }];
  await after(60_000);
  assert.ok(requests.length > 8);
});
