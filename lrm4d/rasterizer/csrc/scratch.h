// Memory that outlives a call, so that the next need not ask the system for it: fresh pages cost more than the work.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace {

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

// A block of memory, not initialized, borrowed from those that earlier calls left.
class Scratch {
 public:
  explicit Scratch(int64_t size) {
    {
      std::lock_guard<std::mutex> lock(mutex());
      std::vector<Block>& blocks = idle();
      // The smallest that is large enough, else the largest, which is then replaced.
      const auto better = [size](const Block& a, const Block& b) {
        if ((a.size >= size) != (b.size >= size)) return a.size >= size;
        return a.size >= size ? a.size < b.size : a.size > b.size;
      };
      const auto best = std::min_element(blocks.begin(), blocks.end(), better);
      if (best != blocks.end()) {
        block_ = *best;
        blocks.erase(best);
      }
    }
    if (block_.size < size) {
      std::free(block_.data);
      block_ = {(char*)std::aligned_alloc(64, (size + 4095) / 4096 * 4096), size};
      if (block_.data == nullptr) throw std::bad_alloc();
    }
  }
  ~Scratch() {
    std::lock_guard<std::mutex> lock(mutex());
    if (block_.size > LARGEST_KEPT || idle().size() >= MOST_KEPT)
      std::free(block_.data);
    else if (block_.data != nullptr)
      idle().push_back(block_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  Arena arena() const { return {block_.data}; }

 private:
  struct Block {
    char* data = nullptr;
    int64_t size = 0;
  };
  static constexpr int64_t LARGEST_KEPT = 256 << 20;
  static constexpr size_t MOST_KEPT = 8;
  // Never destroyed: threads may still draw while the process ends.
  static std::mutex& mutex() {
    static std::mutex* const m = new std::mutex;
    return *m;
  }
  static std::vector<Block>& idle() {
    static std::vector<Block>* const blocks = new std::vector<Block>;
    return *blocks;
  }
  Block block_;
};

}  // namespace
