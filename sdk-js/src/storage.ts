/** localStorage that never throws: where it is denied, full or absent, nothing is kept and nobody is told. */
export interface Store {
  get(key: string): string | null;
  /** Whether it is kept. */
  set(key: string, value: string): boolean;
  remove(key: string): void;
  keys(): string[];
}

export function openStore(): Store {
  const storage = <T>(use: (storage: Storage) => T, otherwise: T): T => {
    try {
      return use(localStorage);
    } catch {
      return otherwise;
    }
  };
  return {
    get: (key) => storage((kept) => kept.getItem(key), null),
    set: (key, value) =>
      storage((kept) => {
        kept.setItem(key, value);
        return true;
      }, false),
    remove: (key) => storage((kept) => kept.removeItem(key), undefined),
    keys: () => storage((kept) => Object.keys(kept), []),
  };
}
