// The stages in their order over any number of pictures, on torch's own threads.
//
// forward:  project -> sort by depth -> count tiles -> place pairs -> blend.      backward: blend -> project, reversed.
// Work is cut the same way on any number of threads and every sum has a fixed order: results do not depend on threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <vector>

#include "binning.h"
#include "layout.h"

namespace {

inline int64_t chunks_of(int64_t count) { return (count + CHUNK - 1) / CHUNK; }

// Calls f(0), ..., f(count - 1), each once, on any of torch's threads.
template <class F>
void in_parallel(int64_t count, const F& f) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(count, torch::stable::get_num_threads());
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) f(i);
  });
}

// A flat list of tasks (picture, part of it), where pictures have different numbers of parts.
struct Tasks {
  std::vector<int64_t> starts{0};
  void add(int64_t parts) { starts.push_back(starts.back() + parts); }
  template <class F>
  void run(const F& f) const {
    in_parallel(starts.back(), [&](int64_t task) {
      const int64_t picture = std::upper_bound(starts.begin(), starts.end(), task) - starts.begin() - 1;
      f(picture, task - starts[picture]);
    });
  }
};

// Bytes handed out one after the other, each piece on its own cache lines.
struct Arena {
  char* base = nullptr;  // null: only measure
  int64_t used = 0;
  template <class T>
  T* take(int64_t count) {
    T* const piece = base ? (T*)(base + used) : nullptr;
    used += (count * (int64_t)sizeof(T) + 63) / 64 * 64;
    return piece;
  }
};

// Where the pairs and pixels of the frames live; call once to measure and once to place.
inline void lay_out_pairs(std::vector<Frame>& frames, Arena& arena, bool keep) {
  for (Frame& f : frames) {
    const int64_t tiles = (int64_t)f.tiles_x * f.tiles_y;
    f.tile_start = arena.take<int32_t>(tiles + 1);
    f.pairs = arena.take<int32_t>(f.pair_count);
    f.pair_of_slot = arena.take<int32_t>(f.pair_count);
    f.rows = arena.take<uint16_t>(keep ? f.pair_count : 0);
    f.transmittance = arena.take<float>(keep ? tiles * TILE_PIXELS : 0);
    f.last = arena.take<int32_t>(keep ? tiles * TILE_PIXELS : 0);
  }
}

inline void lay_out_splats(std::vector<Frame>& frames, Arena& arena) {
  for (Frame& f : frames) f.splats = arena.take<Splat>(f.splat_count);
}

// Splats of every picture, unsorted, and their order.
struct Unsorted {
  std::vector<Splat> splats;             // [picture, n], each chunk's visible ones first in its part
  std::vector<int64_t> chunk_counts;     // [picture, chunk]
  std::vector<std::vector<Keyed>> order; // [picture][visible]
};

inline void project_and_sort(std::vector<Frame>& frames, const Kernels& kernels, Unsorted& u) {
  const int64_t pictures = frames.size(), n = frames[0].gaussians.count, chunks = chunks_of(n);
  u.splats.resize(pictures * n);
  u.chunk_counts.resize(pictures * chunks);
  u.order.resize(pictures);
  in_parallel(pictures * chunks, [&](int64_t task) {
    const Frame& f = frames[task / chunks];
    const int64_t begin = task % chunks * CHUNK, end = std::min(n, begin + CHUNK);
    u.chunk_counts[task] =
        kernels.project(f.camera, f.gaussians, begin, end, u.splats.data() + task / chunks * n + begin);
  });
  in_parallel(pictures, [&](int64_t picture) {
    const Splat* splats = u.splats.data() + picture * n;
    std::vector<Keyed>& order = u.order[picture];
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      for (int64_t i = chunk * CHUNK; i < chunk * CHUNK + u.chunk_counts[picture * chunks + chunk]; ++i) {
        uint32_t key;
        memcpy(&key, &splats[i].z, sizeof(key));
        order.push_back({key, (uint32_t)i});
      }
    std::vector<Keyed> spare(order.size());
    sort_by_key(order.data(), spare.data(), order.size());
    frames[picture].splat_count = order.size();
  });
}

// How many pairs each chunk of sorted splats has in each tile; then, where its next pair in each tile goes.
struct TileCounts {
  Tasks tasks;                            // (picture, chunk of its sorted splats)
  std::vector<std::vector<int32_t>> next; // [picture][chunk * tiles + tile]
};

inline void sort_and_count(std::vector<Frame>& frames, const Unsorted& u, TileCounts& counts) {
  const int64_t n = frames[0].gaussians.count;
  for (const Frame& f : frames) {
    const int64_t chunks = chunks_of(f.splat_count);
    counts.tasks.add(chunks);
    counts.next.emplace_back(chunks * f.tiles_x * f.tiles_y);
  }
  counts.tasks.run([&](int64_t picture, int64_t chunk) {
    const Frame& f = frames[picture];
    const Splat* unsorted = u.splats.data() + picture * n;
    int32_t* tile_counts = counts.next[picture].data() + chunk * f.tiles_x * f.tiles_y;
    int32_t slots = 0;
    for (int64_t i = chunk * CHUNK; i < std::min(f.splat_count, (chunk + 1) * CHUNK); ++i) {
      Splat& s = f.splats[i];
      s = unsorted[u.order[picture][i].index];
      s.first_slot = slots;  // within the chunk, until place_all_pairs adds what came before
      slots += count_tiles(s, f.tiles_x, tile_counts);
    }
  });
  in_parallel(frames.size(), [&](int64_t picture) {
    Frame& f = frames[picture];
    const int64_t tiles = f.tiles_x * f.tiles_y, chunks = chunks_of(f.splat_count);
    int32_t* next = counts.next[picture].data();
    int64_t total = 0;
    for (int64_t tile = 0; tile < tiles; ++tile)
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int32_t here = next[chunk * tiles + tile];
        next[chunk * tiles + tile] = (int32_t)total;
        total += here;
      }
    f.pair_count = total;
  });
}

inline void place_all_pairs(std::vector<Frame>& frames, TileCounts& counts, std::vector<std::vector<int32_t>>& first_slots) {
  counts.tasks.run([&](int64_t picture, int64_t chunk) {
    const Frame& f = frames[picture];
    int32_t* next = counts.next[picture].data() + chunk * f.tiles_x * f.tiles_y;
    for (int64_t i = chunk * CHUNK; i < std::min(f.splat_count, (chunk + 1) * CHUNK); ++i) {
      f.splats[i].first_slot += first_slots[picture][chunk];
      place_pairs(f.splats[i], (int32_t)i, f.tiles_x, next, f.pairs, f.pair_of_slot);
    }
  });
}

// Tile starts, and the number of slots before each chunk, while the counts still are where chunks start in tiles.
inline std::vector<std::vector<int32_t>> start_tiles(const std::vector<Frame>& frames, const TileCounts& counts) {
  std::vector<std::vector<int32_t>> first_slots(frames.size());
  in_parallel(frames.size(), [&](int64_t picture) {
    const Frame& f = frames[picture];
    const int64_t tiles = f.tiles_x * f.tiles_y, chunks = chunks_of(f.splat_count);
    const int32_t* next = counts.next[picture].data();
    for (int64_t tile = 0; tile < tiles; ++tile) f.tile_start[tile] = chunks > 0 ? next[tile] : 0;
    f.tile_start[tiles] = (int32_t)f.pair_count;
    int32_t slots = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      first_slots[picture].push_back(slots);
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int32_t end = chunk + 1 < chunks ? next[(chunk + 1) * tiles + tile] : f.tile_start[tile + 1];
        slots += end - next[chunk * tiles + tile];
      }
    }
  });
  return first_slots;
}

inline void blend_all(const std::vector<Frame>& frames, const Kernels& kernels, const float* background, bool keep,
                      const std::vector<Planes>& out) {
  const int64_t tiles = frames[0].tiles_x * frames[0].tiles_y;
  in_parallel(frames.size() * tiles, [&](int64_t task) {
    kernels.blend(frames[task / tiles], task % tiles, background, keep, out[task / tiles]);
  });
}

// gradients: one a picture for its planes, out: one a scene; `views` pictures in a row share a scene.
inline void run_backward(const std::vector<Frame>& frames, const Kernels& kernels, const float* background,
                         const float* depth, const std::vector<Planes>& gradients, int64_t views, const std::vector<Gradients>& out) {
  const int64_t tiles = frames[0].tiles_x * frames[0].tiles_y;
  const int64_t pixels = (int64_t)frames[0].camera.width * frames[0].camera.height;
  std::vector<int64_t> first_pair{0};
  for (const Frame& f : frames) first_pair.push_back(first_pair.back() + f.pair_count);
  std::vector<float> pair_sums(first_pair.back() * SUMS);
  in_parallel(frames.size() * tiles, [&](int64_t task) {
    const int64_t picture = task / tiles;
    kernels.blend_backward(frames[picture], task % tiles, background, depth + picture * pixels, gradients[picture],
                           pair_sums.data() + first_pair[picture] * SUMS);
  });
  // Views of one scene add to the same Gaussians: one after the other.
  for (int64_t view = 0; view < views; ++view) {
    Tasks tasks;
    for (size_t scene = 0; scene < out.size(); ++scene) tasks.add(chunks_of(frames[scene * views + view].splat_count));
    tasks.run([&](int64_t scene, int64_t chunk) {
      const int64_t picture = scene * views + view;
      const Frame& f = frames[picture];
      kernels.project_backward(f, chunk * CHUNK, std::min(f.splat_count, (chunk + 1) * CHUNK),
                               pair_sums.data() + first_pair[picture] * SUMS, out[scene]);
    });
  }
}

}  // namespace
