/** What somebody clicked on. Clicks that a script makes are none. */
import type { Core } from "../types.js";
import { type Path, type Raw } from "./element.js";
import type { Later } from "./later.js";
export interface Click {
    readonly _event: MouseEvent;
    readonly _path: Path;
    /** What a person would say was clicked, if it is something to click on. */
    readonly _element: Element | undefined;
    readonly _raw: Raw;
    /** Sends an event of that name that tells of this click, in a while. */
    readonly _tell: (event: string) => void;
}
/** Calls each of `parts` with each click. */
export declare function watchClicks(core: Core, later: Later, parts: readonly ((click: Click) => void)[]): void;
