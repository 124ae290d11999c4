/** localStorage that never throws: where it is denied, full or absent, nothing is kept and nobody is told. */
export class Store {
  /** Whether anything may be kept on the device: a question of consent. */
  isOpen = true;

  get(key: string): string | null {
    return this._use((kept) => kept.getItem(key), null);
  }

  /** Whether it is kept. */
  set(key: string, value: string): boolean {
    return this._use((kept) => {
      kept.setItem(key, value);
      return true;
    }, false);
  }

  remove(key: string): void {
    this._use((kept) => kept.removeItem(key));
  }

  keys(): string[] {
    return this._use((kept) => Object.keys(kept), []);
  }

  private _use<T>(use: (storage: Storage) => T, otherwise?: T): T {
    try {
      return this.isOpen ? use(localStorage) : otherwise!;
    } catch {
      return otherwise!;
    }
  }
}

/** What JSON text says; null where it is none. */
export function parse(text: string | null): unknown {
  try {
    return JSON.parse(text as string); // null is read as its text
  } catch {
    return null;
  }
}
