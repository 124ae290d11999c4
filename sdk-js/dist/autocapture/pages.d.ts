export type Part = "path" | "search" | "hash";
/**
 * `view` is called for the page that is there, and when the address has changed: as soon as the title should be right,
 * and a router is done with sending visitors on (what they only pass through is no page). `turn` is called at the
 * change. Returns what does a view at once that is due.
 */
export declare function watchPages(part: Part, turn: () => void, view: () => void): () => void;
