import { type Part } from "./autocapture/pages.js";
import type { Plugin } from "./types.js";
/** All is on, unless it is `false`. */
export interface AutocaptureOptions {
    /** Page views: what of the address must change for another. Default `"path"`. */
    readonly pages?: Part | false;
    /**
     * `Page Left`, each time the page is hidden, turns into another or goes: `engagedMs` and `durationMs` since the last,
     * `scrollDepth` in percent. So a page view's times are sums over its `context.page.id`, its depth is the greatest.
     */
    readonly leave?: boolean;
    /** `Element Clicked`, or what the element's `data-mm-event` says. */
    readonly clicks?: boolean;
    /** `Form Submitted` and `Field Changed`. */
    readonly forms?: boolean;
    /** `Rage Click`: three within a second at one place. */
    readonly rage?: boolean;
    /** `Dead Click`: nothing happened for 2.5 seconds. */
    readonly dead?: boolean;
}
/** `client.use(autocapture())`. A page is captured once, by the first client that asks. */
export declare function autocapture(options?: AutocaptureOptions): Plugin;
