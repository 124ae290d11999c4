/**
 * When the queue's events go out: soon after the first, at once as the page goes away, and again until they are taken.
 *
 * One request at a time. After a failure the waits grow to five seconds, so that a short outage is over five seconds
 * after it is over; after ten failures they grow to a minute. What the API asks for (`Retry-After`) is waited in any case.
 */
import type { Queue } from "./queue.js";
import { type Outcome } from "./transport.js";
export type Send = (events: readonly string[]) => Promise<Outcome>;
export declare class Sender {
    private readonly _queue;
    private readonly _send;
    private readonly _now;
    private _timer;
    private _due;
    private _isSending;
    private _failures;
    private _notBefore;
    /** How many events the API refused for good. */
    refused: number;
    constructor(_queue: Queue, _send: Send, _now?: () => number);
    /** There is something to send. */
    wake(): void;
    /** Now, if the API allows it: the network is back, or somebody asked. */
    flush(): Promise<void>;
    /** The page may be gone at any time: what a browser still takes is handed over, the rest stays in the queue. */
    leave(): void;
    private _plan;
    private _run;
    private _deliver;
    /** Milliseconds until the next request. */
    private _wait;
}
