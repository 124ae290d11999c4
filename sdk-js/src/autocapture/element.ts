/**
 * What may be told of an element: its names and what it says, never what somebody put into it.
 *
 * A form's fields hide the form's own properties if they are called alike (`<input name="getAttribute">`), so all is
 * read through prototypes.
 */
import type { CallOptions, Core, Properties } from "../types.js";
import { maskUrl } from "../mask.js";

export type Path = readonly EventTarget[];

/** What is read at once, since the page may change it. */
export interface Raw {
  readonly _texts: readonly string[];
  readonly _properties: Properties;
  readonly _given: Properties;
}

const IGNORED = "[data-mm-ignore],[contenteditable]:not([contenteditable=false])";
const SILENT = IGNORED + ",label,input,select,textarea,datalist,script,style,template,noscript";
const MAX_NODES = 200; // that are looked at for a text
const MAX_RAW_CHARS = 1_000;
const MAX_CHARS: Record<string, number> = { text: 100, href: 1_000 };
const DOWNLOAD = /\.(pdf|docx?|xlsx?|pptx?|csv|txt|zip|gz|rar|7z|dmg|pkg|exe|msi|apk|mp[34]|mov|avi|wav|epub)$/i;
const LEVELS = 4; // of a selector

export const attribute = (element: Element, name: string): string | undefined =>
  Element.prototype.getAttribute.call(element, name) ?? undefined;

export const matches = (node: unknown, selector: string): node is Element =>
  node instanceof Element && Element.prototype.matches.call(node, selector);

export const tagOf = (element: Element): string => Reflect.get(Element.prototype, "localName", element) as string;

/** Whether the page asked to look away, or somebody writes here. */
export const isIgnored = (path: Path): boolean => path.some((node) => matches(node, IGNORED));

/** `says`: whether its text may be told. */
export function read(element: Element, path: Path, says: boolean): Raw {
  const texts: string[] = [];
  const left = { _nodes: MAX_NODES, _chars: MAX_RAW_CHARS };
  if (says && !path.some((node) => matches(node, SILENT))) gather(element, texts, left);
  return {
    _texts: texts,
    _properties: {
      tag: tagOf(element),
      id: attribute(element, "id"),
      classes: attribute(element, "class"),
      name: attribute(element, "name"),
      role: attribute(element, "role"),
      ariaLabel: attribute(element, "aria-label"),
      selector: selectorOf(path.slice(path.indexOf(element))),
      ...linkOf(element),
    },
    _given: given(element),
  };
}

/** The event, and its properties without what looks like somebody's data, none of it long. */
export function tell({ track }: Core, event: string, { _texts, _properties, _given }: Raw, options: CallOptions): void {
  const given = clean(_given);
  if (given["event"]) return track(given["event"] as string, { ...given, event: undefined }, options);
  const text = (separator: string): string => _texts.join(separator).replace(/\s+/g, " ").trim();
  // Parts of an e-mail address may stand in several elements.
  const hidden = _texts.length > 1 && maskUrl(text("")) !== text("");
  track(event, { ...clean({ ..._properties, text: hidden ? "***" : text(" ") }), ...given }, options);
}

function clean(properties: Properties): Properties {
  return Object.fromEntries(
    Object.entries(properties).map(([name, value]) => [
      name,
      typeof value === "string" ? maskUrl(value).slice(0, MAX_CHARS[name] ?? 200) || undefined : value,
    ]),
  );
}

export function urlOf(text: string): URL | undefined {
  try {
    return new URL(text, document.baseURI);
  } catch {
    return undefined;
  }
}

/** Where a link leads; of what leads to no page (`mailto:`) only the scheme. */
function linkOf(element: Element): Properties {
  const to = matches(element, "a,area") && (attribute(element, "href") ?? attribute(element, "xlink:href"));
  const url = typeof to === "string" && urlOf(to);
  if (!url) return {};
  const { protocol, host, href, pathname } = url;
  if (!protocol.startsWith("http")) return { href: protocol };
  return {
    href,
    outbound: host !== location.host || undefined,
    download: attribute(element, "download") !== undefined || DOWNLOAD.test(pathname) || undefined,
  };
}

/** What the page's author says of it: `data-mm-plan-name="pro"` is `planName: "pro"`. */
function given(element: Element): Properties {
  const found: Record<string, string | undefined> = {};
  for (const name of Element.prototype.getAttributeNames.call(element)) {
    if (name.startsWith("data-mm-")) {
      found[name.slice(8).replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())] = attribute(element, name);
    }
  }
  return found;
}

function gather(node: Node, texts: string[], left: { _nodes: number; _chars: number }): void {
  const next = (name: "firstChild" | "nextSibling", of: Node) => Reflect.get(Node.prototype, name, of) as Node | null;
  for (let child = next("firstChild", node); child && left._nodes-- > 0; child = next("nextSibling", child)) {
    if (child instanceof Text) {
      const text = child.data.slice(0, left._chars);
      left._chars -= text.length;
      if (text) texts.push(text);
    } else if (child instanceof Element && !matches(child, SILENT)) gather(child, texts, left);
  }
}

/** A readable path: `form#signup > div.row > button`. */
function selectorOf(path: Path): string {
  const parts: string[] = [];
  for (const node of path) {
    if (!(node instanceof Element) || parts.length === LEVELS) break;
    const [id] = plain(attribute(node, "id"));
    const classes = plain(attribute(node, "class")).slice(0, 3);
    parts.unshift(tagOf(node) + (id ? "#" + id : classes.map((name) => "." + name).join("")));
    if (id) break;
  }
  return parts.join(" > ");
}

/** The words that need no quoting in a selector. */
const plain = (words = ""): string[] => words.split(/\s+/).filter((word) => /^[a-z_][\w-]*$/i.test(word));
