// The evidence along rays of pixels of one owner, a ray in each lane of the widest vectors there are. Compiled once
// for each instruction set, with LRM4D_EVIDENCE as the kernel's name. No standard library containers here: their code
// would be shared by the linker between the instruction sets.
#include "evidence.h"

#include <string.h>

#include <utility>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
// The compiler's own vectors: AVX-512, AVX2, SSE2, NEON or whatever there is.
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef float Rgba __attribute__((vector_size(16)));
typedef float TwoRgba __attribute__((vector_size(32)));

// One place on each ray in one picture: the bilinear look-up's texel (bytes) and fractions, and what was found.
struct alignas(64) Lookup {
  float samples[4 * LANES];
  float x[LANES], y[LANES];
  int32_t offsets[LANES];
  const Witness* witness;
};

// Look-ups that are under way: enough that memory answers meanwhile, few enough to stay near.
constexpr int GROUP = 8;

template <class To, class From>
INLINE To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "bits() reinterprets");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

template <class To>
INLINE To load(const void* from) {
  To to;
  memcpy(&to, from, sizeof(to));
  return to;
}

template <class From>
INLINE void store(void* to, From from) {
  memcpy(to, &from, sizeof(from));
}

INLINE Floats floats(float value) { return value - Floats{}; }
INLINE Floats minimum(Floats a, Floats b) { return a < b ? a : b; }
INLINE Floats maximum(Floats a, Floats b) { return a < b ? b : a; }

INLINE bool any(Ints mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX__)
  return _mm256_movemask_ps((__m256)mask) != 0;
#else
  struct Words64 {
    uint64_t low, high;
  };
  const Words64 words = bits<Words64>(mask);
  return (words.low | words.high) != 0;
#endif
}

// 2^x for x <= 0, relative error below 1e-6: the whole by the exponent's bits, the fraction by a minimax polynomial.
INLINE Floats exp2_of_negative(Floats x) {
  const Floats y = maximum(x, floats(-126.0f));
  const Ints whole = __builtin_convertvector(y - 0.5f, Ints);
  const Floats f = y - __builtin_convertvector(whole, Floats);
  const Floats upper = 0.0555071309f + f * (0.00967554189f + f * 0.00132764725f);
  const Floats p = 1.00000012f + f * (0.693146944f + f * (0.240221202f + f * upper));
  return p * bits<Floats>((whole + 127) << 23);
}

#if defined(__clang__)
#define PICK(A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
#else
#define PICK(A, B, ...) __builtin_shuffle(A, B, Ints{__VA_ARGS__})
#endif

// In each block of four lanes, from FROM on: a b a b.
template <int FROM, int... I>
INLINE Floats interleave(Floats a, Floats b, std::integer_sequence<int, I...>) {
  return PICK(a, b, (I / 4 * 4 + FROM + I % 4 / 2 + I % 2 * LANES)...);
}

// In each block of four lanes, from FROM on: a a b b.
template <int FROM, int... I>
INLINE Floats join(Floats a, Floats b, std::integer_sequence<int, I...>) {
  return PICK(a, b, (I / 4 * 4 + FROM + I % 2 + I % 4 / 2 * LANES)...);
}

// Transposes each block of four lanes: its row i becomes lane i of all four.
INLINE void transpose(Floats rows[4]) {
  constexpr std::make_integer_sequence<int, LANES> lanes;
  const Floats a = interleave<0>(rows[0], rows[1], lanes), b = interleave<0>(rows[2], rows[3], lanes);
  const Floats c = interleave<2>(rows[0], rows[1], lanes), d = interleave<2>(rows[2], rows[3], lanes);
  rows[0] = join<0>(a, b, lanes);
  rows[1] = join<2>(a, b, lanes);
  rows[2] = join<0>(c, d, lanes);
  rows[3] = join<2>(c, d, lanes);
}

// [count, 3] -> 3 vectors; lanes without a ray repeat the last one.
INLINE void spread(const float* from, int count, Floats to[3]) {
  for (int i = 0; i < 3; ++i) {
    for (int lane = 0; lane < LANES; ++lane) to[i][lane] = from[3 * (lane < count ? lane : count - 1) + i];
  }
}

INLINE void spread_distances(const Rays& rays, float* to) {
  for (int lane = 0; lane < LANES; ++lane) {
    const float* from = rays.distances + (lane < rays.count ? lane : rays.count - 1) * rays.steps;
    for (int64_t s = 0; s < rays.steps; ++s) to[s * LANES + lane] = from[s];
  }
}

struct Places {
  Floats x, y;
  Ints inside;
};

INLINE Places place(const Track& track, const Picture& picture, Floats distance) {
  const Floats z = load<Floats>(track.start[2]) + load<Floats>(track.slope[2]) * distance;
  const Floats inverse = 1.0f / z;
  const Floats x = (load<Floats>(track.start[0]) + load<Floats>(track.slope[0]) * distance) * inverse;
  const Floats y = (load<Floats>(track.start[1]) + load<Floats>(track.slope[1]) * distance) * inverse;
  const float right = picture.last_column + 0.5f, bottom = picture.last_row + 0.5f;
  return {x, y, (z > 0.0f) & (x >= -0.5f) & (x <= right) & (y >= -0.5f) & (y <= bottom)};
}

// The rays in a view's picture, moved to where their points are at its time.
INLINE void follow(const Witness& witness, const Floats origin[3], const Floats direction[3], const Floats velocity[3],
                   Floats nearest, Floats farthest, Track& track) {
  Floats start[3], slope[3];
  for (int i = 0; i < 3; ++i) {
    const float* row = witness.picture->projection + 4 * i;
    start[i] = floats(row[3]);
    slope[i] = Floats{};
    for (int j = 0; j < 3; ++j) {
      start[i] += row[j] * (origin[j] + witness.gap * velocity[j]);
      slope[i] += row[j] * direction[j];
    }
  }
  for (int i = 0; i < 3; ++i) {
    store(track.start[i], i < 2 ? start[i] - 0.5f * start[2] : start[i]);
    store(track.slope[i], i < 2 ? slope[i] - 0.5f * slope[2] : slope[i]);
  }
  // The picture sees a convex part of space: with both ends in it, all between them is.
  const Ints inside = place(track, *witness.picture, nearest).inside & place(track, *witness.picture, farthest).inside;
  track.whole = !any(~inside);
}

INLINE void follow_all(const Witness* witnesses, int count, const Rays& rays, const Scratch& scratch,
                       float whole[WIDTHS]) {
  Floats origin[3], direction[3], velocity[3];
  spread(rays.origins, rays.count, origin);
  spread(rays.directions, rays.count, direction);
  spread(rays.velocities, rays.count, velocity);
  Floats nearest = load<Floats>(scratch.distances), farthest = nearest;
  for (int64_t s = 1; s < rays.steps; ++s) {
    nearest = minimum(nearest, load<Floats>(scratch.distances + s * LANES));
    farthest = maximum(farthest, load<Floats>(scratch.distances + s * LANES));
  }
  for (int k = 0; k < WIDTHS; ++k) whole[k] = 0;
  for (int i = 0; i < count; ++i) {
    follow(witnesses[i], origin, direction, velocity, nearest, farthest, scratch.tracks[i]);
    for (int k = 0; k < WIDTHS; ++k) whole[k] += scratch.tracks[i].whole ? witnesses[i].weights[k] : 0.0f;
  }
}

// Where one place on each ray falls in the picture. Returns whether any may find something.
// Adds the weight of a witness that has only some of the places to the totals of those.
INLINE bool locate(const Witness& witness, const Track& track, Floats distance, Floats totals[WIDTHS],
                   Lookup& lookup) {
  const Picture& picture = *witness.picture;
  const Places places = place(track, picture, distance);
  Ints found = (places.x > picture.left) & (places.x < picture.right);
  found &= (places.y > picture.top) & (places.y < picture.bottom);
  if (!track.whole) {
    for (int k = 0; k < WIDTHS; ++k) totals[k] += places.inside ? floats(witness.weights[k]) : Floats{};
    found &= places.inside;
  }
  if (!any(found)) return false;
  const Floats x = minimum(maximum(places.x, Floats{}), floats(picture.last_column));
  const Floats y = minimum(maximum(places.y, Floats{}), floats(picture.last_row));
  const Ints column = __builtin_convertvector(x, Ints), row = __builtin_convertvector(y, Ints);
  store(lookup.x, x - __builtin_convertvector(column, Floats));
  store(lookup.y, y - __builtin_convertvector(row, Floats));
  store(lookup.offsets, found ? row * picture.stride + (column << 4) : Ints{} + picture.empty);
  lookup.witness = &witness;
  return true;
}

// Bilinear, pixel centres at +0.5. Lane 4k + i goes to row i, block k, as transpose wants it.
INLINE void look_up(Lookup& lookup) {
  const char* texels = lookup.witness->picture->texels;
  const char* below = texels + lookup.witness->picture->stride;
#pragma GCC unroll 16
  for (int lane = 0; lane < LANES; ++lane) {
    const int64_t offset = lookup.offsets[lane];
    const TwoRgba up = load<TwoRgba>(texels + offset), down = load<TwoRgba>(below + offset);
    const TwoRgba both = up + (down - up) * lookup.y[lane];
    const Rgba left = load<Rgba>((const float*)&both), right = load<Rgba>((const float*)&both + 4);
    store(lookup.samples + lane % 4 * LANES + lane / 4 * 4, left + (right - left) * lookup.x[lane]);
  }
}

INLINE void compare(const Lookup& lookup, const Floats color[3], float sharpness, Floats covered[WIDTHS],
                    Floats agreeing[WIDTHS]) {
  Floats sample[4];
  for (int i = 0; i < 4; ++i) sample[i] = load<Floats>(lookup.samples + i * LANES);
  transpose(sample);
  const Floats inverse = 1.0f / maximum(sample[3], floats(1e-3f));
  Floats difference = {};
  for (int i = 0; i < 3; ++i) {
    const Floats d = sample[i] * inverse - color[i];
    difference += d * d;
  }
  const Floats agreement = sample[3] * exp2_of_negative(difference * -sharpness);
  for (int k = 0; k < WIDTHS; ++k) {
    covered[k] += sample[3] * lookup.witness->weights[k];
    agreeing[k] += agreement * lookup.witness->weights[k];
  }
}

// Rounded to the nearest, ties to even.
INLINE Halves to_bfloat16(Floats x) {
  const Words words = bits<Words>(x);
  return __builtin_convertvector((words + 0x7fff + (words >> 16 & 1)) >> 16, Halves);
}

// Four numbers of each lane, LANES apart, to its ray's own place.
template <class Number>
INLINE void scatter(const Number* numbers, int count, int64_t stride, Number* to) {
  for (int lane = 0; lane < count; lane += 4) memcpy(to + lane * stride, numbers + lane, 4 * sizeof(Number));
}

// Four channels from `first` on, each lane to its ray's own.
INLINE void write(const Floats channels[4], const Rays& rays, int64_t step, int first, bool bfloat16) {
  Floats rows[4] = {channels[0], channels[1], channels[2], channels[3]};
  transpose(rows);
  const int64_t stride = rays.steps * CHANNELS;
  for (int i = 0; i < 4; ++i) {
    const int64_t place = i * stride + step * CHANNELS + first;
    if (bfloat16) {
      const Halves halves = to_bfloat16(rows[i]);
      scatter((const uint16_t*)&halves, rays.count - i, stride, (uint16_t*)rays.evidence + place);
    } else {
      scatter((const float*)&rows[i], rays.count - i, stride, (float*)rays.evidence + place);
    }
  }
}

// Along all rays of a block, step after step: what the witnesses say, and their weighted means.
void answer(const Witness* witnesses, int count, const Rays& rays, float sharpness, bool bfloat16,
            const Scratch& scratch) {
  Floats color[3];
  spread(rays.colors, rays.count, color);
  spread_distances(rays, scratch.distances);
  float whole[WIDTHS];  // weights of the witnesses that have all places in the picture
  follow_all(witnesses, count, rays, scratch, whole);
  sharpness *= 1.44269504f;  // from powers of e to powers of 2
  Lookup lookups[GROUP];
  for (int64_t s = 0; s < rays.steps; ++s) {
    const Floats distance = load<Floats>(scratch.distances + s * LANES);
    Floats totals[WIDTHS], covered[WIDTHS] = {}, agreeing[WIDTHS] = {};
    for (int k = 0; k < WIDTHS; ++k) totals[k] = floats(whole[k]);
    for (int first = 0; first < count; first += GROUP) {
      const int end = count - first < GROUP ? count : first + GROUP;
      int found = 0;
      for (int i = first; i < end; ++i)
        found += locate(witnesses[i], scratch.tracks[i], distance, totals, lookups[found]);
      for (int i = 0; i < found; ++i) look_up(lookups[i]);
      for (int i = 0; i < found; ++i) compare(lookups[i], color, sharpness, covered, agreeing);
    }
    Floats channels[CHANNELS];
    for (int k = 0; k < WIDTHS; ++k) {
      const Floats inverse = 1.0f / maximum(totals[k], floats(1e-6f));
      channels[3 * k] = covered[k] * inverse;
      channels[3 * k + 1] = agreeing[k] * inverse;
      channels[3 * k + 2] = totals[k] / (1.0f + totals[k]);
    }
    for (int first = 0; first < CHANNELS - 4; first += 4) write(channels + first, rays, s, first, bfloat16);
    write(channels + CHANNELS - 4, rays, s, CHANNELS - 4, bfloat16);
  }
}

}  // namespace

extern const Kernel LRM4D_EVIDENCE = {LANES, answer};
