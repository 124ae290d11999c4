import type { Plugin, Properties } from "./types.js";
export interface ErrorOptions {
    /** Errors that are passed over: it is tried on `name: message` and the lines of the stack after that. */
    readonly ignore?: RegExp;
}
/** `client.use(captureErrors())`: an event `Error` for what nobody caught. */
export declare function captureErrors({ ignore }?: ErrorOptions): Plugin;
/** An event `Error` for what the page has caught. Nothing happens before `client.use(captureErrors())`. */
export declare function captureError(error: unknown, properties?: Properties): void;
