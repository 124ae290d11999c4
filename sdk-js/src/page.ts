/** The page as its events tell of it. Its id is made anew when the path changes, so that a virtual page has its own. */
import { uuid } from "./id.js";
import { maskUrl } from "./mask.js";
import type { Properties } from "./types.js";

export class Page {
  private _id = "";
  private _path: string | undefined;
  private _url = "";
  private _referrer = "";
  private _isViewed = false;

  /** What stands in `context.page`. */
  now(): Properties {
    const { href, pathname } = location;
    if (pathname !== this._path) {
      this._referrer = this._path === undefined ? maskUrl(document.referrer) : this._url; // the page before it
      this._path = pathname;
      this._begin();
    }
    this._url = maskUrl(href);
    const url = new URL(this._url);
    const search = url.search || undefined;
    const referrer = this._referrer || undefined;
    return { id: this._id, url: this._url, path: url.pathname, search, title: document.title, referrer };
  }

  /** As `now`, for a page view: a second one of the same path is one of its own. */
  view(): Properties {
    this.now();
    if (this._isViewed) this._begin();
    this._isViewed = true;
    return this.now();
  }

  private _begin(): void {
    this._id = uuid().slice(-12);
    this._isViewed = false;
  }
}
