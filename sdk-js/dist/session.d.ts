import type { Store } from "./storage.js";
export declare const SESSION_GAP_MS: number;
export interface Place {
    readonly sessionId: string;
    readonly sessionSequence: number;
}
export declare class Session {
    private readonly _store;
    private _last;
    constructor(_store: Store);
    /** The place of the next event. */
    next(now: number): Place;
    reset(): void;
    private _read;
}
