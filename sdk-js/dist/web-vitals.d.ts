import type { Plugin } from "./types.js";
/** `client.use(webVitals())`: an event `Web Vitals` of each page load. */
export declare function webVitals(): Plugin;
