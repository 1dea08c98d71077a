// Thread blocks as loops, threads as fibers.
#include <torch/csrc/stable/library.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <device.cuh>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "../../src/core/export.h"
#include "../../src/core/index.h"

namespace elsa::cuda::emulation {

Order order = Order::random;
bool every_order = false;
std::mutex one_op_at_a_time;
Index thread_index, block_index, grid_size;

namespace {

constexpr int warp_size = 32;
constexpr size_t stack_bytes = 256 << 10;

enum class State { ready, waiting_for_block, waiting_for_warp, ended };

// Where a function stands, for __builtin_setjmp: unlike swapcontext it makes no system call.
struct Place {
  void* words[5];
};

struct Fiber {
  std::unique_ptr<char[]> stack{new char[stack_bytes]};
  State state;
  bool started;
  Place place;
  unsigned exchanges;
  Message messages[2];
};

std::vector<Fiber> fibers;  // kept from launch to launch, for their stacks
int threads, current;
bool lanes_missing;  // where all of a warp must call
Place scheduler;
const std::function<void()>* body;
std::unique_ptr<unsigned char[]> shared;

// Does a launch in the place of the fibers, and tells whether it went well.
using Launcher = bool (*)(const Launch*);
Launcher launcher = nullptr;

// Not marked noreturn: the address sanitizer would look for the end of a stack that it does not know.
__attribute__((no_sanitize("address"))) void jump(Place& place) { __builtin_longjmp(place.words, 1); }

void enter() {
  (*body)();
  fibers[current].state = State::ended;
  jump(scheduler);
}

// Let the fiber `current` run until it waits or ends.
void resume() {
  if (__builtin_setjmp(scheduler.words)) return;
  Fiber& fiber = fibers[current];
  if (fiber.started) jump(fiber.place);
  fiber.started = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber.stack.get();
  context.uc_stack.ss_size = stack_bytes;
  makecontext(&context, enter, 0);
  setcontext(&context);
}

std::mt19937 generator;

std::vector<int64_t> in_order(int64_t count) {
  std::vector<int64_t> indices(count);
  std::iota(indices.begin(), indices.end(), 0);
  if (order == Order::descending) std::reverse(indices.begin(), indices.end());
  if (order == Order::random) std::shuffle(indices.begin(), indices.end(), generator);
  return indices;
}

// Let the threads from `first` to `last` go on if all of them that have not ended wait in `state`.
bool release(int first, int last, State state) {
  int waiting = 0, ended = 0;
  for (int t = first; t < last; ++t) {
    waiting += fibers[t].state == state;
    ended += fibers[t].state == State::ended;
  }
  if (waiting == 0 || waiting + ended < last - first) return false;
  for (int t = first; t < last; ++t) {
    if (fibers[t].state == state) fibers[t].state = State::ready;
  }
  return true;
}

void run_block() {
  lanes_missing = false;
  for (int t = 0; t < threads; ++t) {
    fibers[t].state = State::ready;
    fibers[t].started = false;
    fibers[t].exchanges = 0;
  }
  // A warp goes on until all of its threads wait for the thread block or have ended: what it needs of another warp is
  // not there yet, or there no longer, unless a barrier sees to it.
  const std::vector<int64_t> warps = in_order(divide_up(threads, warp_size)), lanes = in_order(warp_size);
  do {
    for (const int64_t warp : warps) {
      const int first = int(warp) * warp_size, last = std::min(first + warp_size, threads);
      do {
        for (const int64_t lane : lanes) {
          current = first + int(lane);
          if (current >= last || fibers[current].state != State::ready) continue;
          thread_index = {unsigned(current), 0, 0};
          resume();
        }
      } while (release(first, last, State::waiting_for_warp));
    }
  } while (release(0, threads, State::waiting_for_block));
  for (int t = 0; t < threads; ++t) {
    if (fibers[t].state != State::ended) throw std::runtime_error("emulation: threads wait at different barriers");
  }
  if (lanes_missing) throw std::runtime_error("emulation: not all lanes of a warp took part in an exchange");
}

void wait(State state) {
  Fiber& fiber = fibers[current];
  fiber.state = state;
  if (!__builtin_setjmp(fiber.place.words)) jump(scheduler);
}

}  // namespace

unsigned char* shared_memory() { return shared.get(); }

void wait_for_block() { wait(State::waiting_for_block); }

void wait_for_warp() { wait(State::waiting_for_warp); }

std::array<const Message*, 32> exchange(const Message& message) {
  Fiber& fiber = fibers[current];
  // Two messages in turn: no thread gives a second one before all have taken the first.
  const int turn = fiber.exchanges++ % 2, first = current / warp_size * warp_size;
  fiber.messages[turn] = message;
  wait_for_warp();
  std::array<const Message*, warp_size> all;
  for (int lane = 0; lane < warp_size; ++lane) {
    lanes_missing |= fibers[first + lane].exchanges < fiber.exchanges;
    all[lane] = &fibers[first + lane].messages[turn];
  }
  return all;
}

void run(const Launch& launch, const std::function<void()>& thread) {
  const Grid& grid = launch.grid;
  if (grid.threads > most_threads || grid.x > most_blocks_x || grid.y > most_blocks_yz || grid.z > most_blocks_yz ||
      grid.shared_bytes > most_shared_bytes || std::min({grid.x, grid.y, grid.z}) < 1) {
    throw std::runtime_error("emulation: no device could start this grid");
  }
  if (launcher) {
    if (!launcher(&launch)) throw std::runtime_error("emulation: the launch failed");
    return;
  }
  generator.seed(0);  // the same orders for a launch, whatever ran before it
  threads = grid.threads;
  if (fibers.size() < size_t(threads)) fibers.resize(threads);
  body = &thread;
  grid_size = {unsigned(grid.x), unsigned(grid.y), unsigned(grid.z)};
  for (const int64_t block : in_order(grid.x * grid.y * grid.z)) {
    block_index = {unsigned(block % grid.x), unsigned(block / grid.x % grid.y), unsigned(block / grid.x / grid.y)};
    // Of exactly that size, so that the address sanitizer sees its end, and filled with NaNs, so that a result shows
    // what was read before it was written.
    shared.reset(new unsigned char[grid.shared_bytes]);
    std::memset(shared.get(), 0xff, grid.shared_bytes);
    run_block();
  }
}

// Let a function do all launches, which the tests of PTX call by ctypes; null gives them back to the fibers.
extern "C" ELSA_EXPORT void elsa_emulated_launch_by(Launcher function) {
  const std::lock_guard lock(one_op_at_a_time);
  launcher = function;
}

namespace {

void set_every_order(bool on) {
  const std::lock_guard lock(one_op_at_a_time);
  every_order = on;
}

STABLE_TORCH_LIBRARY_FRAGMENT(elsa_emulated, library) { library.def("every_order(bool on) -> ()"); }
STABLE_TORCH_LIBRARY_IMPL(elsa_emulated, CompositeExplicitAutograd, library) {
  library.impl("every_order", TORCH_BOX(&set_every_order));
}

}  // namespace
}  // namespace elsa::cuda::emulation
