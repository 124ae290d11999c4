/** Work that need not be done while somebody waits for an answer to a click. */
import { safely } from "./listen.js";

export interface Later {
  /** Does it when the page has time. */
  (run: () => void): void;
  /** Does all that waits, now. */
  readonly flush: () => void;
}

declare const scheduler: { postTask?(run: () => void, options: { priority: "background" }): Promise<void> } | undefined;

export function later(): Later {
  let waiting: (() => void)[] = [];
  const flush = (): void => {
    const runs = waiting;
    waiting = [];
    for (const run of runs) safely(run)();
  };
  const plan = (): void => {
    // An element with such an id would be there, too.
    if (typeof scheduler === "object" && scheduler.postTask) void scheduler.postTask(flush, { priority: "background" });
    else setTimeout(flush);
  };
  return Object.assign((run: () => void) => void (waiting.push(run) > 1 || plan()), { flush });
}
