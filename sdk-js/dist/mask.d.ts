export declare function mask(text: string): string;
/** An address without credentials, the values of parameters whose names promise a secret, and what `mask` hides. */
export declare function maskUrl(url: string): string;
