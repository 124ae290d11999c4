/**
 * The classic script: `<script defer src="…/mm.js" data-key="…" data-host="…"></script>`. No inline code is needed, so a
 * strict Content-Security-Policy lets it through. The client is `window.manymetrics`.
 *
 * Where the page has the snippet, `window.manymetrics` is an array of calls already: `[name, time, arguments]`. They are
 * made, each with its own time, and the array becomes the client, so that who holds it can go on with it.
 */
import { type Client } from "./client.js";
declare global {
    interface Window {
        manymetrics?: Client;
    }
}
