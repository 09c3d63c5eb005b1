// What the operator (evidence.cpp) hands to the kernel (evidence_kernel.cpp), and room for what the kernel finds.
#pragma once

#include <stdint.h>

constexpr int MOST_LANES = 16;
constexpr int WIDTHS = 3;  // of nearness in time, len(TIME_WIDTHS)
constexpr int CHANNELS = 3 * WIDTHS;

// One view's picture, premultiplied RGBA, with a row and a column of nothing below and right of it, so that a bilinear
// look-up never leaves it, and one more row of nothing: the cell `empty`. Places (pixel coordinates less 0.5) outside
// of the box find nothing.
struct Picture {
  const char* texels;  // [height + 3, width + 1, 4] floats
  int32_t stride, empty;  // bytes
  float last_column, last_row, left, top, right, bottom;
  float projection[12];  // world to homogeneous pixel coordinates, [3, 4]
};

// A view as the pixels of one owner see it.
struct Witness {
  const Picture* picture;
  float weights[WIDTHS];
  float gap;  // model time from the owner to it
};

// Rays of pixels of one owner, pixel by pixel, and where what is found along them goes.
struct Rays {
  const float *origins, *directions, *velocities, *colors;  // [count, 3]
  const float* distances;  // [count, steps]
  char* evidence;  // [count, steps, CHANNELS], float32 or bfloat16
  int count;  // at most the kernel's lanes
  int64_t steps;
};

// Homogeneous pixel coordinates along each ray: value at distance 0, and slope.
struct alignas(64) Track {
  float start[3][MOST_LANES], slope[3][MOST_LANES];
  bool whole;  // all places on the rays are in the picture
};

// Memory for one thread: tracks [witnesses], distances [steps, MOST_LANES].
struct Scratch {
  Track* tracks;
  float* distances;
};

struct Kernel {
  int lanes;  // rays at a time
  void (*answer)(const Witness* witnesses, int count, const Rays& rays, float sharpness, bool bfloat16,
                 const Scratch& scratch);
};

extern const Kernel baseline_evidence, avx2_evidence, avx512_evidence;
