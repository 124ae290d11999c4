/** localStorage that never throws: where it is denied, full or absent, nothing is kept and nobody is told. */
export interface Store {
    get(key: string): string | null;
    /** Whether it is kept. */
    set(key: string, value: string): boolean;
    remove(key: string): void;
    keys(): string[];
}
export declare function openStore(): Store;
