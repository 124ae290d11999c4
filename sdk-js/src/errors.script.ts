/** The classic script, to stand after `mm.js`: `<script defer src="…/mm-errors.js"></script>`. */
import type {} from "./script.js";
import { captureErrors } from "./errors.js";

window.manymetrics?.use(captureErrors());
