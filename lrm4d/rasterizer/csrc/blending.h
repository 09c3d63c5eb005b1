// Splats over one tile, front to back, a row of eight pixels at a time; and the gradients, back to front.
#pragma once

#include "lanes.h"
#include "layout.h"

namespace {

INLINE int at_least(int x, int low) { return x > low ? x : low; }
INLINE int at_most(int x, int high) { return x < high ? x : high; }

// A tile's place in the picture.
struct Tile {
  int x, y, width, height;
  Floats columns;                    // pixel centres
};

INLINE Tile place(const Frame& frame, int tile) {
  Tile t;
  t.x = tile % frame.tiles_x * TILE_WIDTH;
  t.y = tile / frame.tiles_x * TILE_HEIGHT;
  t.width = at_most(TILE_WIDTH, frame.camera.width - t.x);
  t.height = at_most(TILE_HEIGHT, frame.camera.height - t.y);
  t.columns = Floats{0.5f, 1.5f, 2.5f, 3.5f, 4.5f, 5.5f, 6.5f, 7.5f} + (float)t.x;
  return t;
}

// The whitened offset u and log2(alpha) of a row of pixels. Forward and backward must agree to the last bit on which
// pixels a splat touches, so both call this.
struct Row {
  Floats u, log2_alpha;
  float v;
};

INLINE Row whiten(const Splat& s, Floats u_of_columns, float pixel_y) {
  const float dy = pixel_y - s.y;
  Row row;
  row.v = s.vy * dy;
  row.u = u_of_columns + s.uy * dy;
  row.log2_alpha = (s.log2_opacity - row.v * row.v) - row.u * row.u;
  return row;
}

void blend(const Frame& frame, int tile, const float* background, bool keep, const Planes& out) {
  const Tile place_ = place(frame, tile);
  alignas(32) float red[TILE_PIXELS] = {}, green[TILE_PIXELS] = {}, blue[TILE_PIXELS] = {}, depth[TILE_PIXELS] = {};
  alignas(32) float left[TILE_PIXELS];  // transmittance
  alignas(32) int32_t last[TILE_PIXELS];
  const Ints lane_numbers = {0, 1, 2, 3, 4, 5, 6, 7};
  const Floats in_picture = zero_unless(lane_numbers < ints(place_.width), floats(1.0f));
  for (int r = 0; r < TILE_HEIGHT; ++r) {
    store(left + r * LANES, in_picture);
    for (int lane = 0; lane < LANES; ++lane) last[r * LANES + lane] = INT32_MAX;
  }

  const int begin = frame.tile_start[tile], end = frame.tile_start[tile + 1];
  // Depth is summed from the first splat's: 1 - transmittance has few digits where alpha is small.
  const float first_z = begin < end ? frame.splats[frame.pairs[begin]].z : 0.0f;
  int alive = (1 << place_.height) - 1;  // rows that still let light through
  int pair = begin;
  for (; pair < end && alive != 0; ++pair) {
    if (pair + 4 < end) __builtin_prefetch(&frame.splats[frame.pairs[pair + 4]]);
    const Splat& s = frame.splats[frame.pairs[pair]];
    // Rows whose centre y + r + 0.5 lies within half_height of the mean; floats first, because they may be huge.
    const float first = s.y - s.half_height - place_.y - 0.5f, final = s.y + s.half_height - place_.y - 0.5f;
    if (!(first <= place_.height - 1 && final >= 0)) {
      if (keep) frame.rows[pair] = 0;
      continue;
    }
    const int r0 = first > 0 ? (int)first + (first > (int)first) : 0;
    const int r1 = final < place_.height - 1 ? (int)final : place_.height - 1;
    const Floats u_of_columns = (place_.columns - s.x) * s.ux;
    int touched = 0;
    for (int rows = alive & ((2 << r1) - (1 << r0)); rows != 0; rows &= rows - 1) {
      const int r = __builtin_ctz(rows);
      const Row row = whiten(s, u_of_columns, place_.y + r + 0.5f);
      const Floats before = load(left + r * LANES);
      const Ints active = (row.log2_alpha >= floats(-LOG2_255)) & (before >= floats(MIN_TRANSMITTANCE));
      if (lane_bits(active) == 0) continue;
      touched |= 1 << r;
      const Floats alpha = zero_unless(active, minimum(exp2_lanes(row.log2_alpha), floats(MAX_ALPHA)));
      const Floats weight = alpha * before, after = before - weight;
      store(left + r * LANES, after);
      store(red + r * LANES, load(red + r * LANES) + weight * s.red);
      store(green + r * LANES, load(green + r * LANES) + weight * s.green);
      store(blue + r * LANES, load(blue + r * LANES) + weight * s.blue);
      store(depth + r * LANES, load(depth + r * LANES) + weight * (s.z - first_z));
      const Ints dark = after < floats(MIN_TRANSMITTANCE);
      const int finished = lane_bits(dark & active);
      if (finished != 0) {
        for (int lane = 0; lane < LANES; ++lane)
          if (finished >> lane & 1) last[r * LANES + lane] = pair;
        if (lane_bits(dark) == 255) alive &= ~(1 << r);
      }
    }
    if (keep) frame.rows[pair] = (uint16_t)touched;
  }
  if (keep) {
    for (; pair < end; ++pair) frame.rows[pair] = 0;
    memcpy(frame.transmittance + (int64_t)tile * TILE_PIXELS, left, sizeof(left));
    memcpy(frame.last + (int64_t)tile * TILE_PIXELS, last, sizeof(last));
  }

  const int64_t plane = (int64_t)frame.camera.width * frame.camera.height;
  for (int r = 0; r < place_.height; ++r) {
    const int64_t start = (int64_t)(place_.y + r) * frame.camera.width + place_.x;
    for (int lane = 0; lane < place_.width; ++lane) {
      const int i = r * LANES + lane;
      const int64_t o = start + lane;
      out.image[o] = red[i] + left[i] * background[0];
      out.image[o + plane] = green[i] + left[i] * background[1];
      out.image[o + 2 * plane] = blue[i] + left[i] * background[2];
      out.alpha[o] = 1.0f - left[i];
      out.depth[o] = left[i] < 1.0f ? first_z + depth[i] / (1.0f - left[i]) : 0.0f;
    }
  }
}

INLINE void load_plane(const float* plane, const Tile& t, int width, float* to) {
  memset(to, 0, sizeof(float) * TILE_PIXELS);
  if (plane == nullptr) return;
  for (int r = 0; r < t.height; ++r)
    memcpy(to + r * LANES, plane + (int64_t)(t.y + r) * width + t.x, sizeof(float) * t.width);
}

// pair_sums[pair] = sums over the pair's pixels of g (1, u, v, uu, uv, vv), then the gradients of red, green, blue, z;
// g is the gradient of the loss by ln(alpha). Pairs that touched nothing are left unwritten.
template <bool WITH_DEPTH>
INLINE void blend_backward_tile(const Frame& frame, int tile, const float* background, const float* depth,
                                const Planes& gradients, float* pair_sums) {
  const Tile place_ = place(frame, tile);
  const int64_t plane = (int64_t)frame.camera.width * frame.camera.height;
  const int width = frame.camera.width;
  alignas(32) float red[TILE_PIXELS], green[TILE_PIXELS], blue[TILE_PIXELS], alpha_[TILE_PIXELS];
  alignas(32) float mean_z[TILE_PIXELS], by_z[TILE_PIXELS];  // depth, and the gradient by a weight's z - depth
  alignas(32) float left[TILE_PIXELS], behind[TILE_PIXELS];  // behind: what the loss gets from all that lies behind
  const float* image = gradients.image;
  load_plane(image, place_, width, red);
  load_plane(image ? image + plane : nullptr, place_, width, green);
  load_plane(image ? image + 2 * plane : nullptr, place_, width, blue);
  load_plane(gradients.alpha, place_, width, alpha_);
  memcpy(left, frame.transmittance + (int64_t)tile * TILE_PIXELS, sizeof(left));
  for (int i = 0; i < TILE_PIXELS; ++i)
    behind[i] = left[i] * (red[i] * background[0] + green[i] * background[1] + blue[i] * background[2] - alpha_[i]);
  if (WITH_DEPTH) {
    load_plane(depth, place_, width, mean_z);
    load_plane(gradients.depth, place_, width, by_z);
    for (int i = 0; i < TILE_PIXELS; ++i) by_z[i] = left[i] < 1.0f ? by_z[i] / (1.0f - left[i]) : 0.0f;
  }
  const int32_t* last = frame.last + (int64_t)tile * TILE_PIXELS;

  const int begin = frame.tile_start[tile], end = frame.tile_start[tile + 1];
  for (int pair = end - 1; pair >= begin; --pair) {
    if (pair - 4 >= begin) __builtin_prefetch(&frame.splats[frame.pairs[pair - 4]]);
    int touched = frame.rows[pair];
    if (touched == 0) continue;
    const Splat& s = frame.splats[frame.pairs[pair]];
    const Floats u_of_columns = (place_.columns - s.x) * s.ux;
    Floats sums[8] = {}, blue_sum = {}, z_sum = {};
    for (; touched != 0; touched &= touched - 1) {
      const int r = __builtin_ctz(touched), i = r * LANES;
      const Row row = whiten(s, u_of_columns, place_.y + r + 0.5f);
      const Ints until = bits<Ints>(load((const float*)last + i));
      const Ints active = (row.log2_alpha >= floats(-LOG2_255)) & (until >= ints(pair));
      const Floats raw = zero_unless(active, exp2_lanes(row.log2_alpha));
      const Floats alpha = minimum(raw, floats(MAX_ALPHA));
      const Floats g_red = load(red + i), g_green = load(green + i), g_blue = load(blue + i);
      const Floats inverse = 1.0f / (1.0f - alpha);
      const Floats before = load(left + i) * inverse, weight = alpha * before, rest = load(behind + i);
      Floats seen = s.red * g_red + s.green * g_green + s.blue * g_blue;
      if (WITH_DEPTH) seen += (s.z - load(mean_z + i)) * load(by_z + i);
      store(left + i, before);
      store(behind + i, rest + weight * seen);
      const Floats g = zero_unless(raw <= floats(MAX_ALPHA), raw * (before * seen - rest * inverse));
      const Floats gu = g * row.u, gv = g * row.v;
      sums[0] += g;
      sums[1] += gu;
      sums[2] += gv;
      sums[3] += gu * row.u;
      sums[4] += gu * row.v;
      sums[5] += gv * row.v;
      sums[6] += weight * g_red;
      sums[7] += weight * g_green;
      blue_sum += weight * g_blue;
      if (WITH_DEPTH) z_sum += weight * load(by_z + i);
    }
    float* to = pair_sums + (int64_t)pair * SUMS;
    store(to, sum_of_each(sums));
    to[8] = sum(blue_sum);
    to[9] = WITH_DEPTH ? sum(z_sum) : 0.0f;
  }
}

void blend_backward(const Frame& frame, int tile, const float* background, const float* depth, const Planes& gradients,
                    float* pair_sums) {
  if (gradients.depth != nullptr)
    blend_backward_tile<true>(frame, tile, background, depth, gradients, pair_sums);
  else
    blend_backward_tile<false>(frame, tile, background, depth, gradients, pair_sums);
}

}  // namespace
