// What the stages hand to each other. Plain data: no stage owns memory (operator.cpp does).
#pragma once

#include <stdint.h>

constexpr int TILE_WIDTH = 8;
constexpr int TILE_HEIGHT = 16;
constexpr int TILE_PIXELS = TILE_WIDTH * TILE_HEIGHT;
constexpr int CHUNK = 2048;              // Gaussians a task
constexpr int SUMS = 10;                 // numbers a (splat, tile) pair collects in the backward, see blending.h
constexpr float NEAR = 0.01f;            // camera z
constexpr float FAR = 1e10f;             // camera z
constexpr float LOG2_255 = 7.99435344f;  // an alpha below 1/255 is skipped
constexpr float MAX_ALPHA = 0.99f;
constexpr float MIN_TRANSMITTANCE = 1e-4f;

inline int64_t chunks_of(int64_t count) { return (count + CHUNK - 1) / CHUNK; }

// A pinhole camera with its world-to-camera transform, and the settings that the projection needs.
struct Camera {
  float rotation[9], translation[3];
  float fx, fy, cx, cy, skew;
  float low_pass;
  int width, height;
  bool compensate;
};

// The Gaussians of one scene; a number of Gaussian i is at pointer[i * (3, 6, 1 or 3) + k].
struct Gaussians {
  const float *means, *covariances, *opacities, *colors;
  int64_t count;
};

struct Gradients {
  float *means, *covariances, *opacities, *colors;
};

// A projected Gaussian. At the offset d = pixel - (x, y) its alpha is 2^(log2_opacity - u^2 - v^2) with
// u = ux dx + uy dy and v = vy dy: the whitened offset, which stays exact for needles where a conic does not.
struct Splat {
  float x, y, ux, uy, vy, log2_opacity, red, green;
  float blue, z;
  float half_height;            // pixels: farther rows cannot reach 1/255
  int32_t id;                   // which Gaussian of the scene
  uint16_t x0, x1, y0, y1;      // its bounding box in tiles, last ones included
  int32_t first_slot;           // its pairs are slots first_slot, ..., from the first row of tiles to the last
  int32_t slots;                // how many
};
static_assert(sizeof(Splat) == 64, "one cache line, and what store_splats writes");

// One picture and all that the backward needs of its forward.
struct Frame {
  Camera camera;
  Gaussians gaussians;
  int tiles_x, tiles_y;
  Splat* splats;                // [n] those of chunk c of the Gaussians start at c * CHUNK, in the Gaussians' order
  int32_t* visible;             // [chunks] how many they are
  int64_t pair_count;
  int32_t* tile_start;          // [tiles + 1] into pairs
  int32_t* pairs;               // [pair_count] indices of splats, tile by tile, front to back
  int32_t* pair_of_slot;        // [pair_count] where a splat's pairs went
  uint16_t* rows;               // [pair_count] bit r: the pair changed a pixel of the tile's row r
  float* transmittance;         // [tiles * TILE_PIXELS] tile by tile
  int32_t* last;                // [tiles * TILE_PIXELS] the last pair of a finished pixel, else INT32_MAX
};

// One picture's planes, or their gradients; a null gradient is zero.
struct Planes {
  float *image, *alpha, *depth; // [3, h, w], [h, w], [h, w]
};

// The stages, once an instruction set.
struct Kernels {
  // Projects Gaussians [begin, end) to splats (slots unset); returns how many can be seen.
  int64_t (*project)(const Camera&, const Gaussians&, int64_t begin, int64_t end, Splat* splats);
  // keep: write rows, transmittance and last for the backward.
  void (*blend)(const Frame&, int tile, const float* background, bool keep, const Planes& out);
  void (*blend_backward)(const Frame&, int tile, const float* background, const float* depth, const Planes& gradients,
                         float* pair_sums);
  // Adds the gradients of a chunk's splats to those of their Gaussians.
  void (*project_backward)(const Frame&, int64_t chunk, const float* pair_sums, const Gradients&);
};

extern const Kernels baseline_kernels;
#if defined(LRM4D_HAS_AVX2)
extern const Kernels avx2_kernels;
#endif
