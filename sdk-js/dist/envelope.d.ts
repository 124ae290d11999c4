/** The body of a request. What its events have in common stands in it once. */
import type { Batch } from "./queue.js";
export declare const VERSION = "0.1.0";
/** `dropped`: how many events were lost since this was last said. */
export declare function envelope(writeKey: string, { shared, events }: Batch, dropped: number): string;
