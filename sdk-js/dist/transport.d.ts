/**
 * One request to the API, and what its answer means.
 *
 * `text/plain` and no header but the safelisted ones: a browser sends it at once, without a preflight that would be lost
 * as the page goes away.
 */
export interface Outcome {
    /** The HTTP status; 0 where no answer came. */
    readonly status: number;
    /** Milliseconds that the API asked to wait; 0 if it asked for nothing. */
    readonly waitMs: number;
}
/** A browser lets 64 KiB of a page's keepalive requests be under way at once; other code of the page has some. */
export declare const KEEPALIVE_BYTES = 56000;
export declare const TOO_LARGE = 413;
/** Whether the API will never take it, so that sending it again would change nothing. */
export declare function isRefusal(status: number): boolean;
export declare function post(url: string, text: string, gzip: boolean): Promise<Outcome>;
