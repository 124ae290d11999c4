import type { Properties } from "./types.js";
export declare class Page {
    private _id;
    private _path;
    private _url;
    private _referrer;
    private _isViewed;
    /** What stands in `context.page`. `isView`: of a page view; a second one of the same path is one of its own. */
    seen(isView?: boolean): Properties;
}
