/**
 * One request to the API, and what its answer means.
 *
 * `text/plain` and no header but the safelisted ones: a browser sends it at once, without a preflight that would be lost
 * as the page goes away.
 */
export interface Outcome {
  /** The HTTP status; 0 where no answer came. */
  readonly status: number;
  /** Milliseconds that the API asked to wait; 0 if it asked for nothing. */
  readonly waitMs: number;
}

/** A browser lets 64 KiB of a page's keepalive requests be under way at once; other code of the page has some. */
export const KEEPALIVE_BYTES = 56_000;

export const TOO_LARGE = 413;
const NOT_NOW = [404, 405, 408, 409, 425, 429]; // a proxy that is being mended says the first two

/** Whether the API will never take it, so that sending it again would change nothing. */
export function isRefusal(status: number): boolean {
  return status >= 400 && status < 500 && !NOT_NOW.includes(status);
}

export async function post(url: string, text: string, gzip: boolean): Promise<Outcome> {
  try {
    const body = gzip ? await gzipped(text) : new TextEncoder().encode(text);
    const { status, headers } = await fetch(url, {
      method: "POST",
      body,
      headers: { "Content-Type": "text/plain" },
      keepalive: body.byteLength <= KEEPALIVE_BYTES,
      credentials: "omit",
      redirect: "error", // one that is followed may end as a GET of some page, whose 200 says nothing
      signal: AbortSignal.timeout?.(30_000) as AbortSignal,
    });
    return { status, waitMs: waitOf(headers.get("Retry-After")) };
  } catch {
    return { status: 0, waitMs: 0 };
  }
}

/** Of seconds, or of a date; null is 0. */
function waitOf(header: string | null): number {
  const seconds = +header!;
  return (seconds >= 0 ? seconds * 1000 : Date.parse(header!) - Date.now()) || 0;
}

async function gzipped(text: string): Promise<ArrayBuffer> {
  const stream = new Blob([text]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
