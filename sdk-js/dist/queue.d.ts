import { type Store } from "./storage.js";
import type { Properties } from "./types.js";
export declare const MAX_EVENTS = 1000;
export declare const MAX_BYTES = 1000000;
interface Entry {
    /** JSON of the event, less what it shares with others. */
    readonly e: string;
    /** JSON of what it shares: `anonymousId` and most of its `context`. */
    readonly s: string;
    /** How often it was handed over to the network. */
    n: number;
    /** Bytes of `e`. */
    readonly b: number;
    /** Whether it is under way in a request that outlives the page. */
    f?: boolean;
}
/** What goes into one request. */
export interface Batch {
    readonly shared: Shared;
    /** JSON of each event. */
    readonly events: readonly string[];
    readonly bytes: number;
    readonly items: readonly Entry[];
}
export interface Shared {
    readonly anonymousId: string;
    readonly context: Properties;
}
export declare class Queue {
    private readonly _store;
    private readonly _names;
    private readonly _key;
    private _entries;
    private _willSave;
    private _isKept;
    /** How many events were lost since this was last reported: no room, or the API would not have them. */
    dropped: number;
    /** `_names`: with what the names of its lists begin. A list that is of another write key is none of ours. */
    constructor(_store: Store, _names: string);
    /** How many wait, and are not under way. */
    get waiting(): number;
    /** Bytes that are under way in requests that outlive the page: while it goes, it may send that much less. */
    get underWay(): number;
    put(event: string, shared: string): void;
    /** The oldest that take no more than so many bytes together; the first in any case. */
    take(maxBytes: number): Batch;
    /** Whether the batch is in a request that outlives the page. */
    mark(batch: Batch, isUnderWay: boolean): void;
    /** These are done with. */
    drop(batch: Batch): void;
    clear(): void;
    /** Keeps the list as it is now. */
    save(): void;
    /** Holds the lock that says this tab is alive; returns what lets it go. */
    live(): () => void;
    /** The page was frozen, and is back: another may have taken its list over meanwhile. */
    resume(): void;
    /** Takes over the lists of tabs that are gone. Resolves once it has. */
    adopt(): Promise<void>;
    /** An entry that `save` did not write would stop or spoil each batch that it is in, so it is left out and counted. */
    private _adopt;
    /** Runs it without a lock where there are none: two tabs may then send the same, and the server keeps one. */
    private _lock;
    /** Drops the oldest, and counts them. */
    private _makeRoom;
}
export {};
