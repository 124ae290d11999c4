import { type Store } from "./storage.js";
import type { Properties } from "./types.js";
export declare const ANONYMOUS = "mm_id";
interface User {
    readonly id?: string | null;
    readonly group?: string | null;
    /** What each event's properties begin with. */
    readonly properties?: Properties | null;
}
export declare class Identity {
    private readonly _store;
    private _anonymousId;
    private _user;
    constructor(_store: Store);
    get user(): User;
    /** The cookie's, which all pages of a site share; else localStorage's; else a new one. Both are made to agree. */
    get anonymousId(): string;
    /** Writes all of it again, which makes the id last another year. */
    keep(): void;
    set(user: User): void;
    /** Somebody else sits here now. */
    renew(): void;
    /** Another tab may have changed it. */
    look(): void;
}
export {};
