/**
 * One request to the API, and what its answer means.
 *
 * `text/plain` and no header but the safelisted ones: a browser sends it at once, without a preflight that would be lost
 * as the page goes away.
 */
export type Outcome = {
    readonly kind: "accepted";
}
/** The API will never take it: sending it again would change nothing. */
 | {
    readonly kind: "refused";
    readonly status: number;
}
/** Not now. `waitMs`: what the API asked for, if it did. */
 | {
    readonly kind: "later";
    readonly waitMs?: number;
};
/** A browser lets about 64 kB of a page's keepalive requests be under way at once. */
export declare const KEEPALIVE_BYTES = 56000;
export declare function post(url: string, text: string): Promise<Outcome>;
