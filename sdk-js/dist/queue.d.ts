import type { Store } from "./storage.js";
import type { Event } from "./types.js";
export declare const MAX_EVENTS = 1000;
export declare const MAX_CHARS = 1000000;
/** What is kept of an event; the names are short, since they are written with each. */
interface Entry {
    /** JSON of the event. */
    readonly e: string;
    /** How often it was handed over to the network. */
    n: number;
}
export interface Batch {
    readonly events: readonly string[];
    readonly entries: readonly Entry[];
}
export declare class Queue {
    private readonly _store;
    private readonly _key;
    private _entries;
    private _chars;
    private _willSave;
    /** How many events had no room since this was last reported. */
    dropped: number;
    constructor(_store: Store);
    get length(): number;
    put(event: Event): void;
    /** The oldest events whose texts take no more than so many characters together; the first in any case. */
    take(maxChars: number, maxEvents?: number): Batch;
    /** These are done with. */
    drop(batch: Batch): void;
    /** Keeps the list as it is now. */
    save(): void;
    /** Holds the lock that says this tab is alive; returns what lets it go. */
    live(): () => void;
    /** Takes over the lists of tabs that are gone. Resolves to whether there were any. */
    adopt(): Promise<boolean>;
    private _adoptFrom;
    private _add;
    /** Drops the oldest, and counts them. */
    private _makeRoom;
    private _saveSoon;
}
export {};
