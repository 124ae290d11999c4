/**
 * Clicks of somebody who has lost patience: three within a second at one place. Those that each change a text (a
 * counter, a calendar's months) are answered, and three clicks into a text select it: both are no rage.
 */
import type { Click } from "./clicks.js";
export declare function rageClicks(): (click: Click) => void;
