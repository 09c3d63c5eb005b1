// The operator lrm4d::gather_evidence on PyTorch's stable ABI: what evidence.py describes and its reference computes.
// Shapes and types are checked in Python, the only caller.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

// Compiled twice on x86-64, chosen when the library is loaded.
#if defined(__x86_64__) && defined(__gnu_linux__)
#define LRM4D_CLONES __attribute__((target_clones("default", "arch=haswell")))
#else
#define LRM4D_CLONES
#endif

namespace {

using torch::stable::Tensor;

// One RGBA sample in a register; SSE, NEON or whatever the compiler has for 16 bytes.
typedef float Rgba __attribute__((vector_size(16)));

const float* floats(const Tensor& tensor) { return (const float*)tensor.const_data_ptr(); }

Rgba load(const float* pointer) {
  Rgba value;
  std::memcpy(&value, pointer, sizeof(value));
  return value;
}

// exp(x) for x <= 0, relative error below 1e-5: 2^whole by the exponent's bits, 2^fraction by a polynomial.
inline __attribute__((always_inline)) float exp_of_negative(float x) {
  float y = std::max(x * 1.44269504f, -126.0f);
  float whole = (float)(int32_t)(y - 0.5f);
  float f = y - whole;
  float p = 1.0f + f * (0.69314718f + f * (0.24022651f + f * (0.05550411f + f * (0.00961813f + f * 0.00133336f))));
  int32_t bits = ((int32_t)whole + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return p * scale;
}

// A picture with its last row and column doubled, so that a look-up never leaves it, and with a map of where a look-up
// finds anything: most places along a ray project beside the object, and need no more than that.
struct Picture {
  int height, width;
  std::vector<float> pixels;  // [height + 1, width + 1, 4], premultiplied
  std::vector<uint8_t> occupied;  // [height + 1, width + 1]: any coverage in the pixel, right of it and below

  Picture(const float* source, int64_t rows, int64_t columns)
      : height((int)rows), width((int)columns), pixels((rows + 1) * (columns + 1) * 4), occupied((rows + 1) * (columns + 1)) {
    const int64_t stride = columns + 1;
    for (int64_t r = 0; r <= rows; ++r) {
      for (int64_t c = 0; c <= columns; ++c) {
        const float* from = source + (std::min(r, rows - 1) * columns + std::min(c, columns - 1)) * 4;
        std::memcpy(&pixels[(r * stride + c) * 4], from, 4 * sizeof(float));
        if (from[3] <= 0) continue;
        for (int64_t i = std::max<int64_t>(r - 1, 0); i <= r; ++i) {
          for (int64_t j = std::max<int64_t>(c - 1, 0); j <= c; ++j) occupied[i * stride + j] = 1;
        }
      }
    }
  }

  Rgba at(int index, float fx, float fy) const {
    const float* upper = pixels.data() + (int64_t)index * 4;
    const float* lower = upper + (width + 1) * 4;
    Rgba a = load(upper), b = load(upper + 4), c = load(lower), d = load(lower + 4);
    Rgba up = a + (b - a) * fx, down = c + (d - c) * fx;
    return up + (down - up) * fy;
  }
};

// What one view says of every step along one ray, and room for where the steps fall in its picture.
struct Answers {
  std::vector<float> covered, agreeing, valid, x, y;
  std::vector<int32_t> index;
  explicit Answers(int64_t steps)
      : covered(steps), agreeing(steps), valid(steps), x(steps), y(steps), index(steps) {}
};

// Three passes, so that the first and the last run on whole registers and only the look-up goes one by one.
// Bilinear, pixel centres at +0.5, clamped to the border. Returns whether the view covers any step.
LRM4D_CLONES bool ask_view(const Picture& picture, const float* projection, const float* origin, const float* direction,
                           const float* __restrict distances, int64_t steps, const float* color, float sharpness,
                           Answers& answers) {
  float start[3], slope[3];  // homogeneous pixel coordinates are linear in the distance
  for (int i = 0; i < 3; ++i) {
    const float* row = projection + 4 * i;
    start[i] = row[0] * origin[0] + row[1] * origin[1] + row[2] * origin[2] + row[3];
    slope[i] = row[0] * direction[0] + row[1] * direction[1] + row[2] * direction[2];
  }
  float* __restrict xs = answers.x.data();
  float* __restrict ys = answers.y.data();
  float* __restrict valid = answers.valid.data();
  float* __restrict covered = answers.covered.data();
  float* __restrict difference = answers.agreeing.data();
  int32_t* __restrict indices = answers.index.data();
  const float right = (float)picture.width, bottom = (float)picture.height;
  const int32_t stride = picture.width + 1;
  for (int64_t s = 0; s < steps; ++s) {
    float z = start[2] + distances[s] * slope[2];
    float inverse = 1.0f / z;
    float x = (start[0] + distances[s] * slope[0]) * inverse, y = (start[1] + distances[s] * slope[1]) * inverse;
    bool inside = (z > 0) & (x >= 0) & (x <= right) & (y >= 0) & (y <= bottom);
    valid[s] = inside ? 1.0f : 0.0f;
    x = inside ? std::min(std::max(x - 0.5f, 0.0f), right - 1) : 0.0f;
    y = inside ? std::min(std::max(y - 0.5f, 0.0f), bottom - 1) : 0.0f;
    int32_t column = (int32_t)x, row = (int32_t)y;
    xs[s] = x - (float)column;
    ys[s] = y - (float)row;
    indices[s] = row * stride + column;
  }
  bool any = false;
  for (int64_t s = 0; s < steps; ++s) {
    covered[s] = 0;
    difference[s] = 0;
    if (!picture.occupied[indices[s]] || valid[s] == 0.0f) continue;
    any = true;
    Rgba sample = picture.at(indices[s], xs[s], ys[s]);
    float inverse = 1.0f / std::max(sample[3], 1e-3f);
    float r = sample[0] * inverse - color[0], g = sample[1] * inverse - color[1], b = sample[2] * inverse - color[2];
    covered[s] = sample[3];
    difference[s] = r * r + g * g + b * b;
  }
  if (!any) return false;
  for (int64_t s = 0; s < steps; ++s) difference[s] = covered[s] * exp_of_negative(-sharpness * difference[s]);
  return true;
}

LRM4D_CLONES void add_answers(const Answers& answers, bool covers, float weight, int64_t steps, float* __restrict sum) {
  for (int64_t s = 0; s < steps; ++s) sum[2 * steps + s] += weight * answers.valid[s];
  if (!covers) return;
  for (int64_t s = 0; s < steps; ++s) sum[s] += weight * answers.covered[s];
  for (int64_t s = 0; s < steps; ++s) sum[steps + s] += weight * answers.agreeing[s];
}

// pictures [view, height, width, 4], projections [view, 3, 4], weights [pixel, view, width], gaps [pixel, view],
// origins, directions, velocities and colors [pixel, 3], distances [pixel, step] -> [pixel, step, 3 * width]
Tensor gather_evidence(const Tensor& pictures, const Tensor& projections, const Tensor& weights, const Tensor& gaps,
                       const Tensor& origins, const Tensor& directions, const Tensor& velocities,
                       const Tensor& distances, const Tensor& colors, double sharpness) {
  const int64_t views = pictures.size(0), height = pictures.size(1), width = pictures.size(2);
  const int64_t pixels = origins.size(0), steps = distances.size(1), widths = weights.size(2);
  const int64_t channels = 3 * widths;
  Tensor evidence = torch::stable::new_empty(distances, {pixels, steps, channels});
  float* out = (float*)evidence.mutable_data_ptr();
  std::vector<Picture> padded;
  for (int64_t v = 0; v < views; ++v) padded.emplace_back(floats(pictures) + v * height * width * 4, height, width);
  torch::stable::parallel_for(0, pixels, 64, [&](int64_t begin, int64_t end) {
    Answers answers(steps);
    std::vector<float> sums(channels * steps);
    for (int64_t p = begin; p < end; ++p) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      for (int64_t v = 0; v < views; ++v) {
        const float* weight = floats(weights) + (p * views + v) * widths;
        if (std::all_of(weight, weight + widths, [](float w) { return w == 0.0f; })) continue;
        float origin[3];  // of the ray moved to where its points are at the view's time
        for (int i = 0; i < 3; ++i) {
          origin[i] = floats(origins)[p * 3 + i] + floats(gaps)[p * views + v] * floats(velocities)[p * 3 + i];
        }
        const bool covers = ask_view(padded[v], floats(projections) + v * 12, origin, floats(directions) + p * 3,
                 floats(distances) + p * steps, steps, floats(colors) + p * 3, (float)sharpness, answers);
        for (int64_t k = 0; k < widths; ++k) {
          if (weight[k] != 0.0f) add_answers(answers, covers, weight[k], steps, sums.data() + 3 * k * steps);
        }
      }
      for (int64_t k = 0; k < widths; ++k) {
        const float* sum = sums.data() + 3 * k * steps;
        for (int64_t s = 0; s < steps; ++s) {
          float total = sum[2 * steps + s], inverse = 1.0f / std::max(total, 1e-6f);
          float* channel = out + (p * steps + s) * channels + 3 * k;
          channel[0] = sum[s] * inverse;
          channel[1] = sum[steps + s] * inverse;
          channel[2] = total / (1.0f + total);
        }
      }
    }
  });
  return evidence;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(lrm4d, library) {
  library.def(
      "gather_evidence(Tensor pictures, Tensor projections, Tensor weights, Tensor gaps, Tensor origins, "
      "Tensor directions, Tensor velocities, Tensor distances, Tensor colors, float sharpness) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lrm4d, CPU, library) { library.impl("gather_evidence", TORCH_BOX(&gather_evidence)); }
