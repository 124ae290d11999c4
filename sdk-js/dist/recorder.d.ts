import { Identity } from "./identity.js";
import { Page } from "./page.js";
import { Sender } from "./sender.js";
import type { CallOptions, Consent, Event, Options, Properties } from "./types.js";
export declare const isBrowser: boolean;
/** An event as its call says it. */
export type Draft = Pick<Event, "type"> & Partial<Event>;
export declare class Recorder {
    private readonly _options;
    private readonly _store;
    private readonly _session;
    private readonly _queue;
    readonly sender: Sender;
    private _choice;
    private _pending;
    private _release;
    readonly identity: Identity;
    readonly page: Page;
    constructor(_options: Options);
    get isDenied(): boolean;
    /** `page`: what stands in the event's `context.page`. */
    put(draft: Draft, options: CallOptions | undefined, page: Properties): void;
    renew(): void;
    /** What the person says; it is remembered. */
    choose(choice: Consent): void;
    /** A held lock would keep the page out of the back-forward cache. */
    gone(): void;
    /** Out of the back-forward cache. */
    back(): void;
    /** Another tab wrote something. */
    changed({ key, newValue: value }: StorageEvent): void;
    private _decide;
    private _live;
    private _put;
    private _keep;
}
