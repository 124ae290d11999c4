/** localStorage that never throws: where it is denied, full or absent, nothing is kept and nobody is told. */
export declare class Store {
    /** Whether anything may be kept on the device: a question of consent. */
    isOpen: boolean;
    get(key: string): string | null;
    /** Whether it is kept. */
    set(key: string, value: string): boolean;
    remove(key: string): void;
    keys(): string[];
    private _use;
}
/** What JSON text says; null where it is none. */
export declare function parse(text: string | null): unknown;
