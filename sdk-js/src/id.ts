/**
 * A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random ones, so that ids sort by their time.
 */
export function uuid(now: number = Date.now()): string {
  const numbers = crypto.getRandomValues(new Uint32Array(3));
  const time = now.toString(16).padStart(12, "0");
  let random = ""; // eight digits of each
  for (const number of numbers) random += (number + 2 ** 32).toString(16).slice(1);
  const variant = "89ab"[numbers[0]! & 3]! + random.slice(3, 6);
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(0, 3)}-${variant}-${random.slice(12)}`;
}
