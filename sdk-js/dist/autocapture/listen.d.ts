/** The same, but what fails is our loss: the page must not notice. */
export declare function safely<Given extends readonly unknown[]>(run: (...given: Given) => void): (...given: Given) => void;
/** Listens before the page's own listeners can stop an event, and never disturbs it. */
export declare function listen<Name extends keyof WindowEventMap>(name: Name, run: (event: WindowEventMap[Name]) => void): void;
