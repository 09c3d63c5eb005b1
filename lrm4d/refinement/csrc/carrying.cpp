// The operators lrm4d::carry_forward and lrm4d::carry_backward on PyTorch's stable ABI: what carrying.py describes and
// its reference computes. Shapes and types are checked in Python, the only caller.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace {

using torch::stable::Tensor;

typedef float Four __attribute__((vector_size(16)));

Four four(float value) { return Four{} + value; }
Four load(const float* from) {
  Four to;
  memcpy(&to, from, sizeof(to));
  return to;
}
void store(float* to, Four from) { memcpy(to, &from, sizeof(from)); }

// A 3x4 matrix (linear | offset) by rows.
struct Affine {
  Four row[3];
};

Affine load_affine(const float* from) { return {{load(from), load(from + 4), load(from + 8)}}; }

// a after b: (A B | A b + a).
Affine compose(const Affine& a, const Affine& b) {
  Affine to;
  for (int r = 0; r < 3; ++r) {
    const Four x = a.row[r];
    to.row[r] = x[0] * b.row[0] + x[1] * b.row[1] + x[2] * b.row[2] + Four{0, 0, 0, x[3]};
  }
  return to;
}

const float* floats(const Tensor& tensor) { return (const float*)tensor.const_data_ptr(); }
float* floats_of(const Tensor& tensor) { return (float*)tensor.mutable_data_ptr(); }

// What hangs on what: [time, node, 3, 4], [point, 3, 4], [point, owner], [point, owner].
struct Inputs {
  const float *transforms, *frames, *weights;
  const int64_t* owners;
  int64_t times, nodes, points, owned_by;

  Inputs(const Tensor& transforms_, const Tensor& frames_, const Tensor& owners_, const Tensor& weights_)
      : transforms(floats(transforms_)),
        frames(floats(frames_)),
        weights(floats(weights_)),
        owners((const int64_t*)owners_.const_data_ptr()),
        times(transforms_.size(0)),
        nodes(transforms_.size(1)),
        points(frames_.size(0)),
        owned_by(owners_.size(1)) {}

  // The weighted sum of the transforms of a point's nodes.
  Affine blend(int64_t time, int64_t point) const {
    Affine sum = {};
    for (int64_t k = 0; k < owned_by; ++k) {
      const Four weight = four(weights[point * owned_by + k]);
      const Affine one = load_affine(transforms + 12 * (time * nodes + owners[point * owned_by + k]));
      for (int r = 0; r < 3; ++r) sum.row[r] += weight * one.row[r];
    }
    return sum;
  }
};

// Fills means [time, point, 3] and covariances [time, point, 6].
void carry_forward(Tensor means, Tensor covariances, const Tensor& transforms, const Tensor& frames,
                   const Tensor& owners, const Tensor& weights) {
  const Inputs in(transforms, frames, owners, weights);
  float *to_means = floats_of(means), *to_covariances = floats_of(covariances);
  torch::stable::parallel_for(0, in.times, 1, [&](int64_t begin, int64_t end) {
    for (int64_t time = begin; time < end; ++time)
      for (int64_t point = 0; point < in.points; ++point) {
        const Affine placed = compose(in.blend(time, point), load_affine(in.frames + 12 * point));
        float* mean = to_means + 3 * (time * in.points + point);
        float* packed = to_covariances + 6 * (time * in.points + point);
        for (int r = 0; r < 3; ++r) {
          mean[r] = placed.row[r][3];
          for (int s = r; s < 3; ++s) {
            const Four product = placed.row[r] * placed.row[s];
            *packed++ = product[0] + product[1] + product[2];
          }
        }
      }
  });
}

constexpr int64_t CHUNKS = 8;  // of the points, whatever the threads: so sums have one order

// Fills the gradients of transforms and frames.
void carry_backward(Tensor grad_transforms, Tensor grad_frames, const Tensor& grad_means,
                    const Tensor& grad_covariances, const Tensor& transforms, const Tensor& frames,
                    const Tensor& owners, const Tensor& weights) {
  const Inputs in(transforms, frames, owners, weights);
  const float *by_means = floats(grad_means), *by_covariances = floats(grad_covariances);
  float *to_transforms = floats_of(grad_transforms), *to_frames = floats_of(grad_frames);
  const int64_t size = 12 * in.times * in.nodes;
  std::vector<float> sums(CHUNKS * size);
  torch::stable::parallel_for(0, CHUNKS, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      float* mine = sums.data() + chunk * size;
      for (int64_t point = chunk * in.points / CHUNKS; point < (chunk + 1) * in.points / CHUNKS; ++point) {
        const Affine frame = load_affine(in.frames + 12 * point);
        const Four columns[3] = {{frame.row[0][0], frame.row[1][0], frame.row[2][0], 0},
                                 {frame.row[0][1], frame.row[1][1], frame.row[2][1], 0},
                                 {frame.row[0][2], frame.row[1][2], frame.row[2][2], 0}};
        const Four place = {frame.row[0][3], frame.row[1][3], frame.row[2][3], 1};
        Affine to_frame = {};
        for (int64_t time = 0; time < in.times; ++time) {
          const Affine blended = in.blend(time, point), placed = compose(blended, frame);
          const float* m = by_means + 3 * (time * in.points + point);
          const float* c = by_covariances + 6 * (time * in.points + point);
          // By F of F F^T, whose entries off the diagonal are packed once; then by the mean, the last column.
          const float both[3][3] = {{2 * c[0], c[1], c[2]}, {c[1], 2 * c[3], c[4]}, {c[2], c[4], 2 * c[5]}};
          Affine to_blended;
          for (int r = 0; r < 3; ++r) {
            Four by_placed = both[r][0] * placed.row[0] + both[r][1] * placed.row[1] + both[r][2] * placed.row[2];
            by_placed[3] = m[r];
            for (int k = 0; k < 3; ++k) to_frame.row[k] += blended.row[r][k] * by_placed;
            to_blended.row[r] = by_placed[0] * columns[0] + by_placed[1] * columns[1] + by_placed[2] * columns[2] +
                                by_placed[3] * place;
          }
          for (int64_t k = 0; k < in.owned_by; ++k) {
            float* to = mine + 12 * (time * in.nodes + in.owners[point * in.owned_by + k]);
            const Four weight = four(in.weights[point * in.owned_by + k]);
            for (int r = 0; r < 3; ++r) store(to + 4 * r, load(to + 4 * r) + weight * to_blended.row[r]);
          }
        }
        for (int r = 0; r < 3; ++r) store(to_frames + 12 * point + 4 * r, to_frame.row[r]);
      }
    }
  });
  for (int64_t i = 0; i < size; ++i) {
    float sum = 0;
    for (int64_t chunk = 0; chunk < CHUNKS; ++chunk) sum += sums[chunk * size + i];
    to_transforms[i] = sum;
  }
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(lrm4d, library) {
  library.def(
      "carry_forward(Tensor(a!) means, Tensor(b!) covariances, Tensor transforms, Tensor frames, Tensor owners, "
      "Tensor weights) -> ()");
  library.def(
      "carry_backward(Tensor(a!) grad_transforms, Tensor(b!) grad_frames, Tensor grad_means, Tensor grad_covariances, "
      "Tensor transforms, Tensor frames, Tensor owners, Tensor weights) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(lrm4d, CPU, library) {
  library.impl("carry_forward", TORCH_BOX(&carry_forward));
  library.impl("carry_backward", TORCH_BOX(&carry_backward));
}
