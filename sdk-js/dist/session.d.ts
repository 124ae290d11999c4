/**
 * A session ends after half an hour without an event. Its id and the number of its events are shared by a site's tabs,
 * so that what never arrived can be counted from the gaps. The campaign that led to it stays with all of its events.
 */
import type { Campaign } from "./campaign.js";
import { type Store } from "./storage.js";
export declare const SESSION_GAP_MS: number;
export interface Place {
    readonly id: string;
    /** When its last event was. */
    readonly at: number;
    /** The number of that event, from 1. */
    readonly n: number;
    readonly campaign?: Campaign | undefined;
}
export declare class Session {
    private readonly _store;
    private _last;
    constructor(_store: Store);
    /** The place of the next event. `campaign`: what the page's address says, which a later one takes the place of. */
    next(now: number, campaign: Campaign | undefined): Place;
    renew(): void;
}
