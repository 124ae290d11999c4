/**
 * The classic script: `<script defer src="…/mm.js" data-key="…" data-host="…"></script>`. No inline code is needed, so a
 * strict Content-Security-Policy lets it through. The client is `window.manymetrics`.
 *
 * Where the page has the snippet, `window.manymetrics` is an array of calls already: `[name, time, arguments]`. They are
 * made, each with its own time, and the array becomes the client, so that who holds it can go on with it.
 */
import { createClient, type Client } from "./client.js";
import type { Options } from "./types.js";

declare global {
  interface Window {
    manymetrics?: Client;
  }
}

type Early = [name: string, time: number, given: unknown[]][];

const script = document.currentScript as HTMLScriptElement | null;
const { key, host, path, consent, gpc, gzip } = script?.dataset ?? {};
const early = window.manymetrics as unknown as Early | undefined;
if (key && host && (!early || Array.isArray(early))) {
  const options = { key, host, path, consent, gpc: gpc !== "ignore", gzip: gzip !== undefined };
  const client = createClient(options as Options);
  window.manymetrics = early ? Object.assign(early, client) : client;
  client.page();
}
