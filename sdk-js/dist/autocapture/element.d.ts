/**
 * What may be told of an element: its names and what it says, never what somebody put into it.
 *
 * A form's fields hide the form's own properties if they are called alike (`<input name="getAttribute">`), so all is
 * read through prototypes.
 */
import type { CallOptions, Core, Properties } from "../types.js";
export type Path = readonly EventTarget[];
/** What is read at once, since the page may change it. */
export interface Raw {
    readonly _texts: readonly string[];
    readonly _properties: Properties;
    readonly _given: Properties;
}
export declare const attribute: (element: Element, name: string) => string | undefined;
export declare const matches: (node: unknown, selector: string) => node is Element;
export declare const tagOf: (element: Element) => string;
/** Whether the page asked to look away, or somebody writes here. */
export declare const isIgnored: (path: Path) => boolean;
/** `says`: whether its text may be told. */
export declare function read(element: Element, path: Path, says: boolean): Raw;
/** The event, and its properties without what looks like somebody's data, none of it long. */
export declare function tell({ track }: Core, event: string, { _texts, _properties, _given }: Raw, options: CallOptions): void;
export declare function urlOf(text: string): URL | undefined;
