/**
 * A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random ones, so that ids sort by their time.
 */
export declare function uuid(now?: number): string;
