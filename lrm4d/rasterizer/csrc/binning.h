// Which tiles a splat touches, and the order front to back. Scalar code, the same on every machine.
#pragma once

#include <math.h>
#include <string.h>

#include "layout.h"

namespace {

// First and last tile of a row of tiles that the splat's ellipse (alpha = 1/255) reaches; first > last where none.
inline void tile_span(const Splat& s, int tile_row, int& first, int& last) {
  first = s.tile_x0;
  last = s.tile_x1;
  if (first == last || s.tile_y0 == s.tile_y1) return;  // the bounding box is as good
  // At the row dy the ellipse spans (+-sqrt(reach - v^2) - uy dy) / ux; its right end is farthest at dy = -turn.
  const float reach = s.log2_opacity + LOG2_255 + 1e-4f;
  const float turn = s.uy * sqrtf(reach) / (s.vy * sqrtf(s.vy * s.vy + s.uy * s.uy));
  const float top = tile_row * TILE_HEIGHT + 0.5f - s.y, bottom = top + TILE_HEIGHT - 1;
  const float at_right = fminf(fmaxf(-turn, top), bottom), at_left = fminf(fmaxf(turn, top), bottom);
  const float right = sqrtf(fmaxf(reach - s.vy * s.vy * at_right * at_right, 0.0f)) - s.uy * at_right;
  const float left = -sqrtf(fmaxf(reach - s.vy * s.vy * at_left * at_left, 0.0f)) - s.uy * at_left;
  const float x0 = (s.x + left / s.ux - 0.51f) / TILE_WIDTH, x1 = (s.x + right / s.ux - 0.49f) / TILE_WIDTH;
  if (x0 > first) first = x0 < last + 1 ? (int)x0 : last + 1;
  if (x1 < last) last = x1 >= 0 ? (int)x1 : -1;
}

// Adds the splat to the tile counts and returns its number of pairs.
inline int32_t count_tiles(const Splat& s, int tiles_x, int32_t* tile_counts) {
  int32_t count = 0;
  for (int row = s.tile_y0; row <= s.tile_y1; ++row) {
    int first, last;
    tile_span(s, row, first, last);
    for (int column = first; column <= last; ++column) ++tile_counts[row * tiles_x + column];
    if (last >= first) count += last - first + 1;
  }
  return count;
}

// Writes the splat's pairs where tile_next says, and where they went.
inline void place_pairs(const Splat& s, int32_t index, int tiles_x, int32_t* tile_next, int32_t* pairs, int32_t* pair_of_slot) {
  int32_t slot = s.first_slot;
  for (int row = s.tile_y0; row <= s.tile_y1; ++row) {
    int first, last;
    tile_span(s, row, first, last);
    for (int column = first; column <= last; ++column) {
      const int32_t pair = tile_next[row * tiles_x + column]++;
      pairs[pair] = index;
      pair_of_slot[slot++] = pair;
    }
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
