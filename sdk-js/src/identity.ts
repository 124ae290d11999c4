/** Who this browser is: an id that it was given, and what it was told of its user. All of it outlives the page. */
import { readCookie, writeCookie } from "./cookie.js";
import { uuid } from "./id.js";
import { parse, type Store } from "./storage.js";
import type { Properties } from "./types.js";

export const ANONYMOUS = "mm_id"; // the cookie's name, too
const USER = "mm.user";

interface User {
  readonly id?: string;
  readonly group?: string;
  /** What each event's properties begin with. */
  readonly properties?: Properties;
}

export class Identity {
  private _anonymousId: string | undefined;
  private _user: User | undefined;

  constructor(private readonly _store: Store) {}

  get user(): User {
    return (this._user ??= (parse(this._store.get(USER)) as User | null) ?? {});
  }

  /** The cookie's, which all pages of a site share; else localStorage's; else a new one. Both are made to agree. */
  get anonymousId(): string {
    if (!this._anonymousId) {
      const cookie = this._store.isOpen ? readCookie(ANONYMOUS) : undefined;
      const known = [cookie, this._store.get(ANONYMOUS)].find((id) => id && /^[\w-]{8,64}$/.test(id));
      this._anonymousId = known ?? uuid();
      if (cookie !== this._anonymousId) this.keep();
    }
    return this._anonymousId;
  }

  /** Writes all of it again, which makes the id last another year. */
  keep(): void {
    this.set({});
    this._store.set(ANONYMOUS, this.anonymousId);
    if (this._store.isOpen) writeCookie(ANONYMOUS, this.anonymousId);
  }

  set(user: User): void {
    this._user = { ...this.user, ...user };
    this._store.set(USER, JSON.stringify(this._user));
  }

  /** Somebody else sits here now. */
  reset(): void {
    this._user = {};
    this._anonymousId = uuid();
    this.keep();
  }

  /** Another tab may have changed it. */
  look(): void {
    if (this._store.get(ANONYMOUS)) this._anonymousId = this._user = undefined;
  }
}
