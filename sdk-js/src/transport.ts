/**
 * One request to the API, and what its answer means.
 *
 * `text/plain` and no header but the safelisted ones: a browser sends it at once, without a preflight that would be lost
 * as the page goes away.
 */
export type Outcome =
  | { readonly kind: "accepted" }
  /** The API will never take it: sending it again would change nothing. */
  | { readonly kind: "refused"; readonly status: number }
  /** Not now. `waitMs`: what the API asked for, if it did. */
  | { readonly kind: "later"; readonly waitMs?: number };

/** A browser lets about 64 kB of a page's keepalive requests be under way at once. */
export const KEEPALIVE_BYTES = 56_000;

export async function post(url: string, text: string): Promise<Outcome> {
  try {
    const body = new TextEncoder().encode(text); // the browser counts bytes, and fails what is over its limit
    const answer = await fetch(url, {
      method: "POST",
      body,
      headers: { "Content-Type": "text/plain" },
      keepalive: body.length <= KEEPALIVE_BYTES,
      credentials: "omit",
      signal: AbortSignal.timeout(30_000),
    });
    if (answer.ok) return { kind: "accepted" };
    if (answer.status < 500 && ![408, 425, 429].includes(answer.status)) {
      return { kind: "refused", status: answer.status };
    }
    const seconds = Number(answer.headers.get("Retry-After") ?? NaN);
    return seconds >= 0 ? { kind: "later", waitMs: seconds * 1000 } : { kind: "later" };
  } catch {
    return { kind: "later" };
  }
}
