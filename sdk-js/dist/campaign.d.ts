/** Which campaign led here, as the page's address says it. */
import type { Properties } from "./types.js";
export type Campaign = Properties;
/** `context.campaign` for a query string; undefined where it names none. */
export declare function campaignOf(search: string | undefined): Campaign | undefined;
