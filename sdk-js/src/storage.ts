/** localStorage that never throws: where it is denied, full or absent, nothing is kept and nobody is told. */
export class Store {
  /** Whether nothing may be kept on the device: a question of consent. */
  isShut: boolean | undefined;

  /** Null where there is none, undefined where nothing may be read. */
  read(key: string): string | null | undefined {
    return this._use<string | null | undefined>((kept) => kept.getItem(key));
  }

  /** Whether it is kept. */
  write(key: string, value: string): boolean {
    return !this._use<unknown>((kept) => kept.setItem(key, value), true);
  }

  erase(key: string): void {
    return this._use((kept) => kept.removeItem(key));
  }

  names(): string[] {
    return this._use(Object.keys, []);
  }

  private _use<T>(use: (storage: Storage) => T, otherwise?: T): T {
    try {
      return this.isShut ? otherwise! : use(localStorage);
    } catch {
      return otherwise!;
    }
  }
}

/** What JSON text says; null where it is no object, or nested too deep, or longer. Anybody may have written it. */
export function parse(text: unknown, most = Infinity): Kept | null {
  try {
    const json = textOf(text) ?? "null"; // nothing is kept on a first visit, and an exception takes 0.2 ms
    const value: unknown = json.length > most || JSON.parse(json);
    // Throws where it is too deep to be sent.
    if (json.length > SHALLOW) JSON.stringify(value, (_key, inner: unknown) => inner);
    return objectOf(value);
  } catch {
    return null;
  }
}

/** What has no more characters is not nested too deep. */
const SHALLOW = 1_000;

/** Each field may be anything. */
export type Kept = { readonly [name: string]: unknown };

export function objectOf(value: unknown): Kept | null {
  return typeof value === "object" ? (value as Kept) : null;
}

export function textOf(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

export function numberOf(value: unknown): number {
  return +JSON.stringify(value);
}

/** Characters of what is kept of a user or a session and is read: each event holds it, and an event has its limit. */
export const MOST = 100_000;
