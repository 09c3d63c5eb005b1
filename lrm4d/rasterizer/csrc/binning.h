// Which tiles a splat touches, and the order front to back. Scalar, compiled once: counting and placing must agree.
#pragma once

#include <math.h>
#include <string.h>

#include "layout.h"

namespace {

inline float clamp_to(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

// First and last tile of a row of tiles that the splat's ellipse (alpha = 1/255) reaches; first > last where none.
inline void tile_span(const Splat& s, int tile_row, int& first, int& last) {
  // At the row dy the ellipse spans (+-sqrt(reach - v^2) - uy dy) / ux; its right end is farthest at dy = -turn.
  const float reach = s.log2_opacity + LOG2_255 + 1e-4f;
  const float turn = s.uy * sqrtf(reach) / (s.vy * sqrtf(s.vy * s.vy + s.uy * s.uy));
  const float top = tile_row * TILE_HEIGHT + 0.5f - s.y, bottom = top + TILE_HEIGHT - 1;
  const float at_right = clamp_to(-turn, top, bottom), at_left = clamp_to(turn, top, bottom);
  const float right_square = reach - s.vy * s.vy * at_right * at_right;
  const float left_square = reach - s.vy * s.vy * at_left * at_left;
  const float right = (right_square > 0 ? sqrtf(right_square) : 0) - s.uy * at_right;
  const float left = -(left_square > 0 ? sqrtf(left_square) : 0) - s.uy * at_left;
  const float x0 = (s.x + left / s.ux - 0.51f) / TILE_WIDTH, x1 = (s.x + right / s.ux - 0.49f) / TILE_WIDTH;
  first = x0 > s.x0 ? (x0 < s.x1 + 1 ? (int)x0 : s.x1 + 1) : s.x0;
  last = x1 < s.x1 ? (x1 >= 0 ? (int)x1 : -1) : s.x1;
}

// Calls f(tile) for each tile that the splat touches, row by row.
template <class F>
inline void for_each_tile(const Splat& s, int tiles_x, const F& f) {
  const bool large = s.x1 - s.x0 > 1 || s.y1 - s.y0 > 1;  // else the bounding box is nearly as good
  for (int row = s.y0; row <= s.y1; ++row) {
    int first = s.x0, last = s.x1;
    if (large && s.x1 > s.x0 && s.y1 > s.y0) tile_span(s, row, first, last);
    for (int column = first; column <= last; ++column) f(row * tiles_x + column);
  }
}

// What is sorted: a depth (positive floats order as their bits do) and where its splat is.
struct Keyed {
  uint32_t key, index;
};

// Stable radix sort by key, 11 bits a pass; the result is in items. spare is as long as items.
inline void sort_by_key(Keyed* items, Keyed* spare, int64_t count) {
  if (count < 48) {
    for (int64_t i = 1; i < count; ++i) {
      const Keyed item = items[i];
      int64_t j = i;
      for (; j > 0 && items[j - 1].key > item.key; --j) items[j] = items[j - 1];
      items[j] = item;
    }
    return;
  }
  constexpr int BITS = 11, BUCKETS = 1 << BITS;
  int32_t counts[3][BUCKETS] = {};
  for (int64_t i = 0; i < count; ++i)
    for (int pass = 0; pass < 3; ++pass) ++counts[pass][items[i].key >> pass * BITS & (BUCKETS - 1)];
  Keyed *from = items, *to = spare;
  for (int pass = 0; pass < 3; ++pass) {
    int32_t* next = counts[pass];
    if (next[from[0].key >> pass * BITS & (BUCKETS - 1)] == count) continue;  // all in one bucket
    int32_t total = 0;
    for (int b = 0; b < BUCKETS; ++b) {
      const int32_t here = next[b];
      next[b] = total;
      total += here;
    }
    for (int64_t i = 0; i < count; ++i) to[next[from[i].key >> pass * BITS & (BUCKETS - 1)]++] = from[i];
    Keyed* const other = from;
    from = to;
    to = other;
  }
  if (from != items) memcpy(items, from, sizeof(Keyed) * count);
}

}  // namespace
