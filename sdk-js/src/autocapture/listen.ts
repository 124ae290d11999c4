/** The same, but what fails is our loss: the page must not notice. */
export function safely<Given extends readonly unknown[]>(run: (...given: Given) => void): (...given: Given) => void {
  return (...given) => {
    try {
      run(...given);
    } catch {
      // As above.
    }
  };
}

/** Listens before the page's own listeners can stop an event, and never disturbs it. */
export function listen<Name extends keyof WindowEventMap>(
  name: Name,
  run: (event: WindowEventMap[Name]) => void,
): void {
  addEventListener(name, safely(run), { capture: true, passive: true });
}
