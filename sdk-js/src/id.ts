/**
 * A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random ones, so that ids sort by their time.
 */
export function uuid(now: number = Date.now()): string {
  const bytes = [...crypto.getRandomValues(new Uint8Array(10))];
  const time = now.toString(16).padStart(12, "0");
  const random = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const variant = "89ab"[bytes[9]! & 3]! + random.slice(3, 6);
  return [time.slice(0, 8), time.slice(8), "7" + random.slice(0, 3), variant, random.slice(6, 18)].join("-");
}
