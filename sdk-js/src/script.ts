/**
 * The classic script: `<script defer src="…/mm.js" data-key="…" data-host="…"></script>`. No inline code is needed, so a
 * strict Content-Security-Policy lets it through. The client is `window.manymetrics`.
 */
import { createClient, type Client } from "./client.js";

declare global {
  interface Window {
    manymetrics?: Client;
  }
}

const { key, host, path } = (document.currentScript as HTMLScriptElement | null)?.dataset ?? {};
if (key && host && !window.manymetrics) {
  window.manymetrics = createClient({ key, host, ...(path && { path }) });
  window.manymetrics.page();
}
