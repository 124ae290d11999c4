/** One small cookie for all subdomains of a site. Nothing throws: a sandboxed frame has no cookies. */

const YEAR_S = 31_536_000;
let site: string | undefined; // looked for once a page

export function readCookie(name: string): string | undefined {
  try {
    return `; ${document.cookie}`.split(`; ${name}=`)[1]?.split(";")[0];
  } catch {
    // As said above.
  }
}

/** An empty value removes it. */
export function writeCookie(name: string, value: string): void {
  put(name, value, (site ??= siteOf(location.hostname)));
}

/** The shortest domain that the browser lets this page set a cookie for; none of an address or a name without a dot. */
function siteOf(hostname: string): string {
  const parts = /\d$/.test(hostname) ? [] : hostname.split(".");
  for (let count = 2; count < parts.length; count++) {
    const domain = parts.slice(-count).join(".");
    put("mm_p", "1", domain);
    const isSet = readCookie("mm_p");
    put("mm_p", "", domain);
    if (isSet) return domain;
  }
  return parts[1] ? hostname : "";
}

function put(name: string, value: string, domain: string): void {
  try {
    const secure = location.protocol === "https:" ? "; Secure" : "";
    const where = domain && "; Domain=" + domain;
    document.cookie = `${name}=${value}; Path=/; Max-Age=${value ? YEAR_S : 0}; SameSite=Lax${where}${secure}`;
  } catch {
    // As said above.
  }
}
