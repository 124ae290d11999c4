/** Who this browser is: an id that it was given, and the user that it was told of. Both outlive the page. */
import { uuid } from "./id.js";
import type { Store } from "./storage.js";

const ANONYMOUS = "mm_id"; // the cookie's name, too
const USER = "mm.user";
const YEAR_S = 31_536_000;

export class Identity {
  private _anonymousId: string | undefined;
  private _userId: string | undefined;

  constructor(private readonly _store: Store) {
    this._userId = _store.get(USER) ?? undefined;
  }

  get userId(): string | undefined {
    return this._userId;
  }

  /** The cookie's, which all pages of a site share; else localStorage's; else a new one. Both are made to agree. */
  get anonymousId(): string {
    if (this._anonymousId === undefined) this._keep(readCookie(ANONYMOUS) ?? this._store.get(ANONYMOUS) ?? uuid());
    return this._anonymousId!;
  }

  identify(userId: string): void {
    this._userId = userId;
    this._store.set(USER, userId);
  }

  /** Somebody else sits here now. */
  reset(): void {
    this._userId = undefined;
    this._store.remove(USER);
    this._keep(uuid());
  }

  private _keep(id: string): void {
    this._anonymousId = id;
    this._store.set(ANONYMOUS, id);
    try {
      const secure = location.protocol === "https:" ? "; Secure" : "";
      document.cookie = `${ANONYMOUS}=${id}; Path=/; Max-Age=${YEAR_S}; SameSite=Lax${secure}`;
    } catch {
      // A sandboxed frame has no cookies.
    }
  }
}

function readCookie(name: string): string | undefined {
  try {
    const found = document.cookie.split("; ").find((pair) => pair.startsWith(`${name}=`));
    return found?.slice(name.length + 1) || undefined;
  } catch {
    return undefined;
  }
}
