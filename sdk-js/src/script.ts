/**
 * The classic script: `<script defer src="…/mm.js" data-key="…" data-host="…"></script>`. No inline code is needed, so a
 * strict Content-Security-Policy lets it through. The client is `window.manymetrics`.
 *
 * Where the page has the snippet, `window.manymetrics` is an array of calls already: `[name, time, arguments]`. They are
 * made, each with its own time, and the array becomes the client, so that who holds it can go on with it.
 */
import { autocapture } from "./autocapture.js";
import { readCall } from "./calls.js";
import { createClient, type Client } from "./client.js";
import type { Options } from "./types.js";

declare global {
  interface Window {
    manymetrics?: Client;
  }
}

/** The hashes of what may be loaded later, by name: put in by the build. */
declare const INTEGRITY: { readonly [name: string]: string };

/** With how many names or ids the calls begin that become events. */
const LEADING: { readonly [name: string]: number } = { track: 1, identify: 1, group: 1, alias: 2, page: 0, screen: 0 };

type Early = [name: keyof Client, time: number, given: unknown[]][];

const script = document.currentScript as HTMLScriptElement | null;
/** What the tag says of it. */
const said = (name: string): string | undefined => script?.getAttribute("data-" + name) ?? undefined;
const key = said("key");
const host = said("host") ?? (script?.src && new URL(script.src).origin);
const early = window.manymetrics as unknown as Early | undefined;
const isThere = early && !Array.isArray(early); // from another tag
const cure =
  (!script && "load mm.js with a classic script tag, not as a module") ||
  (!key && 'its script tag needs data-key="wk_...", a write key') ||
  (!["/", "http://", "https://"].some((start) => host?.startsWith(start)) &&
    'its script tag needs data-host="https://...", the address of the API');
if (cure && !isThere) console.error(`ManyMetrics sends nothing: ${cure}.`);
if (!cure && !isThere) {
  const client = createClient({
    key,
    host,
    path: said("path"),
    consent: said("consent"),
    gpc: said("gpc") !== "ignore",
    gzip: said("gzip") !== undefined,
  } as Options);
  window.manymetrics = early ? Object.assign(early, client) : client;
  for (const [name, time, given] of early?.splice(0) ?? []) replay(client, name, time, given);
  if (said("autocapture") !== "off") client.use(autocapture());
  if (said("vitals") !== undefined) load("mm-web-vitals.js");
  if (said("errors") !== undefined) load("mm-errors.js");
}

/** A call that was made before the client was there. */
function replay(client: Client, name: keyof Client, timestamp: number, given: unknown[]): void {
  const call = client[name] as (...given: unknown[]) => void;
  if (!(name in LEADING)) return call(...given);
  const { texts, fields, options, callback } = readCall(given, LEADING[name]!);
  call(...texts, fields ?? {}, { timestamp, ...options }, callback);
}

/** Beside this script, so that what holds for its place holds for them: a policy, a proxy, a version. */
function load(name: string): void {
  const { src, nonce, crossOrigin, integrity } = script!;
  const later = document.createElement("script");
  Object.assign(later, { nonce, crossOrigin, integrity: integrity && INTEGRITY[name], src: new URL(name, src).href });
  document.head.append(later);
}
