import type { Store } from "./storage.js";
import type { Consent, Options } from "./types.js";
/** Where the person's own choice is kept: a refusal, too, since it must be remembered. */
export declare const CONSENT = "mm.consent";
/** What the person said here, what their browser says, what the site says: the first that there is. */
export declare function consentOf(store: Store, options: Options): Consent;
/** Removes all that was kept, but for the choice itself. */
export declare function forgetAll(store: Store): void;
