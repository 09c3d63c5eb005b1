// The stages in their order over a group of pictures, on torch's own threads.
//
// forward:  project -> sort by depth -> bin into tiles -> blend.      backward: blend -> project, reversed.
// Work is cut the same way on any number of threads and every sum has a fixed order: results do not depend on threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <span>
#include <vector>

#include "binning.h"
#include "layout.h"
#include "scratch.h"

namespace {

constexpr int64_t SORTED_CHUNK = 8192;  // sorted splats a task

// Calls f(0), ..., f(count - 1), each once, on any of torch's threads.
template <class F>
void in_parallel(int64_t count, const F& f) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(count, torch::stable::get_num_threads());
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) f(i);
  });
}

// What the forward needs of one picture and throws away.
struct Draft {
  int32_t* chunk_slots;         // [chunks] slots a chunk's splats have; then, those before it
  Keyed *order, *spare;         // [n] the visible splats, front to back
  int64_t splat_count;
  int32_t* tile_next;           // [sorted chunks * tiles] pairs; then, where the next one goes
  int64_t sorted_chunks() const { return (splat_count + SORTED_CHUNK - 1) / SORTED_CHUNK; }
};

// Where the splats live; called once to measure and once to place.
inline void lay_out_splats(std::span<Frame> frames, Arena& arena) {
  for (Frame& f : frames) f.visible = arena.take<int32_t>(chunks_of(f.gaussians.count));
  for (Frame& f : frames) f.splats = arena.take<Splat>(f.gaussians.count);
}

// Where the pairs and what blending leaves live; likewise.
inline void lay_out_pairs(std::span<Frame> frames, Arena& arena, bool keep) {
  for (Frame& f : frames) {
    const int64_t tiles = (int64_t)f.tiles_x * f.tiles_y;
    f.tile_start = arena.take<int32_t>(tiles + 1);
    f.pairs = arena.take<int32_t>(f.pair_count);
    if (!keep) continue;
    f.pair_of_slot = arena.take<int32_t>(f.pair_count);
    f.rows = arena.take<uint16_t>(f.pair_count);
    f.transmittance = arena.take<float>(tiles * TILE_PIXELS);
    f.last = arena.take<int32_t>(tiles * TILE_PIXELS);
  }
}

// How many pairs a frame has whose splats and their slots are done.
inline int64_t count_pairs(const Frame& f) {
  int64_t total = 0;
  for (int64_t chunk = 0; chunk < chunks_of(f.gaussians.count); ++chunk)
    for (int64_t i = chunk * CHUNK; i < chunk * CHUNK + f.visible[chunk]; ++i) total += f.splats[i].slots;
  return total;
}

inline void lay_out_drafts(std::span<Frame> frames, std::vector<Draft>& drafts, Arena& arena) {
  for (size_t i = 0; i < frames.size(); ++i) {
    drafts[i].chunk_slots = arena.take<int32_t>(chunks_of(frames[i].gaussians.count));
    drafts[i].order = arena.take<Keyed>(frames[i].gaussians.count);
    drafts[i].spare = arena.take<Keyed>(frames[i].gaussians.count);
  }
}

// The splats of every chunk, with their slots counted from the chunk's first.
inline void project_all(std::span<Frame> frames, std::vector<Draft>& drafts, const Kernels& kernels) {
  const int64_t n = frames[0].gaussians.count, chunks = chunks_of(n);
  in_parallel(frames.size() * chunks, [&](int64_t task) {
    Frame& f = frames[task / chunks];
    const int64_t chunk = task % chunks, begin = chunk * CHUNK;
    Splat* splats = f.splats + begin;
    const int64_t count = kernels.project(f.camera, f.gaussians, begin, std::min(n, begin + CHUNK), splats);
    int32_t slots = 0;
    for (int64_t i = 0; i < count; ++i) {
      splats[i].first_slot = slots;
      for_each_tile(splats[i], f.tiles_x, [&](int) { ++slots; });
      splats[i].slots = slots - splats[i].first_slot;
    }
    f.visible[chunk] = (int32_t)count;
    drafts[task / chunks].chunk_slots[chunk] = slots;
  });
}

inline void sort_all(std::span<Frame> frames, std::vector<Draft>& drafts) {
  in_parallel(frames.size(), [&](int64_t picture) {
    Frame& f = frames[picture];
    Draft& d = drafts[picture];
    d.splat_count = 0;
    f.pair_count = 0;
    for (int64_t chunk = 0; chunk < chunks_of(f.gaussians.count); ++chunk) {
      for (int64_t i = chunk * CHUNK; i < chunk * CHUNK + f.visible[chunk]; ++i) {
        Keyed& item = d.order[d.splat_count++];
        memcpy(&item.key, &f.splats[i].z, sizeof(item.key));
        item.index = (uint32_t)i;
      }
      const int32_t slots = d.chunk_slots[chunk];
      d.chunk_slots[chunk] = (int32_t)f.pair_count;
      f.pair_count += slots;
    }
    sort_by_key(d.order, d.spare, d.splat_count);
  });
}

// Calls f(picture, chunk) for every chunk of the sorted splats.
template <class F>
void for_sorted_chunks(const std::vector<Draft>& drafts, const F& f) {
  std::vector<std::pair<int64_t, int64_t>> tasks;
  for (size_t picture = 0; picture < drafts.size(); ++picture)
    for (int64_t chunk = 0; chunk < drafts[picture].sorted_chunks(); ++chunk) tasks.emplace_back(picture, chunk);
  in_parallel(tasks.size(), [&](int64_t task) { f(tasks[task].first, tasks[task].second); });
}

// Calls f(index) for each splat of a sorted chunk, its memory being fetched ahead.
template <class F>
inline void for_sorted_splats(const Frame& frame, const Draft& draft, int64_t chunk, const F& f) {
  const int64_t end = std::min(draft.splat_count, (chunk + 1) * SORTED_CHUNK);
  for (int64_t i = chunk * SORTED_CHUNK; i < end; ++i) {
    if (i + 16 < end) __builtin_prefetch(&frame.splats[draft.order[i + 16].index]);
    f((int32_t)draft.order[i].index);
  }
}

inline void bin_all(std::span<Frame> frames, std::vector<Draft>& drafts, bool keep) {
  const int64_t tiles = (int64_t)frames[0].tiles_x * frames[0].tiles_y;
  Arena measure;
  for (Draft& d : drafts) measure.take<int32_t>(d.sorted_chunks() * tiles);
  const Scratch scratch(measure.used);
  Arena arena = scratch.arena();
  for (Draft& d : drafts) d.tile_next = arena.take<int32_t>(d.sorted_chunks() * tiles);

  for_sorted_chunks(drafts, [&](int64_t picture, int64_t chunk) {
    const Frame& f = frames[picture];
    int32_t* counts = drafts[picture].tile_next + chunk * tiles;
    memset(counts, 0, sizeof(int32_t) * tiles);
    for_sorted_splats(f, drafts[picture], chunk, [&](int32_t index) {
      for_each_tile(f.splats[index], f.tiles_x, [&](int tile) { ++counts[tile]; });
    });
  });
  in_parallel(frames.size(), [&](int64_t picture) {
    const Frame& f = frames[picture];
    const Draft& d = drafts[picture];
    int32_t total = 0;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      f.tile_start[tile] = total;
      for (int64_t chunk = 0; chunk < d.sorted_chunks(); ++chunk) {
        int32_t& next = d.tile_next[chunk * tiles + tile];
        const int32_t here = next;
        next = total;
        total += here;
      }
    }
    f.tile_start[tiles] = total;
  });
  for_sorted_chunks(drafts, [&](int64_t picture, int64_t chunk) {
    const Frame& f = frames[picture];
    int32_t* next = drafts[picture].tile_next + chunk * tiles;
    for_sorted_splats(f, drafts[picture], chunk, [&](int32_t index) {
      Splat& s = f.splats[index];
      s.first_slot += drafts[picture].chunk_slots[index / CHUNK];
      int32_t slot = s.first_slot;
      for_each_tile(s, f.tiles_x, [&](int tile) {
        const int32_t pair = next[tile]++;
        f.pairs[pair] = index;
        if (keep) f.pair_of_slot[slot++] = pair;
      });
    });
  });
}

// allocate(bytes) gives memory that lasts as long as the caller needs the frames.
inline void run_forward(std::span<Frame> frames, const Kernels& kernels, const float* background, bool keep,
                        std::span<const Planes> out, const std::function<char*(int64_t)>& allocate) {
  const auto place = [&](const auto& lay_out) {
    Arena measure;
    lay_out(measure);
    Arena arena{allocate(measure.used)};
    lay_out(arena);
  };
  std::vector<Draft> drafts(frames.size());
  Arena measure;
  lay_out_drafts(frames, drafts, measure);
  const Scratch scratch(measure.used);
  Arena arena = scratch.arena();
  lay_out_drafts(frames, drafts, arena);

  place([&](Arena& a) { lay_out_splats(frames, a); });
  project_all(frames, drafts, kernels);
  sort_all(frames, drafts);
  for (const Frame& f : frames)
    STD_TORCH_CHECK(f.pair_count <= INT32_MAX, "rasterize: one picture's splats touch more than 2^31 tiles");
  place([&](Arena& a) { lay_out_pairs(frames, a, keep); });
  bin_all(frames, drafts, keep);
  const int64_t tiles = (int64_t)frames[0].tiles_x * frames[0].tiles_y;
  in_parallel(frames.size() * tiles, [&](int64_t task) {
    kernels.blend(frames[task / tiles], task % tiles, background, keep, out[task / tiles]);
  });
}

// depth and gradients: those of each frame's planes. first_picture: the number of frames[0], of which `views` in a row
// share a scene; out: of each scene. A scene's first view also sets its gradients to zero.
inline void run_backward(std::span<Frame> frames, const Kernels& kernels, const float* background, const float* depth,
                         std::span<const Planes> gradients, int64_t first_picture, int64_t views,
                         const std::vector<Gradients>& out) {
  const int64_t tiles = (int64_t)frames[0].tiles_x * frames[0].tiles_y;
  const int64_t pixels = (int64_t)frames[0].camera.width * frames[0].camera.height;
  Arena measure;
  for (const Frame& f : frames) measure.take<float>(f.pair_count * SUMS);
  const Scratch scratch(measure.used);
  Arena arena = scratch.arena();
  std::vector<float*> pair_sums;
  for (const Frame& f : frames) pair_sums.push_back(arena.take<float>(f.pair_count * SUMS));
  in_parallel(frames.size() * tiles, [&](int64_t task) {
    const int64_t i = task / tiles;
    kernels.blend_backward(frames[i], task % tiles, background, depth + i * pixels, gradients[i], pair_sums[i]);
  });

  // Views of one scene add to the same Gaussians: one after the other.
  const int64_t n = frames[0].gaussians.count, chunks = chunks_of(n);
  for (int64_t view = 0; view < views; ++view) {
    std::vector<int64_t> together;
    for (size_t i = 0; i < frames.size(); ++i)
      if ((first_picture + (int64_t)i) % views == view) together.push_back(i);
    in_parallel(together.size() * chunks, [&](int64_t task) {
      const int64_t i = together[task / chunks], chunk = task % chunks;
      const Gradients& g = out[(first_picture + i) / views];
      if (view == 0) {
        const int64_t begin = chunk * CHUNK, count = std::min(n, begin + CHUNK) - begin;
        memset(g.means + begin * 3, 0, sizeof(float) * count * 3);
        memset(g.covariances + begin * 6, 0, sizeof(float) * count * 6);
        memset(g.opacities + begin, 0, sizeof(float) * count);
        memset(g.colors + begin * 3, 0, sizeof(float) * count * 3);
      }
      kernels.project_backward(frames[i], chunk, pair_sums[i], g);
    });
  }
}

}  // namespace
