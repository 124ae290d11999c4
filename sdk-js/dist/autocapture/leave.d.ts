/**
 * How long a page was looked at, and how far. `Page Left` is told when the page turns into another, is hidden or goes,
 * each time with what came since the last: a hidden page may come back, or be gone without a word. So the times of a
 * page view are the sums of its events', its depth the greatest.
 */
import type { Core, Properties } from "../types.js";
export interface Leave {
    /** A page view has begun. */
    readonly begin: (page: Properties) => void;
    /** What is new of it. */
    readonly report: () => void;
    readonly end: () => void;
}
export declare function watchLeave(core: Core): Leave;
