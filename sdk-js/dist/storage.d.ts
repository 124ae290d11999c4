/** localStorage that never throws: where it is denied, full or absent, nothing is kept and nobody is told. */
export declare class Store {
    /** Whether nothing may be kept on the device: a question of consent. */
    isShut: boolean | undefined;
    /** Null where there is none, undefined where nothing may be read. */
    read(key: string): string | null | undefined;
    /** Whether it is kept. */
    write(key: string, value: string): boolean;
    erase(key: string): void;
    names(): string[];
    private _use;
}
/** What JSON text says; null where it is no object, or nested too deep, or longer. Anybody may have written it. */
export declare function parse(text: unknown, most?: number): Kept | null;
/** Each field may be anything. */
export type Kept = {
    readonly [name: string]: unknown;
};
export declare function objectOf(value: unknown): Kept | null;
export declare function textOf(value: unknown): string | null;
export declare function numberOf(value: unknown): number;
/** Characters of what is kept of a user or a session and is read: each event holds it, and an event has its limit. */
export declare const MOST = 100000;
