import { type Part } from "./autocapture/pages.js";
import type { Plugin } from "./types.js";
/** All is on, unless it is `false`. */
export interface AutocaptureOptions {
    /** Page views: what of the address must change for another. Default `"path"`. */
    readonly pages?: Part | false;
    /** `Page Left`, with `engagedMs`, `durationMs` and `scrollDepth`. */
    readonly leave?: boolean;
    /** `Element Clicked`. */
    readonly clicks?: boolean;
    /** `Form Submitted` and `Field Changed`. */
    readonly forms?: boolean;
    /** `Rage Click`. */
    readonly rage?: boolean;
    /** `Dead Click`. */
    readonly dead?: boolean;
}
/** `client.use(autocapture())`. A page is captured once, by the first client that asks. */
export declare function autocapture(options?: AutocaptureOptions): Plugin;
