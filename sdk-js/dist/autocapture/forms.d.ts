/** That a form was submitted, and which of its fields were changed: never what stands in them. */
import type { Core } from "../types.js";
import type { Later } from "./later.js";
export declare function watchForms(core: Core, later: Later): void;
