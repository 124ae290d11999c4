import type { CallOptions, Properties } from "./types.js";
export type Callback = () => void;
export interface Call {
    /** The names or ids that it begins with. */
    readonly texts: string[];
    /** Properties or traits. */
    readonly fields?: Properties | undefined;
    readonly options?: CallOptions | undefined;
    readonly callback?: Callback | undefined;
}
/** `leading`: how many names or ids the call begins with; 0 where any of them may be left out. */
export declare function readCall(given: readonly unknown[], leading: number): Call;
