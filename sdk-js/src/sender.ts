/**
 * When the queue's events go out: soon after the first, at once as the page goes away, and again until they are taken.
 *
 * One request at a time. After a failure the waits grow to five seconds, so that a short outage is over five seconds
 * after it is over; after ten failures they grow to a minute. What the API asks for (`Retry-After`) is waited in any case.
 */
import type { Queue } from "./queue.js";
import { KEEPALIVE_BYTES, type Outcome } from "./transport.js";

const SOON_MS = 1_500;
const MANY = 50; // events that wait: not any longer
const BATCH_CHARS = 400_000;
const FIRST_WAITS_MS = [1_500, 3_000];
const WAIT_MS = 4_500;
const PATIENT_TRIES = 10;
const LONGEST_WAIT_MS = 60_000;

export type Send = (events: readonly string[]) => Promise<Outcome>;

export class Sender {
  private _timer: ReturnType<typeof setTimeout> | undefined;
  private _due = 0;
  private _isSending = false;
  private _failures = 0;
  private _notBefore = 0;
  /** How many events the API refused for good. */
  refused = 0;

  constructor(
    private readonly _queue: Queue,
    private readonly _send: Send,
    private readonly _now: () => number = Date.now,
  ) {}

  /** There is something to send. */
  wake(): void {
    if (this._failures) return; // a retry is planned
    this._plan(this._queue.length >= MANY ? 0 : SOON_MS);
  }

  /** Now, if the API allows it: the network is back, or somebody asked. */
  flush(): Promise<void> {
    const wait = this._notBefore - this._now();
    if (wait > 0) {
      this._plan(wait);
      return Promise.resolve();
    }
    return this._run(BATCH_CHARS);
  }

  /** The page may be gone at any time: what a browser still takes is handed over, the rest stays in the queue. */
  leave(): void {
    if (this._queue.length && this._now() >= this._notBefore) {
      // Not waited for, and beside a request that is under way, which the browser may break off.
      void this._deliver(KEEPALIVE_BYTES / 2); // characters: most are a byte, few are more than two
    }
    this._queue.save();
  }

  private _plan(waitMs: number): void {
    const due = this._now() + waitMs;
    if (this._timer !== undefined && this._due <= due) return;
    clearTimeout(this._timer);
    this._due = due;
    this._timer = setTimeout(() => {
      this._timer = undefined;
      void this._run(BATCH_CHARS);
    }, waitMs);
  }

  private async _run(maxChars: number): Promise<void> {
    if (this._isSending || !this._queue.length) return;
    this._isSending = true;
    try {
      await this._deliver(maxChars);
    } finally {
      this._isSending = false;
    }
    if (this._queue.length) this._plan(this._wait());
  }

  private async _deliver(maxChars: number): Promise<void> {
    const batch = this._queue.take(maxChars);
    const outcome = await this._send(batch.events);
    if (outcome.kind === "later") {
      this._failures++;
      if (outcome.waitMs !== undefined) this._notBefore = this._now() + outcome.waitMs;
      return;
    }
    this._failures = 0;
    this._notBefore = 0;
    if (outcome.kind === "refused") this.refused += batch.entries.length;
    this._queue.drop(batch);
  }

  /** Milliseconds until the next request. */
  private _wait(): number {
    const failures = this._failures;
    if (!failures) return this._queue.length >= MANY ? 0 : SOON_MS;
    const patient = FIRST_WAITS_MS[failures - 1] ?? WAIT_MS;
    const wait = failures <= PATIENT_TRIES ? patient : WAIT_MS * 2 ** (failures - PATIENT_TRIES);
    const jittered = Math.min(wait, LONGEST_WAIT_MS) * (0.9 + Math.random() / 10);
    return Math.max(jittered, this._notBefore - this._now());
  }
}
