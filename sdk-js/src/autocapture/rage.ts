/**
 * Clicks of somebody who has lost patience: three within a second at one place. Those that each change a text (a
 * counter, a calendar's months) are answered, and three clicks into a text select it: both are no rage.
 */
import type { Click } from "./clicks.js";
import { matches } from "./element.js";

const CLICKS = 3;
const WITHIN_MS = 1_000;
const WITHIN_PX = 30;
const CALM = "input:not([type=button],[type=submit]),select,textarea,label,video,audio,canvas";

interface Spot {
  readonly _x: number;
  readonly _y: number;
  readonly _at: number;
  _isAnswered: boolean;
}

export function rageClicks(): (click: Click) => void {
  let recent: Spot[] = [];
  let isTold = false;
  let end: ReturnType<typeof setTimeout> | undefined;
  const observer = new MutationObserver((changes) => {
    const last = recent.at(-1);
    if (last && changes.some(changesText)) last._isAnswered = true;
  });

  return ({ _event: { clientX, clientY, timeStamp, detail }, _element, _path, _tell }) => {
    if (!detail || _path.some((node) => matches(node, CALM))) return; // `detail` is 0 for a key
    recent = recent.filter(
      ({ _x, _y, _at }) => timeStamp - _at <= WITHIN_MS && Math.hypot(clientX - _x, clientY - _y) <= WITHIN_PX,
    );
    if (!recent.length) isTold = false;
    const isRage = recent.length >= CLICKS - 1 && recent.some(({ _isAnswered }) => !_isAnswered);
    recent.push({ _x: clientX, _y: clientY, _at: timeStamp, _isAnswered: false });
    if (isRage && !isTold && (_element || getSelection()?.type !== "Range")) {
      isTold = true;
      _tell("Rage Click");
    }
    observer.observe(document, { subtree: true, childList: true, characterData: true });
    clearTimeout(end);
    end = setTimeout(() => observer.disconnect(), WITHIN_MS);
  };
}

const changesText = ({ type, addedNodes }: MutationRecord): boolean =>
  type === "characterData" || [...addedNodes].some(({ textContent }) => textContent?.trim());
