/** One small cookie for all subdomains of a site. Nothing throws: a sandboxed frame has no cookies. */
export declare function readCookie(name: string): string | undefined;
/** An empty value removes it. */
export declare function writeCookie(name: string, value: string): void;
