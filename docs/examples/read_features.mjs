// Features from Redis without a library; docs/reference/redis.md says what every byte means.
import { crc32 } from "node:zlib";

export const featuresKey = (variant, userId) =>
  `st:f:{${(crc32(userId) & 255).toString(16).padStart(2, "0")}}:${variant}:${userId}`;

function half(bits) {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const size = exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24;
  return bits >> 15 ? -size : size;
}

/** Decode one value (a Buffer); null if it is absent, broken, or of a version that came later. */
export function decodeFeatures(value) {
  if (!value || value.length < 64 || value.toString("latin1", 0, 2) !== "SF" || value[2] !== 1) return null;
  const [dtype, nVectors, nFactors] = [value[3], value[4], value.readUInt16LE(6)];
  const width = { 1: 4, 2: 2 }[dtype];
  if (value.length !== 64 + nVectors * nFactors * width) return null;
  const at = (i) => (dtype === 2 ? half(value.readUInt16LE(64 + 2 * i)) : value.readFloatLE(64 + 4 * i));
  return {
    modelId: value.readBigUInt64LE(8).toString(16).padStart(16, "0"), // multiply with no other model's items
    historyDigest: value.readBigUInt64LE(16),
    generation: value.readUInt32LE(24),
    asOfMs: Number(value.readBigUInt64LE(32)),
    nSolved: value.readUInt16LE(50), // 0: a cold user, the vectors are zero
    vectors: Array.from({ length: nVectors }, (_, v) => Array.from({ length: nFactors }, (_, f) => at(v * nFactors + f))),
  };
}

const unit = (vector) => vector.map((x) => x / (Math.hypot(...vector) || 1));

/** The vector to multiply with the items; halfLifeSeconds is the model's blend_half_life_s. */
export function blend({ vectors, asOfMs }, nowMs, halfLifeSeconds) {
  const g = 2 ** (-Math.max(0, nowMs - asOfMs) / 1000 / halfLifeSeconds);
  const [recent, lasting = recent] = vectors.map(unit);
  return recent.map((x, f) => g * x + (1 - g) * lasting[f]);
}
