import type { Store } from "./storage.js";
export declare class Identity {
    private readonly _store;
    private _anonymousId;
    private _userId;
    constructor(_store: Store);
    get userId(): string | undefined;
    /** The cookie's, which all pages of a site share; else localStorage's; else a new one. Both are made to agree. */
    get anonymousId(): string;
    identify(userId: string): void;
    /** Somebody else sits here now. */
    reset(): void;
    private _keep;
}
