/**
 * Clicks that nothing answers: within 2.5 seconds the document doesn't change, nothing scrolls, opens, plays, gets the
 * focus or is asked of a server. What can't be seen (a canvas, a custom element's inside) and what leads away or is
 * switched on already is left out: rather too few than a false one.
 */
import type { Click } from "./clicks.js";
import { attribute, matches, tagOf, urlOf, type Path } from "./element.js";
import { listen, safely } from "./listen.js";

const WAIT_MS = 2_500;
const PRESS_MS = 1_000;
const ASKS_WITHIN_MS = 300;
const QUIET =
  "input,select,[target]:not([target=_self]),[download],[aria-haspopup],[aria-expanded],[aria-disabled=true]," +
  "[aria-selected=true],[aria-checked=true],[aria-pressed=true],[aria-current]:not([aria-current=false])";
const ANSWERS = [
  "scroll submit reset invalid toggle beforetoggle fullscreenchange copy beforeprint contextmenu dragstart",
  "play pause seeking volumechange visibilitychange",
].join(" ");

export function deadClicks(): (click: Click) => void {
  let pressed: Path = [];
  let pressedAt = 0;
  let end: ReturnType<typeof setTimeout> | undefined;
  let isAnswered = false;

  const stop = (): void => {
    clearTimeout(end);
    changes.disconnect();
    requests.disconnect();
  };
  const answer = (): void => {
    isAnswered = true;
    stop();
  };
  const watch = (): void => {
    listen("focus", ({ target }) => target !== window && !pressed.includes(target!) && answer());
    listen("blur", ({ target }) => target === window && answer());
    for (const name of ANSWERS.split(" ")) listen(name as keyof WindowEventMap, answer);
  };
  const changes = new MutationObserver(answer);
  const requests = new PerformanceObserver((list) => {
    // Later ones are another's, or our own.
    const isAsked = ({ startTime }: PerformanceEntry): boolean =>
      startTime > pressedAt && startTime < pressedAt + ASKS_WITHIN_MS;
    if (list.getEntries().some(isAsked)) answer();
  });

  // Menus open as the button goes down, and the click that follows does nothing.
  listen("pointerdown", (event) => {
    stop();
    if (!pressedAt) watch(); // before that, there is nothing to answer
    isAnswered = false;
    pressed = event.composedPath();
    pressedAt = event.timeStamp;
    changes.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
    end = setTimeout(answer, PRESS_MS); // a drag, or whatever a long press does
  });

  return ({ _event, _element, _path, _tell }) => {
    clearTimeout(end);
    const { href } = location;
    if (isAnswered || !_element || !pressed.includes(_element)) return stop();
    requests.observe({ type: "resource" });
    const judge = (): void => {
      stop();
      if (location.href !== href || getSelection()?.type === "Range") return;
      if (shouldAct(_event, _element, _path)) _tell("Dead Click"); // unchanged since the click: that was answered
    };
    end = setTimeout(safely(judge), WAIT_MS);
  };
}

function shouldAct({ detail, ctrlKey, metaKey, shiftKey, altKey }: MouseEvent, element: Element, path: Path): boolean {
  if (!detail || ctrlKey || metaKey || shiftKey || altKey || document.querySelector("canvas")) return false; // 0: a key
  return !leads(attribute(element, "href")) && !path.some(isOpaque);
}

const withoutHash = (url = ""): string | undefined => urlOf(url)?.href.split("#")[0];
const leads = (to: string | undefined): boolean =>
  to !== undefined && !/^javascript:/i.test(to) && withoutHash(to) !== withoutHash(location.href);
const isOpaque = (node: EventTarget): boolean =>
  node instanceof ShadowRoot || (node instanceof Element && (tagOf(node).includes("-") || matches(node, QUIET)));
