// The operators lrm4d::rasterize_forward and lrm4d::rasterize_backward on PyTorch's stable ABI: tensors in, tensors out.
// Shapes and types are checked in Python (cpu.py), the only caller.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdlib>
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

Tensor bytes(const Tensor& like, int64_t count) { return torch::stable::new_empty(like, {count}, ScalarType::Byte); }

// (image, alpha, depth, splats, pairs): the last two are for the backward, and mean nothing outside.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> forward(
    Tensor means, Tensor covariances, Tensor opacities, Tensor colors, Tensor world_to_camera, Tensor intrinsics,
    Tensor background, int64_t width, int64_t height, double low_pass, bool compensate, bool keep) {
  const Kernels& kernels = choose_kernels();
  Batch batch(means, covariances, opacities, colors, world_to_camera, intrinsics, {width, height, low_pass, compensate});
  std::vector<Frame>& frames = batch.frames;
  const int64_t pictures = frames.size();

  std::vector<int64_t> shape;
  for (int64_t d = 0; d < world_to_camera.dim() - 2; ++d) shape.push_back(world_to_camera.size(d));
  shape.insert(shape.end(), {3, height, width});
  Tensor image = torch::stable::new_empty(means, shape);
  shape[shape.size() - 3] = 1;
  Tensor alpha = torch::stable::new_empty(means, shape), depth = torch::stable::new_empty(means, shape);
  if (pictures == 0) return {image, alpha, depth, bytes(means, 0), bytes(means, 0)};

  Unsorted unsorted;
  project_and_sort(frames, kernels, unsorted);
  Arena measure;
  measure.take<int64_t>(pictures * 2);
  lay_out_splats(frames, measure);
  Tensor splats = bytes(means, measure.used);
  Arena arena{(char*)splats.mutable_data_ptr()};
  int64_t* counts_out = arena.take<int64_t>(pictures * 2);
  lay_out_splats(frames, arena);

  TileCounts counts;
  sort_and_count(frames, unsorted, counts);
  for (int64_t i = 0; i < pictures; ++i) {
    STD_TORCH_CHECK(frames[i].pair_count <= INT32_MAX, "rasterize: more than 2^31 tiles are touched in one picture");
    counts_out[i * 2] = frames[i].splat_count;
    counts_out[i * 2 + 1] = frames[i].pair_count;
  }
  measure = Arena{};
  lay_out_pairs(frames, measure, keep);
  Tensor pairs = bytes(means, measure.used);
  arena = Arena{(char*)pairs.mutable_data_ptr()};
  lay_out_pairs(frames, arena, keep);
  std::vector<std::vector<int32_t>> first_slots = start_tiles(frames, counts);
  place_all_pairs(frames, counts, first_slots);

  const Tensor dense_background = torch::stable::contiguous(background);
  blend_all(frames, kernels, (const float*)dense_background.const_data_ptr(), keep,
            planes_of((float*)image.mutable_data_ptr(), (float*)alpha.mutable_data_ptr(),
                      (float*)depth.mutable_data_ptr(), pictures, width * height));
  return {image, alpha, depth, splats, pairs};
}

// Gradients of (means, covariances, opacities, colors), each of its input's shape.
std::tuple<Tensor, Tensor, Tensor, Tensor> backward(
    MaybeTensor grad_image, MaybeTensor grad_alpha, MaybeTensor grad_depth, Tensor means, Tensor covariances,
    Tensor opacities, Tensor colors, Tensor world_to_camera, Tensor intrinsics, Tensor background, Tensor depth,
    Tensor splats, Tensor pairs, int64_t width, int64_t height, double low_pass, bool compensate) {
  const Kernels& kernels = choose_kernels();
  Batch batch(means, covariances, opacities, colors, world_to_camera, intrinsics, {width, height, low_pass, compensate});
  std::vector<Frame>& frames = batch.frames;
  const int64_t pictures = frames.size();
  Tensor out[4];
  std::vector<Gradients> gradients(batch.scenes);
  const Tensor* inputs[4] = {&means, &covariances, &opacities, &colors};
  float* pointers[4];
  for (int i = 0; i < 4; ++i) {
    out[i] = torch::stable::new_zeros(*inputs[i], inputs[i]->sizes());
    pointers[i] = (float*)out[i].mutable_data_ptr();
  }
  if (pictures == 0) return {out[0], out[1], out[2], out[3]};
  const int64_t n = frames[0].gaussians.count;
  for (int64_t i = 0; i < batch.scenes; ++i)
    gradients[i] = {pointers[0] + i * n * 3, pointers[1] + i * n * 6, pointers[2] + i * n, pointers[3] + i * n * 3};

  Arena arena{(char*)splats.mutable_data_ptr()};
  const int64_t* counts = arena.take<int64_t>(pictures * 2);
  for (int64_t i = 0; i < pictures; ++i) {
    frames[i].splat_count = counts[i * 2];
    frames[i].pair_count = counts[i * 2 + 1];
  }
  lay_out_splats(frames, arena);
  arena = Arena{(char*)pairs.mutable_data_ptr()};
  lay_out_pairs(frames, arena, true);

  Tensor dense[3];
  float* planes[3];
  MaybeTensor* given[3] = {&grad_image, &grad_alpha, &grad_depth};
  for (int i = 0; i < 3; ++i) {
    if (given[i]->has_value()) dense[i] = torch::stable::contiguous(given[i]->value());
    planes[i] = given[i]->has_value() ? (float*)dense[i].const_data_ptr() : nullptr;
  }
  const Tensor dense_background = torch::stable::contiguous(background);
  run_backward(frames, kernels, (const float*)dense_background.const_data_ptr(), (const float*)depth.const_data_ptr(),
               planes_of(planes[0], planes[1], planes[2], pictures, width * height), batch.views, gradients);
  return {out[0], out[1], out[2], out[3]};
}

}  // namespace

STABLE_TORCH_LIBRARY(lrm4d, m) {
  m.def(
      "rasterize_forward(Tensor means, Tensor covariances, Tensor opacities, Tensor colors, Tensor world_to_camera, "
      "Tensor intrinsics, Tensor background, int width, int height, float low_pass, bool compensate, bool keep) -> "
      "(Tensor image, Tensor alpha, Tensor depth, Tensor splats, Tensor pairs)");
  m.def(
      "rasterize_backward(Tensor? grad_image, Tensor? grad_alpha, Tensor? grad_depth, Tensor means, "
      "Tensor covariances, Tensor opacities, Tensor colors, Tensor world_to_camera, Tensor intrinsics, "
      "Tensor background, Tensor depth, Tensor splats, Tensor pairs, int width, int height, float low_pass, bool compensate) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lrm4d, CPU, m) {
  m.impl("rasterize_forward", TORCH_BOX(&forward));
  m.impl("rasterize_backward", TORCH_BOX(&backward));
}
