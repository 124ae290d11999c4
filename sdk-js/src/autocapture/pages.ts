/**
 * When the page becomes another one without a load: when its address changes in a part that counts, however it came to
 * that. What sets the same address again, as routers do, is nothing.
 */
import { safely } from "./listen.js";

export type Part = "path" | "search" | "hash";

const SETTLE_MS = 100;

/**
 * `view` is called for the page that is there, and when the address has changed: as soon as the title should be right,
 * and a router is done with sending visitors on (what they only pass through is no page). `turn` is called at the
 * change. Returns what does a view at once that is due.
 */
export function watchPages(part: Part, turn: () => void, view: () => void): () => void {
  const here = (): string =>
    location.pathname + (part === "path" ? "" : location.search) + (part === "hash" ? location.hash : "");
  let at = here();
  let isDue = true;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const settle = (): void => {
    if (isDue) view();
    isDue = false;
    clearTimeout(timer);
  };
  onAddress(
    safely(() => {
      if (here() === at) return;
      at = here();
      turn();
      isDue = true;
      clearTimeout(timer);
      timer = setTimeout(safely(settle), SETTLE_MS);
    }),
  );
  // Not while the page's scripts are read: it is the dearest event, since storage and cookies are looked at first.
  if (document.title || document.readyState !== "loading") setTimeout(safely(settle));
  else addEventListener("DOMContentLoaded", safely(settle));
  return settle;
}

function onAddress(check: () => void): void {
  // An element with such an id would be there, too; and a sandboxed frame has a navigation that tells nothing.
  if (typeof navigation === "object" && navigation?.currentEntry) {
    navigation.addEventListener("currententrychange", check);
    return;
  }
  for (const name of ["pushState", "replaceState"] as const) {
    const original = history[name]; // another's wrapper, perhaps
    history[name] = (...given) => {
      original.apply(history, given);
      check();
    };
  }
  addEventListener("popstate", check);
  addEventListener("hashchange", check);
}
