// Eight floats or four doubles at a time: the compiler's own vector types, which it maps on AVX2, or on pairs of SSE2
// or NEON registers. (Twice as wide would be split too, but its comparisons are taken apart one by one.)
#pragma once

#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

namespace {

constexpr int LANES = 8;
typedef float Floats __attribute__((vector_size(32)));
typedef int32_t Ints __attribute__((vector_size(32)));
constexpr int HALF = 4;
typedef double Doubles __attribute__((vector_size(32)));
typedef int64_t Longs __attribute__((vector_size(32)));
typedef float HalfFloats __attribute__((vector_size(16)));
typedef int32_t HalfInts __attribute__((vector_size(16)));

INLINE Floats floats(float value) { return Floats{} + value; }
INLINE Ints ints(int32_t value) { return Ints{} + value; }
INLINE Doubles doubles(double value) { return Doubles{} + value; }

template <class To, class From>
INLINE To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "bits() reinterprets");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

INLINE Floats load(const float* from) {
  Floats to;
  memcpy(&to, from, sizeof(to));
  return to;
}
INLINE void store(float* to, Floats from) { memcpy(to, &from, sizeof(from)); }

INLINE Floats minimum(Floats a, Floats b) { return a < b ? a : b; }
INLINE Floats maximum(Floats a, Floats b) { return a > b ? a : b; }

// Lanes 0-3 (half 0) or 4-7 (half 1).
INLINE void set_half(Floats& to, int half, Doubles from) {
  const HalfFloats x = __builtin_convertvector(from, HalfFloats);
  memcpy((char*)&to + 16 * half, &x, sizeof(x));
}
INLINE void set_half(Ints& to, int half, Longs from) {
  const HalfInts x = __builtin_convertvector(from, HalfInts);
  memcpy((char*)&to + 16 * half, &x, sizeof(x));
}
INLINE Doubles load_doubles(const float from[HALF]) {
  HalfFloats x;
  memcpy(&x, from, sizeof(x));
  return __builtin_convertvector(x, Doubles);
}
INLINE Floats zero_unless(Ints mask, Floats value) { return bits<Floats>(mask & bits<Ints>(value)); }

// One bit a lane whose mask is set.
INLINE int lane_bits(Ints mask) {
#if defined(__AVX2__)
  return _mm256_movemask_ps(bits<__m256>(mask));
#elif defined(__SSE2__)
  __m128 halves[2];
  memcpy(halves, &mask, sizeof(mask));
  return _mm_movemask_ps(halves[0]) | _mm_movemask_ps(halves[1]) << 4;
#else
  int found = 0;
  for (int lane = 0; lane < LANES; ++lane) found |= (mask[lane] & 1) << lane;
  return found;
#endif
}

// 2^x with a relative error below 3e-7 for -126 < x < 127; nonsense, but no trap, elsewhere.
INLINE Floats exp2_lanes(Floats x) {
  const Floats shift = floats(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  const Floats shifted = x + shift;
  const Floats f = x - (shifted - shift);
  Floats p = floats(1.32647276e-03f);
  p = p * f + 9.67151290e-03f;
  p = p * f + 5.55073374e-02f;
  p = p * f + 2.40222421e-01f;
  p = p * f + 6.93146978e-01f;
  p = p * f + 1.0f;
  return bits<Floats>(bits<Ints>(p) + (bits<Ints>(shifted) << 23));
}

// log2(x) within 1e-7 for normal x > 0; nonsense, but no trap, elsewhere.
INLINE Floats log2_lanes(Floats x) {
  const Ints biased = bits<Ints>(x) - 0x3f3504f3;  // sqrt(1/2), so that the mantissa ends up around 1
  const Floats mantissa = bits<Floats>((biased & 0x007fffff) + 0x3f3504f3);
  const Floats s = (mantissa - 1.0f) / (mantissa + 1.0f), ss = s * s;
  Floats p = floats(2.88539008f / 9);  // 2 / ln 2 times the series of artanh
  p = p * ss + 2.88539008f / 7;
  p = p * ss + 2.88539008f / 5;
  p = p * ss + 2.88539008f / 3;
  p = p * ss + 2.88539008f;
  return p * s + __builtin_convertvector(biased >> 23, Floats);
}

INLINE Floats square_root(Floats x) {
#if defined(__AVX__)
  return bits<Floats>(_mm256_sqrt_ps(bits<__m256>(x)));
#else
  for (int lane = 0; lane < LANES; ++lane) x[lane] = __builtin_sqrtf(x[lane]);
  return x;
#endif
}

// Rows become columns.
INLINE void transpose(Floats m[8]) {
  Floats a[8], b[8];
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = __builtin_shufflevector(m[2 * i], m[2 * i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    a[2 * i + 1] = __builtin_shufflevector(m[2 * i], m[2 * i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) {
      b[4 * i + 2 * j] = __builtin_shufflevector(a[4 * i + j], a[4 * i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      b[4 * i + 2 * j + 1] = __builtin_shufflevector(a[4 * i + j], a[4 * i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  for (int i = 0; i < 4; ++i) {
    m[i] = __builtin_shufflevector(b[i], b[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    m[i + 4] = __builtin_shufflevector(b[i], b[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

// Lane i of the result is the sum over the lanes of v[i].
INLINE Floats sum_of_each(const Floats v[8]) {
  Floats pairs[4], fours[2];
  for (int i = 0; i < 4; ++i) {
    const Floats a = v[2 * i], b = v[2 * i + 1];
    pairs[i] = __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) +
               __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
  }
  for (int i = 0; i < 2; ++i) {
    const Floats a = pairs[2 * i], b = pairs[2 * i + 1];
    fours[i] = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) +
               __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
  }
  return __builtin_shufflevector(fours[0], fours[1], 0, 1, 2, 3, 8, 9, 10, 11) +
         __builtin_shufflevector(fours[0], fours[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

INLINE float sum(Floats v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

}  // namespace
