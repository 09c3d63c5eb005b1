// The operators lrm4d::rasterize_forward and rasterize_backward on PyTorch's stable ABI: tensors in, tensors out.
// Shapes and types are checked in Python (cpu.py), the only caller.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <optional>
#include <tuple>

#include "layout.h"
#include "stages.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

const Kernels& choose_kernels() {
#if defined(LRM4D_HAS_AVX2)
  const char* wanted = std::getenv("LRM4D_CPU_ISA");
  const bool baseline = wanted != nullptr && std::string_view(wanted) == "baseline";
  if (!baseline && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2_kernels;
#endif
  return baseline_kernels;
}

// [*batch, ...inner] with any strides over the batch; the inner dimensions are made contiguous.
class Batched {
 public:
  Batched(const Tensor& tensor, int64_t inner_dims) : tensor_(tensor), inner_dims_(inner_dims) {
    int64_t expected = 1;
    for (int64_t d = tensor.dim() - 1; d >= tensor.dim() - inner_dims; --d) {
      if (tensor.size(d) != 1 && tensor.stride(d) != expected) {
        tensor_ = torch::stable::contiguous(tensor);
        break;
      }
      expected *= tensor.size(d);
    }
  }
  const float* at(int64_t index) const {
    int64_t offset = 0;
    for (int64_t d = tensor_.dim() - inner_dims_ - 1; d >= 0; --d) {
      offset += index % tensor_.size(d) * tensor_.stride(d);
      index /= tensor_.size(d);
    }
    return (const float*)tensor_.const_data_ptr() + offset;
  }

 private:
  Tensor tensor_;
  int64_t inner_dims_;
};

struct Settings {
  int64_t width, height;
  double low_pass;
  bool compensate;
};

Camera read_camera(const float* world_to_camera, const float* intrinsics, const Settings& settings) {
  Camera c;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) c.rotation[i * 3 + j] = world_to_camera[i * 4 + j];
    c.translation[i] = world_to_camera[i * 4 + 3];
  }
  c.fx = intrinsics[0];
  c.skew = intrinsics[1];
  c.cx = intrinsics[2];
  c.fy = intrinsics[4];
  c.cy = intrinsics[5];
  c.low_pass = (float)settings.low_pass;
  c.width = (int)settings.width;
  c.height = (int)settings.height;
  c.compensate = settings.compensate;
  return c;
}

// The inputs, held while their pointers are used, and one frame a picture, scene by scene.
struct Batch {
  Batched means, covariances, opacities, colors;
  Tensor world_to_camera, intrinsics;
  int64_t scenes, views;
  std::vector<Frame> frames;

  Batch(const Tensor& means_, const Tensor& covariances_, const Tensor& opacities_, const Tensor& colors_,
        const Tensor& world_to_camera_, const Tensor& intrinsics_, const Settings& settings)
      : means(means_, 2), covariances(covariances_, 2), opacities(opacities_, 1), colors(colors_, 2),
        world_to_camera(torch::stable::contiguous(world_to_camera_)),
        intrinsics(torch::stable::contiguous(intrinsics_)) {
    scenes = 1;
    for (int64_t d = 0; d < means_.dim() - 2; ++d) scenes *= means_.size(d);
    views = world_to_camera.size(world_to_camera.dim() - 3);
    frames.resize(scenes * views);
    for (int64_t i = 0; i < scenes * views; ++i) {
      Frame& f = frames[i];
      const int64_t scene = i / views;
      f.camera = read_camera((const float*)world_to_camera.const_data_ptr() + i * 16,
                             (const float*)intrinsics.const_data_ptr() + i * 9, settings);
      f.gaussians = {means.at(scene), covariances.at(scene), opacities.at(scene), colors.at(scene),
                     means_.size(means_.dim() - 2)};
      f.tiles_x = (int)((settings.width + TILE_WIDTH - 1) / TILE_WIDTH);
      f.tiles_y = (int)((settings.height + TILE_HEIGHT - 1) / TILE_HEIGHT);
    }
  }
};

std::vector<Planes> planes_of(float* image, float* alpha, float* depth, int64_t pictures, int64_t pixels) {
  std::vector<Planes> planes;
  for (int64_t i = 0; i < pictures; ++i)
    planes.push_back({image ? image + i * 3 * pixels : nullptr, alpha ? alpha + i * pixels : nullptr,
                      depth ? depth + i * pixels : nullptr});
  return planes;
}

// Memory for run_forward: tensors where the backward will want it, else scratch.
class Memory {
 public:
  Memory(const Tensor& like, bool keep) : like_(like), keep_(keep) {}
  char* operator()(int64_t size) {
    if (!keep_) return scratch_.emplace_back(size).arena().base;
    kept.push_back(torch::stable::new_empty(like_, {size}, ScalarType::Byte));
    return (char*)kept.back().mutable_data_ptr();
  }
  std::vector<Tensor> kept;

 private:
  const Tensor& like_;
  bool keep_;
  std::deque<Scratch> scratch_;
};

// (image, alpha, depth, state): the state is for the backward, two tensors a group of pictures.
std::tuple<Tensor, Tensor, Tensor, std::vector<Tensor>> forward(
    Tensor means, Tensor covariances, Tensor opacities, Tensor colors, Tensor world_to_camera, Tensor intrinsics,
    Tensor background, int64_t width, int64_t height, double low_pass, bool compensate, int64_t group, bool keep) {
  const Kernels& kernels = choose_kernels();
  const Settings settings{width, height, low_pass, compensate};
  Batch batch(means, covariances, opacities, colors, world_to_camera, intrinsics, settings);
  const int64_t pictures = batch.frames.size();

  std::vector<int64_t> shape;
  for (int64_t d = 0; d < world_to_camera.dim() - 2; ++d) shape.push_back(world_to_camera.size(d));
  shape.insert(shape.end(), {3, height, width});
  Tensor image = torch::stable::new_empty(means, shape);
  shape[shape.size() - 3] = 1;
  Tensor alpha = torch::stable::new_empty(means, shape), depth = torch::stable::new_empty(means, shape);
  const std::vector<Planes> planes = planes_of((float*)image.mutable_data_ptr(), (float*)alpha.mutable_data_ptr(),
                                               (float*)depth.mutable_data_ptr(), pictures, width * height);
  const Tensor dense_background = torch::stable::contiguous(background);
  std::vector<Tensor> state;
  for (int64_t first = 0; first < pictures; first += group) {
    const int64_t count = std::min(group, pictures - first);
    const std::span<Frame> frames(&batch.frames[first], count);
    Memory memory(means, keep);
    run_forward(frames, kernels, (const float*)dense_background.const_data_ptr(), keep, {&planes[first], (size_t)count},
                [&](int64_t size) { return memory(size); });
    state.insert(state.end(), memory.kept.begin(), memory.kept.end());
  }
  return {image, alpha, depth, state};
}

// Gradients of (means, covariances, opacities, colors), each of its input's shape.
std::tuple<Tensor, Tensor, Tensor, Tensor> backward(
    MaybeTensor grad_image, MaybeTensor grad_alpha, MaybeTensor grad_depth, Tensor means, Tensor covariances,
    Tensor opacities, Tensor colors, Tensor world_to_camera, Tensor intrinsics, Tensor background, Tensor depth,
    std::vector<Tensor> state, int64_t width, int64_t height, double low_pass, bool compensate, int64_t group) {
  const Kernels& kernels = choose_kernels();
  const Settings settings{width, height, low_pass, compensate};
  Batch batch(means, covariances, opacities, colors, world_to_camera, intrinsics, settings);
  const int64_t pictures = batch.frames.size(), pixels = width * height;
  Tensor out[4];
  float* to[4];
  const Tensor* inputs[4] = {&means, &covariances, &opacities, &colors};
  for (int i = 0; i < 4; ++i) {
    // Drawing fills every number, but there is no drawing without pictures.
    out[i] = pictures > 0 ? torch::stable::new_empty(*inputs[i], inputs[i]->sizes())
                          : torch::stable::new_zeros(*inputs[i], inputs[i]->sizes());
    to[i] = (float*)out[i].mutable_data_ptr();
  }
  const int64_t n = means.size(means.dim() - 2);
  std::vector<Gradients> gradients;
  for (int64_t i = 0; i < batch.scenes; ++i)
    gradients.push_back({to[0] + i * n * 3, to[1] + i * n * 6, to[2] + i * n, to[3] + i * n * 3});

  Tensor dense[3];
  float* given[3] = {};
  const MaybeTensor* maybe[3] = {&grad_image, &grad_alpha, &grad_depth};
  for (int i = 0; i < 3; ++i) {
    if (!maybe[i]->has_value()) continue;
    dense[i] = torch::stable::contiguous(maybe[i]->value());
    given[i] = (float*)dense[i].mutable_data_ptr();
  }
  const std::vector<Planes> planes = planes_of(given[0], given[1], given[2], pictures, pixels);
  const Tensor dense_background = torch::stable::contiguous(background);
  for (int64_t first = 0, at = 0; first < pictures; first += group, at += 2) {
    const int64_t count = std::min(group, pictures - first);
    const std::span<Frame> frames(&batch.frames[first], count);
    Arena splats{(char*)state[at].mutable_data_ptr()}, pairs{(char*)state[at + 1].mutable_data_ptr()};
    lay_out_splats(frames, splats);
    for (Frame& f : frames) f.pair_count = count_pairs(f);
    lay_out_pairs(frames, pairs, true);
    run_backward(frames, kernels, (const float*)dense_background.const_data_ptr(),
                 (const float*)depth.const_data_ptr() + first * pixels, {&planes[first], (size_t)count}, first,
                 batch.views, gradients);
  }
  return {out[0], out[1], out[2], out[3]};
}

}  // namespace

STABLE_TORCH_LIBRARY(lrm4d, m) {
  m.def(
      "rasterize_forward(Tensor means, Tensor covariances, Tensor opacities, Tensor colors, Tensor world_to_camera, "
      "Tensor intrinsics, Tensor background, int width, int height, float low_pass, bool compensate, int group, "
      "bool keep) -> (Tensor image, Tensor alpha, Tensor depth, Tensor[] state)");
  m.def(
      "rasterize_backward(Tensor? grad_image, Tensor? grad_alpha, Tensor? grad_depth, Tensor means, "
      "Tensor covariances, Tensor opacities, Tensor colors, Tensor world_to_camera, Tensor intrinsics, "
      "Tensor background, Tensor depth, Tensor[] state, int width, int height, float low_pass, bool compensate, "
      "int group) -> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lrm4d, CPU, m) {
  m.impl("rasterize_forward", TORCH_BOX(&forward));
  m.impl("rasterize_backward", TORCH_BOX(&backward));
}
