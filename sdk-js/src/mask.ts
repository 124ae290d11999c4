/**
 * What looks like somebody's data, taken out of texts and addresses: payment cards (by their check digit), e-mail
 * addresses, US social security numbers, and telephone numbers that begin with a plus or are written as in the US.
 */
const HIDDEN = "***";

// Groups of digits with up to three characters between them. A UUID is passed over: its digits may look like a card's.
const NUMBER = /[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}|\d+([^a-z\d,:/?&=#%]{1,3}\d+)*/gi;
// An e-mail address, or a telephone number with a plus, or one of the US or a social security number.
const DATA =
  /[^\s@/?&=#:,;<>()"]{1,64}@[^\s@/?&=#:,;<>()"]+|\+\d[\d\s().+-]{6,}\d|\(?\b\d{3}\)?[\s.+-]{1,2}\d{2,3}[\s.+-]\d{4}\b/g;
// What has no match of this needs none of the others, which take a page that starts 0.3 ms to compile.
const SUSPECT = /[@=%]|\+\d|\d[^a-zA-Z,:/?&=#%]{9}/;
const CREDENTIALS = /\/\/[^/?#@]*@/;
const SECRET =
  /((pass[wcp]|pwd|secret|token|auth(?!or)|session|mail|phone|ssn|card|cv[cv]|otp|(pass|key|\bcode)(?=[=%\]]))[^/?&#=]{0,40}=)[^&#]*/gi;

export function mask(text: string): string {
  return SUSPECT.test(text) ? text.replace(NUMBER, hideCard).replace(DATA, HIDDEN) : text;
}

/** An address without credentials, the values of parameters whose names promise a secret, and what `mask` hides. */
export function maskUrl(url: string): string {
  if (!SUSPECT.test(url)) return url;
  const hide = (text: string): string => mask(text.replace(CREDENTIALS, "//").replace(SECRET, "$1" + HIDDEN));
  return hide(
    url.replace(/[^/?&#=]+/g, (part) => {
      const plain = unescape(unescape(unescape(part))); // never throws, unlike decodeURIComponent
      return plain === part || hide(plain) === plain ? part : HIDDEN;
    }),
  );
}

/** Nothing of the digits, if groups that stand together are a card's number. */
function hideCard(run: string): string {
  const groups = /[a-f]/i.test(run) ? [] : run.match(/\d+/g)!;
  for (let first = 0; first < groups.length; first++) {
    let digits = "";
    for (let next = first; next < groups.length && digits.length < 19; ) {
      digits += groups[next++];
      if (digits.length > 12 && digits.length < 20 && isCard(digits)) return HIDDEN;
    }
  }
  return run;
}

/** Luhn's check: every second digit from the right counts twice, and then its digits' sum. Cards begin with 2 to 6. */
function isCard(digits: string): boolean {
  let sum = 0;
  for (let at = digits.length, twice = 0; at--; twice ^= 1) sum += +(twice ? "0246813579"[+digits[at]!]! : digits[at]!);
  return !(sum % 10) && /^[2-6]/.test(digits);
}
