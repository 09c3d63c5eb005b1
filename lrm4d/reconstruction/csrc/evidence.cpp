// The operator lrm4d::gather_evidence on PyTorch's stable ABI: what evidence.py describes and its reference computes.
// Shapes and types are checked in Python, the only caller.
#include "evidence.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <vector>

namespace {

using torch::stable::Tensor;

const Kernel& choose_kernel() {
#if defined(LRM4D_X86)
  const char* wanted = std::getenv("LRM4D_CPU_ISA");
  if (wanted != nullptr && std::string_view(wanted) == "baseline") return baseline_evidence;
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  if (avx512 && (wanted == nullptr || std::string_view(wanted) != "avx2")) return avx512_evidence;
  if (avx2) return avx2_evidence;
#endif
  return baseline_evidence;
}

const float* floats(const Tensor& tensor) { return (const float*)tensor.const_data_ptr(); }

// All pictures, laid out for the kernel.
class Pictures {
 public:
  // images [view, 3, height, width], straight; alphas [view, 1, height, width]; projections [view, 3, 4]
  Pictures(const Tensor& images, const Tensor& alphas, const Tensor& projections)
      : height_(images.size(2)), width_(images.size(3)), size_((height_ + 3) * (width_ + 1) * 4) {
    texels_.resize(images.size(0) * size_);
    for (int64_t v = 0; v < images.size(0); ++v) {
      const int64_t area = height_ * width_;
      fill(floats(images) + v * 3 * area, floats(alphas) + v * area, &texels_[v * size_]);
      pictures_.back().texels = (const char*)&texels_[v * size_];
      std::copy_n(floats(projections) + 12 * v, 12, pictures_.back().projection);
    }
  }
  const Picture& operator[](int64_t view) const { return pictures_[view]; }

 private:
  void fill(const float* image, const float* alpha, float* texels) {
    const int64_t area = height_ * width_, stride = width_ + 1;
    int64_t left = width_, right = -1, top = height_, bottom = -1;
    for (int64_t r = 0; r < height_; ++r) {
      int64_t first = width_, last = -1;
      for (int64_t c = 0; c < width_; ++c) {
        const int64_t i = r * width_ + c;
        float* texel = texels + (r * stride + c) * 4;
        for (int k = 0; k < 3; ++k) texel[k] = image[k * area + i] * alpha[i];
        texel[3] = alpha[i];
        if (alpha[i] > 0) {
          first = std::min(first, c);
          last = c;
        }
      }
      left = std::min(left, first);
      right = std::max(right, last);
      if (last >= 0) {
        top = std::min(top, r);
        bottom = r;
      }
    }
    const int32_t bytes = stride * sizeof(float) * 4;
    pictures_.push_back({nullptr, bytes, (int32_t)(height_ + 1) * bytes, (float)(width_ - 1), (float)(height_ - 1),
                         (float)(left - 1), (float)(top - 1), (float)(right + 1), (float)(bottom + 1), {}});
  }

  int64_t height_, width_, size_;
  std::vector<float> texels_;
  std::vector<Picture> pictures_;
};

// A run of pixels with one owner, at most as many as a kernel takes.
struct Block {
  int64_t begin, end;
};

std::vector<Block> cut_blocks(const int64_t* owners, int64_t pixels, int lanes) {
  std::vector<Block> blocks;
  for (int64_t p = 0; p < pixels; ++p) {
    if (p == 0 || owners[p] != owners[p - 1] || p - blocks.back().begin == lanes) blocks.push_back({p, p});
    blocks.back().end = p + 1;
  }
  return blocks;
}

// For each owner (first) the views (second) that have a say. weights [view, view, width], gaps [view, view]
std::vector<std::vector<Witness>> call_witnesses(const Tensor& weights, const Tensor& gaps, const Pictures& pictures) {
  const int64_t views = gaps.size(0);
  std::vector<std::vector<Witness>> witnesses(views);
  for (int64_t i = 0; i < views * views; ++i) {
    const float* weight = floats(weights) + i * WIDTHS;
    if (std::all_of(weight, weight + WIDTHS, [](float w) { return w == 0.0f; })) continue;
    Witness witness{&pictures[i % views], {}, floats(gaps)[i]};
    std::copy_n(weight, WIDTHS, witness.weights);
    witnesses[i / views].push_back(witness);
  }
  return witnesses;
}

// images [view, 3, height, width], alphas [view, 1, height, width], projections [view, 3, 4],
// weights [view, view, width], gaps [view, view], owners [pixel] (int64), origins, directions, velocities and colors
// [pixel, 3], distances [pixel, step] -> evidence [pixel, step, 3 * width], float32 or bfloat16
void gather_evidence(Tensor evidence, const Tensor& images, const Tensor& alphas, const Tensor& projections,
                     const Tensor& weights, const Tensor& gaps, const Tensor& owners, const Tensor& origins,
                     const Tensor& directions, const Tensor& velocities, const Tensor& distances, const Tensor& colors,
                     double sharpness) {
  if (distances.numel() == 0) return;
  const Kernel& kernel = choose_kernel();
  const Pictures pictures(images, alphas, projections);
  const std::vector<std::vector<Witness>> witnesses = call_witnesses(weights, gaps, pictures);
  const int64_t* owner = (const int64_t*)owners.const_data_ptr();
  const std::vector<Block> blocks = cut_blocks(owner, owners.size(0), kernel.lanes);
  const int64_t steps = distances.size(1);
  const size_t size = evidence.element_size();
  char* out = (char*)evidence.mutable_data_ptr();
  torch::stable::parallel_for(0, blocks.size(), 8, [&](int64_t begin, int64_t end) {
    std::vector<Track> tracks(gaps.size(0));
    std::vector<float> room(steps * MOST_LANES);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t p = blocks[b].begin;
      const std::vector<Witness>& called = witnesses[owner[p]];
      const Rays rays{floats(origins) + 3 * p, floats(directions) + 3 * p, floats(velocities) + 3 * p,
                      floats(colors) + 3 * p, floats(distances) + steps * p, out + p * steps * CHANNELS * size,
                      (int)(blocks[b].end - p), steps};
      kernel.answer(called.data(), (int)called.size(), rays, (float)sharpness, size == 2,
                    {tracks.data(), room.data()});
    }
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(lrm4d, library) {
  library.def(
      "gather_evidence(Tensor(a!) evidence, Tensor images, Tensor alphas, Tensor projections, Tensor weights, "
      "Tensor gaps, Tensor owners, Tensor origins, Tensor directions, Tensor velocities, Tensor distances, "
      "Tensor colors, float sharpness) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(lrm4d, CPU, library) { library.impl("gather_evidence", TORCH_BOX(&gather_evidence)); }
