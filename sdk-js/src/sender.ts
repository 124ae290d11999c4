/**
 * When the queue's events go out: soon after the first, at once as the page goes away, and again until they are taken.
 *
 * One request at a time. After a failure the waits grow to five seconds, so that a short outage is over five seconds
 * after it is over; after ten failures they grow to a minute. What the API asks for (`Retry-After`) is waited in any case.
 * Where nothing comes back from the API while other hosts answer, something blocks it: after three tries it is left alone
 * for half a minute, and for longer and longer.
 */
import type { Batch, Queue } from "./queue.js";
import { isRefusal, KEEPALIVE_BYTES, TOO_LARGE, type Outcome } from "./transport.js";

const SOON_MS = 3_000;
const MANY = 50; // events that wait: not any longer
const HEAD_BYTES = 3_000; // more than a request takes beside its events
const BATCH_BYTES = KEEPALIVE_BYTES - HEAD_BYTES; // so that each outlives the page, and nothing is sent twice as it goes
const FIRST_WAITS_MS = [1_500, 3_000];
const WAIT_MS = 4_500;
const PATIENT_TRIES = 10;
const LONGEST_WAIT_MS = 60_000;
const BLOCKED_TRIES = 3;
const BLOCKED_WAIT_MS = 30_000;
const LONGEST_BLOCKED_WAIT_MS = 300_000;
const LONGEST_TIMER_MS = 1e9; // what is longer than 2^31 runs out at once

/** `isLast`: the page may be gone before an answer is there. */
export type Send = (batch: Batch, isLast: boolean) => Promise<Outcome>;

export class Sender {
  private _timer: ReturnType<typeof setTimeout> | undefined;
  /** When the timer runs out; Infinity where there is none. */
  private _due = Infinity;
  private _sending: Promise<void> | undefined;
  private _failures = 0;
  private _failingSince!: number;
  /** How many of the failures had no answer at all, in a row. */
  private _unanswered = 0;
  private _notBefore = 0;
  private _maxBytes = BATCH_BYTES;

  constructor(
    private readonly _queue: Queue,
    private readonly _send: Send,
  ) {}

  /** There is something to send. */
  wake(): void {
    if (!this._failures) this._plan(this._soon()); // else a retry is planned
  }

  /** Now, if the API allows it: the network is back, or somebody asked. Resolves when the answer is there. */
  async flush(): Promise<void> {
    const wait = this._notBefore - Date.now();
    if (wait > 0) this._plan(wait);
    else await (this._sending ??= this._run());
  }

  /** The page is looked at again. */
  look(): void {
    if (this._unanswered >= BLOCKED_TRIES) void this.flush();
  }

  /** The page may be gone at any time: what a browser still takes is handed over, the rest stays in the queue. */
  handOver(): void {
    const room = BATCH_BYTES - this._queue.underWay;
    // Not waited for, and beside a request that is under way.
    if (Date.now() >= this._notBefore && room > 0) void this._deliver(room, true).then(() => this._next());
    this._queue.save();
  }

  private _plan(waitMs: number): void {
    const due = Date.now() + waitMs;
    if (this._due <= due) return;
    clearTimeout(this._timer);
    this._due = due;
    this._timer = setTimeout(() => {
      this._due = Infinity;
      void this.flush();
    }, Math.min(waitMs, LONGEST_TIMER_MS));
  }

  private async _run(): Promise<void> {
    clearTimeout(this._timer);
    this._due = Infinity;
    await this._deliver(this._maxBytes, false);
    this._sending = undefined;
    this._next();
  }

  private _next(): void {
    if (this._queue.waiting) this._plan(this._wait());
  }

  private async _deliver(maxBytes: number, isLast: boolean): Promise<void> {
    if (!this._queue.waiting) return;
    const batch = this._queue.take(maxBytes);
    this._queue.mark(batch, batch.bytes <= BATCH_BYTES);
    const reported = this._queue.dropped;
    const { status, waitMs } = await this._send(batch, isLast);
    this._queue.mark(batch, false);
    const isAccepted = status >= 200 && status < 300;
    if (!isAccepted && !isRefusal(status)) return this._failed(status, waitMs);
    this._failures = this._unanswered = this._notBefore = 0;
    if (status === TOO_LARGE && batch.events.length > 1) {
      this._maxBytes = batch.bytes / 2; // something before the API takes less than it does
      return;
    }
    if (isAccepted) this._queue.dropped = Math.max(0, this._queue.dropped - reported);
    else this._queue.dropped += batch.events.length;
    this._queue.drop(batch);
  }

  private _failed(status: number, waitMs: number): void {
    if (!this._failures++) this._failingSince = performance.now();
    this._unanswered = status || !navigator.onLine ? 0 : this._unanswered + 1;
    if (waitMs > 0) this._notBefore = Date.now() + waitMs;
  }

  private _soon(): number {
    return this._queue.waiting >= MANY ? 0 : SOON_MS;
  }

  /** Milliseconds until the next request. */
  private _wait(): number {
    const failures = this._failures;
    if (!failures) return this._soon();
    if (this._unanswered >= BLOCKED_TRIES && othersAnswerSince(this._failingSince)) {
      return Math.min(BLOCKED_WAIT_MS * 2 ** (this._unanswered - BLOCKED_TRIES), LONGEST_BLOCKED_WAIT_MS);
    }
    const wait = FIRST_WAITS_MS[failures - 1] ?? WAIT_MS * 2 ** Math.max(0, failures - PATIENT_TRIES);
    const jittered = Math.min(wait, LONGEST_WAIT_MS) * (0.9 + Math.random() / 10);
    return Math.max(jittered, this._notBefore - Date.now());
  }
}

/** Whether any other request of the page has had an answer since then (milliseconds of `performance.now`). */
function othersAnswerSince(since: number): boolean {
  const requests = performance.getEntriesByType("resource") as PerformanceResourceTiming[];
  return requests.some(({ startTime, responseStatus }) => startTime > since && responseStatus > 0);
}
