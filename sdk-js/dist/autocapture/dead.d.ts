/**
 * Clicks that nothing answers: within 2.5 seconds the document doesn't change, nothing scrolls, opens, plays, gets the
 * focus or is asked of a server. What can't be seen (a canvas, a custom element's inside) and what leads away or is
 * switched on already is left out: rather too few than a false one.
 */
import type { Click } from "./clicks.js";
export declare function deadClicks(): (click: Click) => void;
