/** The page as its events tell of it. Its id is made anew when the path changes, so that a virtual page has its own. */
import { uuid } from "./id.js";
import { mask, maskUrl } from "./mask.js";
import type { Properties } from "./types.js";

export class Page {
  private _id!: string;
  private _path: string | undefined;
  private _url: string | undefined;
  private _referrer!: string;
  private _isViewed: boolean | undefined;

  /** What stands in `context.page`. `isView`: of a page view; a second one of the same path is one of its own. */
  seen(isView?: boolean): Properties {
    const { href, pathname } = location;
    if (pathname !== this._path) {
      this._referrer = this._url ?? maskUrl(document.referrer); // the page before it
      this._path = pathname;
      this._id = "";
    }
    if (!this._id || (isView && this._isViewed)) {
      this._id = uuid().slice(-12);
      this._isViewed = false;
    }
    if (isView) this._isViewed = true;
    this._url = maskUrl(href);
    const { pathname: path, search } = this._url === href ? location : new URL(this._url);
    const title = mask("" + document.title);
    return { id: this._id, url: this._url, path, search: search || undefined, title, referrer: this._referrer || undefined };
  }
}
