// The operators lrm4d::splat_forward and lrm4d::splat_backward on PyTorch's stable ABI: what splatting.py describes and
// its reference computes. Shapes and types are checked in Python, the only caller.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

namespace {

using torch::stable::Tensor;

// splatting.py says what they mean.
struct Settings {
  float softness, jump, most_stretch, margin, snap;
};

struct Size {
  int64_t width, height;
  int64_t area() const { return width * height; }
};

float snap_to_centre(float value, float snap) {
  const float centre = std::floor(value) + 0.5f;
  return std::fabs(value - centre) < snap ? centre : value;
}

// Where the source pixels of one picture land: pixel coordinates, depth (0: nowhere), and the size of their footprints.
struct Landing {
  std::vector<float> x, y, z, span_x, span_y;

  Landing(const float* depths, const float* matrix, const float* offset, Size size, const Settings& settings)
      : x(size.area()), y(size.area()), z(size.area()), span_x(size.area()), span_y(size.area()) {
    for (int64_t r = 0, i = 0; r < size.height; ++r)
      for (int64_t c = 0; c < size.width; ++c, ++i) place(i, c + 0.5f, r + 0.5f, depths[i], matrix, offset, settings);
    for (int64_t r = 0, i = 0; r < size.height; ++r)
      for (int64_t c = 0; c < size.width; ++c, ++i)
        if (z[i] > 0) measure(i, r, c, depths, matrix, size, settings);
  }

 private:
  void place(int64_t i, float u, float v, float depth, const float* m, const float* b, const Settings& settings) {
    const float qx = (m[0] * u + m[1] * v + m[2]) * depth + b[0];
    const float qy = (m[3] * u + m[4] * v + m[5]) * depth + b[1];
    const float qz = (m[6] * u + m[7] * v + m[8]) * depth + b[2];
    const float px = qx / qz, py = qy / qz;
    const bool lands = depth > 0 && qz > 0 && std::isfinite(qz) && std::fabs(px) < 1e6f && std::fabs(py) < 1e6f;
    x[i] = lands ? snap_to_centre(px, settings.snap) : 0;
    y[i] = lands ? snap_to_centre(py, settings.snap) : 0;
    z[i] = lands ? qz : 0;
  }

  // The distances to where the neighbours on the same surface land; without any, as if the surface faced the camera.
  void measure(int64_t i, int64_t r, int64_t c, const float* depths, const float* m, Size size,
               const Settings& settings) {
    float along[2][2];
    const float zoom = depths[i] / z[i];
    for (int axis = 0; axis < 2; ++axis) {
      const int64_t step = axis == 0 ? 1 : size.width;
      const int64_t place = axis == 0 ? c : r, count = axis == 0 ? size.width : size.height;
      float dx = -1, dy = -1;
      for (int side = -1; side <= 1; side += 2) {
        if (place + side < 0 || place + side >= count) continue;
        const int64_t n = i + side * step;
        if (!(z[n] > 0) || std::fabs(depths[n] - depths[i]) > settings.jump * std::min(depths[n], depths[i])) continue;
        dx = std::max(dx, std::fabs(x[n] - x[i]));
        dy = std::max(dy, std::fabs(y[n] - y[i]));
      }
      along[axis][0] = dx >= 0 ? dx : std::fabs(zoom * (m[axis] - x[i] * m[6 + axis]));
      along[axis][1] = dx >= 0 ? dy : std::fabs(zoom * (m[3 + axis] - y[i] * m[6 + axis]));
    }
    span_x[i] = std::clamp(along[0][0] + along[1][0], 1.0f, settings.most_stretch);
    span_y[i] = std::clamp(along[0][1] + along[1][1], 1.0f, settings.most_stretch);
  }
};

// The pixels whose centres are within `half` of `centre`, clipped to the picture: first to last.
struct Range {
  int64_t first, last;
  Range(float centre, float half, int64_t count)
      : first((int64_t)std::max(std::ceil(centre - half - 0.5f), 0.0f)),
        last((int64_t)std::min(std::floor(centre + half - 0.5f), (float)(count - 1))) {}
};

// For each pixel the source pixel whose footprint has its centre and is nearest; -1 for none.
void find_nearest(const Landing& from, int32_t* nearest, Size size, const Settings& settings) {
  std::vector<float> depth(size.area(), std::numeric_limits<float>::infinity());
  std::fill_n(nearest, size.area(), -1);
  for (int64_t i = 0; i < (int64_t)from.z.size(); ++i) {
    if (!(from.z[i] > 0)) continue;
    const Range columns(from.x[i], 0.5f * from.span_x[i] + settings.margin, size.width);
    const Range rows(from.y[i], 0.5f * from.span_y[i] + settings.margin, size.height);
    for (int64_t r = rows.first; r <= rows.last; ++r)
      for (int64_t p = r * size.width + columns.first; p <= r * size.width + columns.last; ++p)
        if (from.z[i] < depth[p]) {
          depth[p] = from.z[i];
          nearest[p] = (int32_t)i;
        }
  }
}

// What one source pixel is to one pixel: its weight = kx * ky * bell(d), d how far it lies from the nearest surface.
struct Touch {
  int64_t source, pixel;
  float dx, dy, kx, ky, d, bell, nearest_depth;
  float weight() const { return kx * ky * bell; }
};

template <class Visit>
void visit_touches(const Landing& from, const int32_t* nearest, Size size, const Settings& settings, Visit visit) {
  for (int64_t i = 0; i < (int64_t)from.z.size(); ++i) {
    if (!(from.z[i] > 0)) continue;
    const Range columns(from.x[i], from.span_x[i], size.width), rows(from.y[i], from.span_y[i], size.height);
    for (int64_t r = rows.first; r <= rows.last; ++r)
      for (int64_t c = columns.first; c <= columns.last; ++c) {
        const int64_t p = r * size.width + c;
        if (nearest[p] < 0) continue;
        Touch touch{i, p, c + 0.5f - from.x[i], r + 0.5f - from.y[i], 0, 0, 0, 0, from.z[nearest[p]]};
        touch.d = (from.z[i] - touch.nearest_depth) / (touch.nearest_depth * settings.softness);
        touch.kx = 1 - std::fabs(touch.dx) / from.span_x[i];
        touch.ky = 1 - std::fabs(touch.dy) / from.span_y[i];
        if (!(std::fabs(touch.d) < 1 && touch.kx > 0 && touch.ky > 0)) continue;
        touch.bell = (1 - touch.d * touch.d) * (1 - touch.d * touch.d);
        visit(touch);
      }
  }
}

const float* floats(const Tensor& tensor) { return (const float*)tensor.const_data_ptr(); }
float* floats_of(const Tensor& tensor) { return (float*)tensor.mutable_data_ptr(); }

// The tensors of one picture: its images, depths and transform, in a batch where several pictures share a source.
struct Source {
  Size size;
  int64_t index;
  const float *image, *depths, *matrix, *offset;
  Source(const Tensor& images, const Tensor& all_depths, const Tensor& matrices, const Tensor& offsets, int64_t picture)
      : size{all_depths.size(2), all_depths.size(1)},
        index(picture / (matrices.size(0) / all_depths.size(0))),
        image(floats(images) + 3 * size.area() * index),
        depths(floats(all_depths) + size.area() * index),
        matrix(floats(matrices) + 9 * picture),
        offset(floats(offsets) + 3 * picture) {}
};

// images [source, 3, h, w], depths [source, h, w] (0: none), matrices [picture, 3, 3], offsets [picture, 3];
// pictures of one source follow each other. Fills image [picture, 3, height, width], depth, weight and nearest
// [picture, height, width].
void splat_forward(Tensor image, Tensor depth, Tensor weight, Tensor nearest, const Tensor& images,
                   const Tensor& depths, const Tensor& matrices, const Tensor& offsets, double softness, double jump,
                   double most_stretch, double margin, double snap) {
  const Settings settings{(float)softness, (float)jump, (float)most_stretch, (float)margin, (float)snap};
  const Size size{image.size(3), image.size(2)};
  const int64_t area = size.area();
  torch::stable::parallel_for(0, image.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const Source source(images, depths, matrices, offsets, k);
      const Landing landing(source.depths, source.matrix, source.offset, source.size, settings);
      int32_t* found = (int32_t*)nearest.mutable_data_ptr() + k * area;
      float *sum = floats_of(image) + 3 * area * k, *z = floats_of(depth) + area * k, *w = floats_of(weight) + area * k;
      std::fill_n(sum, 3 * area, 0.0f);
      std::fill_n(z, area, 0.0f);
      std::fill_n(w, area, 0.0f);
      find_nearest(landing, found, size, settings);
      const int64_t count = source.size.area();
      visit_touches(landing, found, size, settings, [&](const Touch& touch) {
        const float share = touch.weight();
        for (int channel = 0; channel < 3; ++channel)
          sum[channel * area + touch.pixel] += share * source.image[channel * count + touch.source];
        z[touch.pixel] += share * landing.z[touch.source];
        w[touch.pixel] += share;
      });
      for (int64_t p = 0; p < area; ++p) {
        if (!(w[p] > 0)) continue;
        for (int channel = 0; channel < 3; ++channel) sum[channel * area + p] /= w[p];
        z[p] /= w[p];
      }
    }
  });
}

// Gradients by where source pixels land.
struct LandingGradient {
  std::vector<float> x, y, z;
  explicit LandingGradient(int64_t count) : x(count), y(count), z(count) {}
};

// From there to the depths [h, w], the matrix [3, 3] and the offset [3] that made them land.
void pull_back(const LandingGradient& to, const Landing& landing, const Source& source, float* to_depths, float* to_m,
               float* to_b) {
  double sums[12] = {};
  for (int64_t i = 0; i < source.size.area(); ++i) {
    to_depths[i] = 0;
    if (!(landing.z[i] > 0)) continue;
    const float home[3] = {i % source.size.width + 0.5f, i / source.size.width + 0.5f, 1.0f};
    const float q[3] = {to.x[i] / landing.z[i], to.y[i] / landing.z[i],
                        to.z[i] - (to.x[i] * landing.x[i] + to.y[i] * landing.y[i]) / landing.z[i]};
    for (int row = 0; row < 3; ++row) {
      for (int column = 0; column < 3; ++column) {
        to_depths[i] += q[row] * source.matrix[3 * row + column] * home[column];
        sums[3 * row + column] += (double)q[row] * source.depths[i] * home[column];
      }
      sums[9 + row] += q[row];
    }
  }
  std::copy_n(sums, 9, to_m);
  std::copy_n(sums + 9, 3, to_b);
}

float sign(float value) { return value > 0 ? 1.0f : value < 0 ? -1.0f : 0.0f; }

// The gradients [picture, ...] of everything that a picture has for its own; the caller sums those of one source.
void splat_backward(Tensor grad_images, Tensor grad_depths, Tensor grad_matrices, Tensor grad_offsets,
                    const Tensor& grad_image, const Tensor& grad_depth, const Tensor& image, const Tensor& depth,
                    const Tensor& weight, const Tensor& nearest, const Tensor& images, const Tensor& depths,
                    const Tensor& matrices, const Tensor& offsets, double softness, double jump, double most_stretch,
                    double margin, double snap) {
  const Settings settings{(float)softness, (float)jump, (float)most_stretch, (float)margin, (float)snap};
  const Size size{image.size(3), image.size(2)};
  const int64_t area = size.area();
  torch::stable::parallel_for(0, image.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const Source source(images, depths, matrices, offsets, k);
      const int64_t count = source.size.area();
      const Landing landing(source.depths, source.matrix, source.offset, source.size, settings);
      const int32_t* found = (const int32_t*)nearest.const_data_ptr() + k * area;
      const float *g = floats(grad_image) + 3 * area * k, *gz = floats(grad_depth) + area * k;
      const float *mean = floats(image) + 3 * area * k, *z = floats(depth) + area * k, *w = floats(weight) + area * k;
      float* to_image = floats_of(grad_images) + 3 * count * k;
      std::fill_n(to_image, 3 * count, 0.0f);
      LandingGradient to(count);
      visit_touches(landing, found, size, settings, [&](const Touch& touch) {
        const int64_t i = touch.source, p = touch.pixel;
        const float share = touch.weight() / w[p], near = touch.nearest_depth;
        float to_weight = gz[p] * (landing.z[i] - z[p]);
        for (int channel = 0; channel < 3; ++channel) {
          to_weight += g[channel * area + p] * (source.image[channel * count + i] - mean[channel * area + p]);
          to_image[channel * count + i] += share * g[channel * area + p];
        }
        to_weight /= w[p];
        to.x[i] += to_weight * sign(touch.dx) / landing.span_x[i] * touch.ky * touch.bell;
        to.y[i] += to_weight * sign(touch.dy) / landing.span_y[i] * touch.kx * touch.bell;
        const float to_d = to_weight * touch.kx * touch.ky * -4 * touch.d * (1 - touch.d * touch.d);
        to.z[i] += share * gz[p] + to_d / (near * settings.softness);
        to.z[found[p]] -= to_d * landing.z[i] / (near * near * settings.softness);
      });
      pull_back(to, landing, source, floats_of(grad_depths) + count * k, floats_of(grad_matrices) + 9 * k,
                floats_of(grad_offsets) + 3 * k);
    }
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(lrm4d, library) {
  library.def(
      "splat_forward(Tensor(a!) image, Tensor(b!) depth, Tensor(c!) weight, Tensor(d!) nearest, Tensor images, "
      "Tensor depths, Tensor matrices, Tensor offsets, float softness, float jump, float most_stretch, float margin, "
      "float snap) -> ()");
  library.def(
      "splat_backward(Tensor(a!) grad_images, Tensor(b!) grad_depths, Tensor(c!) grad_matrices, "
      "Tensor(d!) grad_offsets, Tensor grad_image, Tensor grad_depth, Tensor image, Tensor depth, Tensor weight, "
      "Tensor nearest, Tensor images, Tensor depths, Tensor matrices, Tensor offsets, float softness, float jump, "
      "float most_stretch, float margin, float snap) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(lrm4d, CPU, library) {
  library.impl("splat_forward", TORCH_BOX(&splat_forward));
  library.impl("splat_backward", TORCH_BOX(&splat_backward));
}
