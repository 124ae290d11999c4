/**
 * When the queue's events go out: soon after the first, at once as the page goes away, and again until they are taken.
 *
 * One request at a time. After a failure the waits grow to five seconds, so that a short outage is over five seconds
 * after it is over; after ten failures they grow to a minute. What the API asks for (`Retry-After`) is waited in any case.
 * Where nothing comes back from the API while other hosts answer, something blocks it: after three tries it is left alone
 * for half a minute, and for longer and longer.
 */
import type { Batch, Queue } from "./queue.js";
import { type Outcome } from "./transport.js";
/** `isLast`: the page may be gone before an answer is there. */
export type Send = (batch: Batch, isLast: boolean) => Promise<Outcome>;
export declare class Sender {
    private readonly _queue;
    private readonly _send;
    private _timer;
    /** When the timer runs out; Infinity where there is none. */
    private _due;
    private _sending;
    private _failures;
    private _failingSince;
    /** How many of the failures had no answer at all, in a row. */
    private _unanswered;
    private _notBefore;
    private _maxBytes;
    constructor(_queue: Queue, _send: Send);
    /** There is something to send. */
    wake(): void;
    /** Now, if the API allows it: the network is back, or somebody asked. Resolves when the answer is there. */
    flush(): Promise<void>;
    /** The page is looked at again. */
    look(): void;
    /** The page may be gone at any time: what a browser still takes is handed over, the rest stays in the queue. */
    handOver(): void;
    private _plan;
    private _run;
    private _next;
    private _deliver;
    private _failed;
    private _soon;
    /** Milliseconds until the next request. */
    private _wait;
}
