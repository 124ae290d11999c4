/** What somebody clicked on. Clicks that a script makes are none. */
import type { Core } from "../types.js";
import { isIgnored, matches, read, tell, type Path, type Raw } from "./element.js";
import type { Later } from "./later.js";
import { listen } from "./listen.js";

export interface Click {
  readonly _event: MouseEvent;
  readonly _path: Path;
  /** What a person would say was clicked, if it is something to click on. */
  readonly _element: Element | undefined;
  readonly _raw: Raw;
  /** Sends an event of that name that tells of this click, in a while. */
  readonly _tell: (event: string) => void;
}

const ROLES = ["button", "link", "tab", "option", "switch", "checkbox", "radio", "treeitem"];
const CLICKABLE =
  "a,area,button,summary,[onclick]:not(html,body,form),[data-mm-event]:not(form)," +
  "[type=button],[type=submit],[type=image],[type=reset],[type=checkbox],[type=radio],[role^=menuitem]," +
  ROLES.map((role) => `[role=${role}]`).join();
const FIELD = "input,select,textarea,label"; // a label's click comes again as its field's

/** Calls each of `parts` with each click. */
export function watchClicks(core: Core, later: Later, parts: readonly ((click: Click) => void)[]): void {
  listen("click", (event) => {
    const path = event.composedPath();
    if (!event.isTrusted || isIgnored(path)) return;
    const element = clickableIn(path);
    const told = element ?? path.find((node) => node instanceof Element);
    if (!told) return;
    const raw = read(told, path, !!element);
    const options = { timestamp: Date.now(), context: { page: core.pageNow() } };
    const click = {
      _event: event,
      _path: path,
      _element: element,
      _raw: raw,
      _tell: (name: string) => later(() => tell(core, name, raw, options)),
    };
    for (const part of parts) part(click);
  });
}

function clickableIn(path: Path): Element | undefined {
  for (const node of path) {
    if (matches(node, CLICKABLE)) return node;
    if (matches(node, FIELD)) return undefined;
  }
  return undefined;
}
