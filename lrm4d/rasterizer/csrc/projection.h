// From Gaussians in the world to splats in the picture, and the gradients back.
//
// The 2D covariance (a, b; b, c) = J R Sigma R^T J^T + low_pass is formed in double: a needle's determinant cancels.
// J is the Jacobian of the perspective at the mean, whose direction is clamped to 1.3 times the field of view (as in
// gsplat and 3DGS), because the linearization means nothing far outside the picture.
#pragma once

#include <math.h>

#include "lanes.h"
#include "layout.h"

namespace {

constexpr double LOG2_E = 1.4426950408889634;
constexpr double LN_2 = 0.6931471805599453;

INLINE Doubles clamp(Doubles x, double low, double high) {
  x = x < doubles(low) ? doubles(low) : x;
  return x > doubles(high) ? doubles(high) : x;
}

// Everything the backward needs again.
struct Projected {
  Doubles mean[3], sigma[6];         // the Gaussian, in the world
  Doubles x, y, z, inverse_z;        // the mean, in the camera
  Doubles ux, uy;                    // x / z and y / z, clamped
  Longs inside_x, inside_y;          // ... where they were not
  Doubles j00, j01, j02, j11, j12;   // J
  Doubles t0[3], t1[3];              // J R
  Doubles s0[3], s1[3];              // Sigma (J R)^T
  Doubles a0, b, c0, a, c;           // the 2D covariance without and with low-pass
  Doubles det0, det;
  Doubles pixel_x, pixel_y;
};

// Numbers k of the Gaussians ids[0..3], side by side.
INLINE Doubles gather(const float* from, const int32_t ids[HALF], int stride, int k) {
  const HalfFloats x = {from[(int64_t)ids[0] * stride + k], from[(int64_t)ids[1] * stride + k],
                        from[(int64_t)ids[2] * stride + k], from[(int64_t)ids[3] * stride + k]};
  return __builtin_convertvector(x, Doubles);
}

INLINE Projected project_lanes(const Camera& camera, const Gaussians& gaussians, const int32_t ids[HALF]) {
  Projected p;
  for (int k = 0; k < 3; ++k) p.mean[k] = gather(gaussians.means, ids, 3, k);
  for (int k = 0; k < 6; ++k) p.sigma[k] = gather(gaussians.covariances, ids, 6, k);
  const float* r = camera.rotation;
  const float* t = camera.translation;
  p.x = p.mean[0] * (double)r[0] + p.mean[1] * (double)r[1] + p.mean[2] * (double)r[2] + (double)t[0];
  p.y = p.mean[0] * (double)r[3] + p.mean[1] * (double)r[4] + p.mean[2] * (double)r[5] + (double)t[1];
  p.z = p.mean[0] * (double)r[6] + p.mean[1] * (double)r[7] + p.mean[2] * (double)r[8] + (double)t[2];
  p.inverse_z = 1.0 / p.z;

  const double fx = camera.fx, fy = camera.fy, skew = camera.skew;
  const double margin_x = 0.15 * camera.width / fx, margin_y = 0.15 * camera.height / fy;
  const Doubles slope_x = p.x * p.inverse_z, slope_y = p.y * p.inverse_z;
  p.ux = clamp(slope_x, -camera.cx / fx - margin_x, (camera.width - camera.cx) / fx + margin_x);
  p.uy = clamp(slope_y, -camera.cy / fy - margin_y, (camera.height - camera.cy) / fy + margin_y);
  p.inside_x = p.ux == slope_x;
  p.inside_y = p.uy == slope_y;
  p.pixel_x = fx * slope_x + skew * slope_y + (double)camera.cx;
  p.pixel_y = fy * slope_y + (double)camera.cy;

  p.j00 = fx * p.inverse_z;
  p.j01 = skew * p.inverse_z;
  p.j02 = -(fx * p.ux + skew * p.uy) * p.inverse_z;
  p.j11 = fy * p.inverse_z;
  p.j12 = -fy * p.uy * p.inverse_z;
  for (int i = 0; i < 3; ++i) {
    p.t0[i] = p.j00 * (double)r[i] + p.j01 * (double)r[3 + i] + p.j02 * (double)r[6 + i];
    p.t1[i] = p.j11 * (double)r[3 + i] + p.j12 * (double)r[6 + i];
  }
  static const int full[3][3] = {{0, 1, 2}, {1, 3, 4}, {2, 4, 5}};
  for (int i = 0; i < 3; ++i) {
    p.s0[i] = p.sigma[full[i][0]] * p.t0[0] + p.sigma[full[i][1]] * p.t0[1] + p.sigma[full[i][2]] * p.t0[2];
    p.s1[i] = p.sigma[full[i][0]] * p.t1[0] + p.sigma[full[i][1]] * p.t1[1] + p.sigma[full[i][2]] * p.t1[2];
  }
  p.a0 = p.t0[0] * p.s0[0] + p.t0[1] * p.s0[1] + p.t0[2] * p.s0[2];
  p.b = p.t0[0] * p.s1[0] + p.t0[1] * p.s1[1] + p.t0[2] * p.s1[2];
  p.c0 = p.t1[0] * p.s1[0] + p.t1[1] * p.s1[1] + p.t1[2] * p.s1[2];
  p.a = p.a0 + (double)camera.low_pass;
  p.c = p.c0 + (double)camera.low_pass;
  p.det0 = p.a0 * p.c0 - p.b * p.b;
  p.det = p.a * p.c - p.b * p.b;
  return p;
}

INLINE Ints finite(Floats x) { return x - x == floats(0.0f); }

// Whole numbers at or above x >= 0.
INLINE Ints ceiling(Floats x) {
  const Ints whole = __builtin_convertvector(x, Ints);
  return whole - (__builtin_convertvector(whole, Floats) < x);  // true is -1
}

// Bounds of an interval in whole pixels within the picture; narrows `seen` to where there are any.
INLINE void bound(Floats middle, Floats half, int size, Ints& first, Ints& last, Ints& seen) {
  const Floats low = middle - half - 0.5f, high = middle + half - 0.5f, end = floats((float)(size - 1));
  seen &= (high >= floats(0.0f)) & (low <= end);
  first = ceiling(maximum(low, floats(0.0f)));
  last = __builtin_convertvector(minimum(high, end), Ints);
  seen &= first <= last;
}

// Writes the splats of the lanes that can be seen one after the other; returns how many. Lanes whose numbers are not
// finite cannot be seen: every comparison is written so that NaN fails it.
INLINE int store_splats(const Camera& camera, const Gaussians& gaussians, const int32_t ids[LANES], int filled,
                        Splat* splats) {
  Floats m[16], a, c, c_over_det, over_c, tilt, kept = floats(1.0f);
  Ints sound;
  for (int half = 0; half < 2; ++half) {
    const Projected p = project_lanes(camera, gaussians, ids + HALF * half);
    const Doubles inverse_c = 1.0 / p.c;
    set_half(m[0], half, p.pixel_x);
    set_half(m[1], half, p.pixel_y);
    set_half(m[9], half, p.z);
    set_half(a, half, p.a);
    set_half(c, half, p.c);
    set_half(c_over_det, half, p.c / p.det);
    set_half(over_c, half, inverse_c);
    set_half(tilt, half, p.b * inverse_c);
    Longs good = (p.z > doubles(NEAR)) & (p.z < doubles(FAR)) & (p.a > doubles(0)) & (p.c > doubles(0)) &
                 (p.a < doubles(1e30)) & (p.c < doubles(1e30)) & (p.det > doubles(1e-10));
    if (camera.compensate) {
      good &= p.det0 > doubles(0);
      set_half(kept, half, p.det0 / p.det);
    }
    set_half(sound, half, good);
  }
  for (int lane = 0; lane < LANES; ++lane) {
    m[5][lane] = gaussians.opacities[ids[lane]];
    for (int k = 0; k < 3; ++k) m[6 + k][lane] = gaussians.colors[(int64_t)ids[lane] * 3 + k];
  }
  if (camera.compensate) m[5] *= square_root(kept);
  Ints seen = sound & (Ints{0, 1, 2, 3, 4, 5, 6, 7} < ints(filled)) & finite(m[6] + m[7] + m[8]);
  seen &= (m[5] >= floats(1.0f / 255)) & finite(m[5]);
  m[5] = log2_lanes(m[5]);

  const float scale = 0.84932180f;  // sqrt(log2(e) / 2)
  m[2] = scale * square_root(c_over_det);
  m[3] = -m[2] * tilt;
  m[4] = scale * square_root(over_c);

  // Where alpha falls to 1/255, plus a little for rounding; each pixel decides for itself later.
  const Floats reach = maximum(m[5] + LOG2_255, floats(0.0f)) * (float)(2 * LN_2 * 1.00002);
  const Floats half_width = square_root(reach * a) + 2e-3f;
  m[10] = square_root(reach * c) + 2e-3f;
  Ints x0, x1, y0, y1;
  bound(m[0], half_width, camera.width, x0, x1, seen);
  bound(m[1], m[10], camera.height, y0, y1, seen);
  Ints id;
  memcpy(&id, ids, sizeof(id));
  m[11] = bits<Floats>(id);
  m[12] = bits<Floats>(x0 / TILE_WIDTH | (x1 / TILE_WIDTH) << 16);
  m[13] = bits<Floats>(y0 / TILE_HEIGHT | (y1 / TILE_HEIGHT) << 16);
  m[14] = m[15] = Floats{};

  transpose(m);
  transpose(m + 8);
  int count = 0;
  for (int left = lane_bits(seen); left != 0; left &= left - 1, ++count) {
    const int lane = __builtin_ctz(left);
    store((float*)&splats[count], m[lane]);
    store((float*)&splats[count] + 8, m[8 + lane]);
  }
  return count;
}

int64_t project(const Camera& camera, const Gaussians& gaussians, int64_t begin, int64_t end, Splat* splats) {
  int64_t count = 0;
  int32_t ids[LANES];
  int filled = 0;
  const auto flush = [&]() INLINE_LAMBDA {
    for (int lane = filled; lane < LANES; ++lane) ids[lane] = ids[0];
    count += store_splats(camera, gaussians, ids, filled, splats + count);
    filled = 0;
  };
  for (int64_t i = begin; i < end; ++i) {
    ids[filled] = (int32_t)i;
    filled += gaussians.opacities[i] >= 1.0f / 255;
    if (filled == LANES) flush();
  }
  if (filled > 0) flush();
  return count;
}

// What one splat's pairs collected, added up in the order of its slots: the same on any number of threads.
INLINE void sum_pairs(const Frame& frame, const Splat& splat, const float* pair_sums, float sums[SUMS]) {
  Floats low = {};
  float high[2] = {};
  for (int32_t slot = splat.first_slot; slot < splat.first_slot + splat.slots; ++slot) {
    const int64_t pair = frame.pair_of_slot[slot];
    if (frame.rows[pair] == 0) continue;
    low += load(pair_sums + pair * SUMS);
    high[0] += pair_sums[pair * SUMS + 8];
    high[1] += pair_sums[pair * SUMS + 9];
  }
  store(sums, low);
  sums[8] = high[0];
  sums[9] = high[1];
}

// Fetches ahead what sum_pairs will read from all over the memory.
INLINE void prefetch_pairs(const Frame& frame, const Splat& splat, const float* pair_sums) {
  for (int32_t slot = splat.first_slot; slot < splat.first_slot + splat.slots; ++slot) {
    const int64_t pair = frame.pair_of_slot[slot];
    __builtin_prefetch(frame.rows + pair);
    __builtin_prefetch(pair_sums + pair * SUMS);
    __builtin_prefetch(pair_sums + pair * SUMS + SUMS - 1);
  }
}

// What the loss changes by with a Gaussian's mean and covariance.
struct GaussianGradient {
  Doubles mean[3], sigma[6];
};

// sums: what the pairs collected; sx, sy, vy: the splats' whitening.
INLINE GaussianGradient unproject(const Camera& camera, const Projected& p, const Doubles sums[SUMS], Doubles sx,
                                  Doubles sy, Doubles vy) {
  GaussianGradient out;
  const double fx = camera.fx, fy = camera.fy, skew = camera.skew;
  const float* r = camera.rotation;
  // The pairs summed g (u, v) and g (uu, uv, vv), g the gradient of ln(alpha); L = (ux 0; uy vy) takes them to pixels.
  const double two_ln2 = 2 * LN_2;
  const Doubles grad_px = two_ln2 * sx * sums[1];
  const Doubles grad_py = two_ln2 * (sy * sums[1] + vy * sums[2]);
  const double square = two_ln2 * two_ln2;
  const Doubles uu = square * sums[3], uv = square * sums[4], vv = square * sums[5];
  Doubles grad_a = 0.5 * sx * sx * uu;
  Doubles grad_b = sx * (sy * uu + vy * uv);
  Doubles grad_c = 0.5 * (sy * sy * uu + 2.0 * sy * vy * uv + vy * vy * vv);
  if (camera.compensate) {  // d ln sqrt(det0 / det)
    const Doubles half = 0.5 * sums[0];
    grad_a += half * (p.c0 / p.det0 - p.c / p.det);
    grad_b += 2.0 * half * p.b * (1.0 / p.det - 1.0 / p.det0);
    grad_c += half * (p.a0 / p.det0 - p.a / p.det);
  }

  Doubles grad_t0[3], grad_t1[3];
  for (int i = 0; i < 3; ++i) {
    grad_t0[i] = 2.0 * grad_a * p.s0[i] + grad_b * p.s1[i];
    grad_t1[i] = 2.0 * grad_c * p.s1[i] + grad_b * p.s0[i];
  }
  for (int i = 0, k = 0; i < 3; ++i)
    for (int j = i; j < 3; ++j, ++k) {
      out.sigma[k] = grad_a * p.t0[i] * p.t0[j] + grad_c * p.t1[i] * p.t1[j] +
                      0.5 * grad_b * (p.t0[i] * p.t1[j] + p.t1[i] * p.t0[j]);
      if (i != j) out.sigma[k] *= 2.0;  // one number stands for two entries of the matrix
    }

  Doubles grad_j[5] = {};  // j00 j01 j02 j11 j12
  for (int i = 0; i < 3; ++i) {
    grad_j[0] += grad_t0[i] * (double)r[i];
    grad_j[1] += grad_t0[i] * (double)r[3 + i];
    grad_j[2] += grad_t0[i] * (double)r[6 + i];
    grad_j[3] += grad_t1[i] * (double)r[3 + i];
    grad_j[4] += grad_t1[i] * (double)r[6 + i];
  }
  // Slopes x / z and y / z: of the pixel everywhere, of J where not clamped. All of J is something over z.
  Doubles grad_slope_x = fx * grad_px, grad_slope_y = skew * grad_px + fy * grad_py;
  const Doubles none = {};
  grad_slope_x += p.inside_x ? -p.j00 * grad_j[2] : none;
  grad_slope_y += p.inside_y ? -(p.j01 * grad_j[2] + p.j11 * grad_j[4]) : none;
  const Doubles grad_x = grad_slope_x * p.inverse_z, grad_y = grad_slope_y * p.inverse_z;
  const Doubles grad_z = sums[9] - (grad_x * p.x + grad_y * p.y) * p.inverse_z -
                         (grad_j[0] * p.j00 + grad_j[1] * p.j01 + grad_j[2] * p.j02 + grad_j[3] * p.j11 +
                          grad_j[4] * p.j12) * p.inverse_z;

  for (int i = 0; i < 3; ++i)
    out.mean[i] = grad_x * (double)r[i] + grad_y * (double)r[3 + i] + grad_z * (double)r[6 + i];
  return out;
}

void project_backward(const Frame& frame, int64_t chunk, const float* pair_sums, const Gradients& out) {
  const Splat* splats = frame.splats + chunk * CHUNK;
  const int32_t end = frame.visible[chunk];
  for (int32_t at = 0; at < end; at += HALF) {
    const int filled = end - at < HALF ? end - at : HALF;
    for (int32_t ahead = at + 4 * HALF; ahead < end && ahead < at + 5 * HALF; ++ahead)
      prefetch_pairs(frame, splats[ahead], pair_sums);
    int32_t ids[HALF];
    alignas(32) float collected[SUMS][HALF] = {}, whitening[3][HALF];
    for (int lane = 0; lane < HALF; ++lane) {
      const Splat& splat = splats[at + (lane < filled ? lane : 0)];
      ids[lane] = splat.id;
      whitening[0][lane] = splat.ux;
      whitening[1][lane] = splat.uy;
      whitening[2][lane] = splat.vy;
      if (lane >= filled) continue;
      float sums[SUMS];
      sum_pairs(frame, splat, pair_sums, sums);
      for (int k = 0; k < SUMS; ++k) collected[k][lane] = sums[k];
    }
    Doubles sums[SUMS];
    for (int k = 0; k < SUMS; ++k) sums[k] = load_doubles(collected[k]);
    const Projected p = project_lanes(frame.camera, frame.gaussians, ids);
    const GaussianGradient g = unproject(frame.camera, p, sums, load_doubles(whitening[0]), load_doubles(whitening[1]),
                                         load_doubles(whitening[2]));
    for (int lane = 0; lane < filled; ++lane) {
      const int64_t id = ids[lane];
      for (int k = 0; k < 3; ++k) out.means[id * 3 + k] += (float)g.mean[k][lane];
      for (int k = 0; k < 6; ++k) out.covariances[id * 6 + k] += (float)g.sigma[k][lane];
      out.opacities[id] += collected[0][lane] / frame.gaussians.opacities[id];
      for (int k = 0; k < 3; ++k) out.colors[id * 3 + k] += collected[6 + k][lane];
    }
  }
}

}  // namespace
