export interface Later {
    /** Does it when the page has time. */
    (run: () => void): void;
    /** Does all that waits, now. */
    readonly flush: () => void;
}
export declare function later(): Later;
