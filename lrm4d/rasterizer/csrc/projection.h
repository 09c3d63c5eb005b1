// From Gaussians in the world to splats in the picture, eight at a time, and the gradients back.
//
// The 2D covariance (a, b; b, c) = J R Sigma R^T J^T + low_pass is formed in double: for a needle its determinant cancels.
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

// Numbers k of the Gaussians ids[0..7], side by side.
INLINE Doubles gather(const float* from, const int32_t ids[LANES], int stride, int k) {
  Doubles to;
  for (int lane = 0; lane < LANES; ++lane) to[lane] = from[(int64_t)ids[lane] * stride + k];
  return to;
}

INLINE Projected project_lanes(const Camera& camera, const Gaussians& gaussians, const int32_t ids[LANES]) {
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

INLINE bool finite(float x) { return x - x == 0.0f; }

// Fills one splat of lane `lane`; false where it cannot be seen. Numbers that are not finite are never seen.
INLINE bool make_splat(const Camera& camera, const Gaussians& gaussians, const Projected& p, int lane, int32_t id, Splat& s) {
  const double z = p.z[lane], a = p.a[lane], b = p.b[lane], c = p.c[lane], det = p.det[lane];
  // Written so that NaN fails.
  if (!(z > NEAR && z < FAR && a > 0 && c > 0 && det > 1e-10 && a < 1e30 && c < 1e30)) return false;
  double opacity = gaussians.opacities[id];
  if (camera.compensate) {
    const double det0 = p.det0[lane];
    if (!(det0 > 0)) return false;
    opacity *= sqrt(det0 / det);
  }
  const float log2_opacity = log2f((float)opacity);
  const float reach = log2_opacity + LOG2_255;  // 2^-reach * opacity = 1/255
  if (!(reach >= 0 && finite(log2_opacity))) return false;
  const float* color = gaussians.colors + (int64_t)id * 3;
  if (!(finite(color[0]) && finite(color[1]) && finite(color[2]))) return false;

  // Where the ellipse u^2 + v^2 = reach ends, plus a little for rounding; each pixel decides for itself later.
  const double sigmas = sqrt(2 * LN_2 * reach) * (1 + 1e-5);
  const double half_width = sigmas * sqrt(a) + 1e-3, half_height = sigmas * sqrt(c) + 1e-3;
  const double x0 = ceil(p.pixel_x[lane] - half_width - 0.5), x1 = floor(p.pixel_x[lane] + half_width - 0.5);
  const double y0 = ceil(p.pixel_y[lane] - half_height - 0.5), y1 = floor(p.pixel_y[lane] + half_height - 0.5);
  if (!(x0 <= x1 && y0 <= y1 && x1 >= 0 && y1 >= 0 && x0 < camera.width && y0 < camera.height)) return false;
  s.tile_x0 = (uint16_t)((x0 > 0 ? (int)x0 : 0) / TILE_WIDTH);
  s.tile_y0 = (uint16_t)((y0 > 0 ? (int)y0 : 0) / TILE_HEIGHT);
  s.tile_x1 = (uint16_t)((x1 < camera.width ? (int)x1 : camera.width - 1) / TILE_WIDTH);
  s.tile_y1 = (uint16_t)((y1 < camera.height ? (int)y1 : camera.height - 1) / TILE_HEIGHT);

  const double scale = sqrt(0.5 * LOG2_E);
  const double root_c = sqrt(c), across = scale * root_c / sqrt(det);
  s.x = (float)p.pixel_x[lane];
  s.y = (float)p.pixel_y[lane];
  s.ux = (float)across;
  s.uy = (float)(-across * b / c);
  s.vy = (float)(scale / root_c);
  s.log2_opacity = log2_opacity;
  s.red = color[0];
  s.green = color[1];
  s.blue = color[2];
  s.z = (float)z;
  s.half_height = (float)half_height;
  s.id = id;
  s.first_slot = 0;
  s.unused = 0;
  return true;
}

int64_t project(const Camera& camera, const Gaussians& gaussians, int64_t begin, int64_t end, Splat* splats) {
  int64_t count = 0;
  int32_t ids[LANES];
  int waiting = 0;
  for (int64_t i = begin; i < end || waiting > 0; ++i) {
    if (i < end) {
      if (!(gaussians.opacities[i] >= 1.0f / 255)) continue;
      ids[waiting++] = (int32_t)i;
      if (waiting < LANES && i + 1 < end) continue;
      if (waiting == 0) continue;
    }
    const int filled = waiting;
    for (int lane = filled; lane < LANES; ++lane) ids[lane] = ids[0];
    waiting = 0;
    const Projected p = project_lanes(camera, gaussians, ids);
    for (int lane = 0; lane < filled; ++lane)
      if (make_splat(camera, gaussians, p, lane, ids[lane], splats[count])) ++count;
  }
  return count;
}

// What one splat's pairs collected, added up in the order of its slots: the same on any number of threads.
INLINE void sum_pairs(const Frame& frame, int64_t splat, const float* pair_sums, double sums[SUMS]) {
  const int64_t first = frame.splats[splat].first_slot;
  const int64_t last = splat + 1 < frame.splat_count ? frame.splats[splat + 1].first_slot : frame.pair_count;
  for (int k = 0; k < SUMS; ++k) sums[k] = 0;
  for (int64_t slot = first; slot < last; ++slot) {
    const int64_t pair = frame.pair_of_slot[slot];
    if (frame.rows[pair] == 0) continue;
    for (int k = 0; k < SUMS; ++k) sums[k] += pair_sums[pair * SUMS + k];
  }
}

void project_backward(const Frame& frame, int64_t begin, int64_t end, const float* pair_sums, const Gradients& out) {
  const Camera& camera = frame.camera;
  const double fx = camera.fx, fy = camera.fy, skew = camera.skew;
  const float* r = camera.rotation;
  for (int64_t at = begin; at < end; at += LANES) {
    const int filled = end - at < LANES ? (int)(end - at) : LANES;
    int32_t ids[LANES];
    Doubles sums[SUMS], sx = {}, sy = {}, vy = {};
    for (int k = 0; k < SUMS; ++k) sums[k] = Doubles{};
    for (int lane = 0; lane < LANES; ++lane) {
      ids[lane] = frame.splats[at + (lane < filled ? lane : 0)].id;
      if (lane >= filled) continue;
      double s[SUMS];
      sum_pairs(frame, at + lane, pair_sums, s);
      for (int k = 0; k < SUMS; ++k) sums[k][lane] = s[k];
      sx[lane] = frame.splats[at + lane].ux;
      sy[lane] = frame.splats[at + lane].uy;
      vy[lane] = frame.splats[at + lane].vy;
    }
    const Projected p = project_lanes(camera, frame.gaussians, ids);

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

    Doubles grad_t0[3], grad_t1[3], grad_sigma[6];
    for (int i = 0; i < 3; ++i) {
      grad_t0[i] = 2.0 * grad_a * p.s0[i] + grad_b * p.s1[i];
      grad_t1[i] = 2.0 * grad_c * p.s1[i] + grad_b * p.s0[i];
    }
    for (int i = 0, k = 0; i < 3; ++i)
      for (int j = i; j < 3; ++j, ++k) {
        grad_sigma[k] = grad_a * p.t0[i] * p.t0[j] + grad_c * p.t1[i] * p.t1[j] +
                        0.5 * grad_b * (p.t0[i] * p.t1[j] + p.t1[i] * p.t0[j]);
        if (i != j) grad_sigma[k] *= 2.0;  // one number stands for two entries of the matrix
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

    Doubles grad_mean[3];
    for (int i = 0; i < 3; ++i)
      grad_mean[i] = grad_x * (double)r[i] + grad_y * (double)r[3 + i] + grad_z * (double)r[6 + i];
    for (int lane = 0; lane < filled; ++lane) {
      const int64_t id = ids[lane];
      for (int k = 0; k < 3; ++k) out.means[id * 3 + k] += (float)grad_mean[k][lane];
      for (int k = 0; k < 6; ++k) out.covariances[id * 6 + k] += (float)grad_sigma[k][lane];
      out.opacities[id] += (float)(sums[0][lane] / frame.gaussians.opacities[id]);
      for (int k = 0; k < 3; ++k) out.colors[id * 3 + k] += (float)sums[6 + k][lane];
    }
  }
}

}  // namespace
