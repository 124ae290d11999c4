/** What of a browser the SDK's pure parts touch, for Node: localStorage, and no Web Locks. */
export class Items {
  readonly items: { [key: string]: string } = {};
  /** Characters that there is room for. */
  room = 5_000_000;
  /** How often something was written. */
  writes = 0;

  constructor() {
    const storage = new Proxy(this.items, {
      get: (items, name) =>
        ({
          getItem: (key: string) => items[key] ?? null,
          setItem: (key: string, value: string) => {
            this.writes++;
            if (value.length > this.room) throw new DOMException("full", "QuotaExceededError");
            items[key] = value;
          },
          removeItem: (key: string) => void delete items[key],
        })[name as string],
    });
    Object.defineProperty(globalThis, "localStorage", { configurable: true, value: storage });
  }
}

/** Lets promises and microtasks go on. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}
