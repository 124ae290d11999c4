/** The classic script, to stand after `mm.js`: `<script defer src="…/mm-web-vitals.js"></script>`. */
import type {} from "./script.js";
import { webVitals } from "./web-vitals.js";

window.manymetrics?.use(webVitals());
