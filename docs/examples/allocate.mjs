// Which cell a user is in, as every other service says it.
import { createHash } from "node:crypto";

export function slotOf(userId, salt) {
  const digest = createHash("sha256").update(`${salt}:${userId}`, "utf8").digest();
  return Number(digest.readBigUInt64LE(0) % 10000n);
}

/** cells: [{ name, share, slots: ["FIRST-LAST", ...] }, ...]; null for whoever is in none. */
export function allocate(userId, salt, cells) {
  const slot = slotOf(userId, salt);
  for (const { name, share, slots } of cells) {
    let left = share;
    for (const [first, last] of slots.map((range) => range.split("-").map(Number))) {
      if (first <= slot && slot <= last && slot - first < left) return name;
      left -= Math.min(left, last - first + 1);
    }
  }
  return null;
}
