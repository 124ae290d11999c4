/**
 * The classic script: `<script defer src="…/mm.js" data-key="…" data-host="…"></script>`. No inline code is needed, so a
 * strict Content-Security-Policy lets it through. The client is `window.manymetrics`.
 */
import { type Client } from "./client.js";
declare global {
    interface Window {
        manymetrics?: Client;
    }
}
