// Memory for one thread's work.
#pragma once

#include <memory>
#include <new>
#include <vector>

#include "simd.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// Aligned to a vector. The k-th Scratch that is alive at a time in a thread takes the memory that the k-th one had
// before: faulting fresh pages in costs more than a small map does. What is larger than `most_kept` is given back.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : position_(alive()) {
    const std::size_t bytes = std::size_t(count > 0 ? count : 1) * sizeof(T);
    if (kept().size() <= position_) kept().resize(position_ + 1);
    Memory& memory = kept()[position_];
    if (memory.bytes < bytes) memory = Memory(bytes);
    data_ = static_cast<T*>(memory.data.get());
    ++alive();
  }
  ~Scratch() {
    Memory& memory = kept()[position_];
    if (memory.bytes > most_kept) memory = Memory();
    --alive();
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  operator T*() { return data_; }

 private:
  static constexpr std::size_t most_kept = 1 << 20;
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(void* data) const { ::operator delete(data, alignment); }
  };
  struct Memory {
    std::unique_ptr<void, Free> data;
    std::size_t bytes = 0;

    Memory() = default;
    explicit Memory(std::size_t size) : data(::operator new(size, alignment)), bytes(size) {}
  };

  static std::size_t& alive() {
    static thread_local std::size_t count = 0;
    return count;
  }
  static std::vector<Memory>& kept() {
    static thread_local std::vector<Memory> memories;
    return memories;
  }

  std::size_t position_;
  T* data_;
};

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
