/** Who this browser is: an id that it was given, and what it was told of its user. All of it outlives the page. */
import { readCookie, writeCookie } from "./cookie.js";
import { uuid } from "./id.js";
import { MOST, objectOf, parse, textOf, type Kept, type Store } from "./storage.js";
import type { Properties } from "./types.js";

export const ANONYMOUS = "mm_id"; // the cookie's name, too
const USER = "mm.user";

interface User {
  readonly id?: string | null;
  readonly group?: string | null;
  /** What each event's properties begin with. */
  readonly properties?: Properties | null;
}

export class Identity {
  private _anonymousId: string | undefined;
  private _user: User | undefined;

  constructor(private readonly _store: Store) {}

  get user(): User {
    return (this._user ??= userOf(parse(this._store.read(USER), MOST) ?? {}));
  }

  /** The cookie's, which all pages of a site share; else localStorage's; else a new one. Both are made to agree. */
  get anonymousId(): string {
    if (!this._anonymousId && !this._find()) this.keep();
    return this._anonymousId!;
  }

  /** Whether the cookie has it. */
  private _find(): boolean {
    const cookie = this._store.isShut ? undefined : readCookie(ANONYMOUS);
    const known = [cookie, this._store.read(ANONYMOUS)].find((id) => id && /^[\w-]{8,64}$/.test(id));
    this._anonymousId = known ?? uuid();
    return cookie === this._anonymousId;
  }

  /** Writes the id again, which makes it last another year. */
  keep(): void {
    if (!this._anonymousId) this._find();
    this._store.write(ANONYMOUS, this._anonymousId!);
    if (!this._store.isShut) writeCookie(ANONYMOUS, this._anonymousId!);
  }

  set(user: User): void {
    this._user = { ...this.user, ...user };
    this._store.write(USER, JSON.stringify(this._user));
  }

  /** Somebody else sits here now. */
  renew(): void {
    this._user = {};
    this._anonymousId = uuid();
    this.set({});
    this.keep();
  }

  /** Another tab may have changed it. */
  look(): void {
    if (this._store.read(ANONYMOUS)) this._anonymousId = this._user = undefined;
  }
}

function userOf({ id, group, properties }: Kept): User {
  return { id: textOf(id), group: textOf(group), properties: objectOf(properties) as Properties };
}
