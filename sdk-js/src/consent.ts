/** What holds of consent, and what it means for what is kept on the device. */
import { readCookie, writeCookie } from "./cookie.js";
import { ANONYMOUS } from "./identity.js";
import type { Store } from "./storage.js";
import type { Consent, Options } from "./types.js";

/** Where the person's own choice is kept: a refusal, too, since it must be remembered. */
export const CONSENT = "mm.consent";

/** What holds until the person chooses: what their browser says, else what the site says. */
export function defaultConsent(options: Options): Consent {
  const isPrivate = options.gpc !== false && (navigator as { globalPrivacyControl?: boolean }).globalPrivacyControl;
  return isPrivate ? "denied" : (options.consent ?? "granted");
}

/** Removes all that was kept, but for the choice itself. */
export function forgetAll(store: Store): void {
  for (const key of store.names()) {
    if (/^mm[._](?!consent)/.test(key)) store.erase(key);
  }
  if (readCookie(ANONYMOUS)) writeCookie(ANONYMOUS, "");
}
