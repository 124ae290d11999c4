import assert from "node:assert/strict";
import { test } from "node:test";
import { uuid } from "../../src/id.js";

const LAYOUT = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

test("an id has the layout of a UUID of version 7", () => {
  for (let times = 0; times < 1_000; times++) assert.match(uuid(), LAYOUT);
});

test("an id begins with the milliseconds of its time", () => {
  // RFC 9562, appendix A.6
  assert.equal(uuid(0x017f22e279b0).slice(0, 13), "017f22e2-79b0");
  assert.equal(uuid(0).slice(0, 13), "00000000-0000");
  assert.equal(uuid(2 ** 48 - 1).slice(0, 13), "ffffffff-ffff");
});

test("ids sort by their time", () => {
  const times = [0, 1, 255, 256, 65_535, 65_536, 2 ** 32 - 1, 2 ** 32, Date.now(), 2 ** 48 - 1];
  const ids = times.map((time) => uuid(time));

  assert.deepEqual(ids.toSorted(), ids);
});

test("a hundred thousand ids of one millisecond differ, and use every bit that is theirs", () => {
  const ids = Array.from({ length: 100_000 }, () => uuid(0));

  assert.equal(new Set(ids).size, ids.length);
  const numbers = ids.map((id) => BigInt(`0x${id.replaceAll("-", "")}`));
  const ever = numbers.reduce((all, one) => all | one, 0n);
  const always = numbers.reduce((all, one) => all & one);
  assert.equal(ever, (0x7fffn << 64n) | 0xbfff_ffff_ffff_ffffn);
  assert.equal(always, (0x7000n << 64n) | 0x8000_0000_0000_0000n);
});
