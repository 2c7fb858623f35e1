// Plays a CUDA grid on one thread of the host, for sources that include nothing and use few of CUDA's words.
//
// One block after the other; the threads of a block are fibres, each with a stack of its own, that run one at a time up
// to where they next meet: all threads of a block at a barrier, or those of a warp at a ballot, a shuffle or a barrier
// of its own. Warps take turns at random, and some run far ahead of others; the threads of a warp run in another order
// each time; every launch takes the blocks in another order. So a missing barrier, of a block or of a warp, and results
// that depend on the order of blocks, show. Shared memory is NaN at first.
//
// What this cannot show: a missing atomic (nothing interrupts a thread between two meetings), races and memory ordering
// between blocks, misaligned access, too many registers or too much shared memory, contraction to fused multiply-add,
// and anything about streams or graph capture. Part of a warp cannot meet: that is an error here. An address out of
// range may end the process.

#pragma once

#include <dlfcn.h>
#include <link.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <numeric>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local  // thread-local only because the linker then keeps it all together: see `poison`
#define SHIM_TEXT(line) #line
#define SHIM_AT(line) SHIM_TEXT(line)  // twice, so that the line is a number by now
#define SHIM_PLACE __FILE__ ":" SHIM_AT(__LINE__)
#define __syncthreads() shim::meet(SHIM_PLACE, true)
#define __syncwarp() shim::meet(SHIM_PLACE, false)
#define __ballot_sync(mask, x) shim::ballot(SHIM_PLACE, mask, x)
#define __shfl_sync(mask, x, lane) shim::shuffle(SHIM_PLACE, mask, x, lane)
#define __shfl_up_sync(mask, x, lanes) shim::shuffle_up(SHIM_PLACE, mask, x, lanes)
#define __shfl_xor_sync(mask, x, bits) shim::shuffle(SHIM_PLACE, mask, x, shim::current % shim::WARP ^ (bits))

struct dim3 {
  unsigned x, y, z;
};

dim3 threadIdx, blockIdx, blockDim, gridDim;

template <class T>
inline T add_to(T* target, T x) {
  const T old = *target;
  *target = old + x;
  return old;
}
inline float atomicAdd(float* target, float x) { return add_to(target, x); }
inline double atomicAdd(double* target, double x) { return add_to(target, x); }
inline int atomicAdd(int* target, int x) { return add_to(target, x); }
inline unsigned atomicAdd(unsigned* target, unsigned x) { return add_to(target, x); }
inline unsigned long long atomicAdd(unsigned long long* target, unsigned long long x) { return add_to(target, x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }

namespace shim {

constexpr size_t STACK = 64 << 10, PAGE = 4 << 10;
constexpr unsigned THREADS = 1024;  // of a block, at most, as on every GPU
constexpr unsigned WARP = 32;

// IEEE half precision, which PTX converts in one instruction, for a struct that has its `bits`.
template <class Half>
auto load(const Half* source) -> decltype(source->bits + 0.0f) {
  const int exponent = source->bits >> 10 & 31, fraction = source->bits & 1023;
  float x = exponent ? ldexpf(fraction + 1024, exponent - 25) : ldexpf(fraction, -24);
  if (exponent == 31) x = fraction ? NAN : HUGE_VALF;
  return copysignf(x, source->bits >> 15 ? -1.0f : 1.0f);
}
template <class Half>
auto store(Half* target, float x) -> decltype(void(target->bits = 0)) {
  int exponent = 0;
  const float size = fabsf(x);
  unsigned bits = 0x7fff;
  if (size >= 65520) {  // half way from the largest number to the next power of two
    bits = 0x7c00;
  } else if (size == size) {
    frexpf(size, &exponent);
    exponent = size > 0 && exponent > -13 ? exponent - 11 : -24;  // of the last bit
    bits = (exponent + 24) * 1024 + (int) nearbyintf(ldexpf(size, -exponent));  // a carry is the next exponent's
  }
  target->bits = bits | (x == x && signbit(x) ? 0x8000 : 0);
}

struct Fibre {
  char* stack;
  bool entered;       // it waits at `at`; otherwise it is to begin
  ucontext_t outset;  // slow, two system calls, so only to begin with
  jmp_buf at;
};

const char *const NEW = nullptr, *const DONE = "its end";  // or the place where a thread waits for others
const char* const PART = "a ballot or shuffle of part of a warp";  // which is always an error

Fibre fibres[THREADS];
Fibre *idle[THREADS], *fibre_of[THREADS];
int n_fibres, n_idle;
const char* state[THREADS];
bool whole[THREADS];  // it waits for the whole block, not for its warp alone
unsigned current;     // thread of the block
unsigned size;        // of the block
// What the threads of a warp show each other, at even and at odd meetings: by the time that one of them writes for its
// next meeting but one, all have read.
unsigned long long shown[2][THREADS];
bool odd[THREADS];
jmp_buf scheduler;
void (*enter)(void* kernel, const void* argument);
void* the_kernel;
const void* the_argument;
unsigned long long random_state;
char message[256];

unsigned random(unsigned n) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (random_state >> 33) % n;
}

// An order of n things: forward, backward or by leaps, from anywhere.
struct Order {
  unsigned n, leap, first;

  explicit Order(unsigned n) : n(n), leap(1), first(random(n)) {
    const unsigned way = random(3);
    if (way == 1) leap = n - 1;
    if (way == 2) leap = random(n);
    while (std::gcd(leap, n) != 1) ++leap;
  }
  unsigned operator()(unsigned i) const { return (first + (unsigned long long) i * leap) % n; }
};

// Of a fibre: back to the scheduler, until it resumes the fibre.
void __attribute__((noinline)) suspend() {
  if (!_setjmp(fibre_of[current]->at)) _longjmp(scheduler, 1);
}

// Wait for the others of the block, or of the warp alone.
void __attribute__((noinline)) meet(const char* place, bool block) {
  state[current] = place;
  whole[current] = block;
  suspend();
}

// Meet the others of the warp, whose `x` are then where this points to.
const unsigned long long* show(const char* place, unsigned mask, unsigned long long x) {
  const unsigned own = current;
  const bool turn = odd[own] = !odd[own];
  shown[turn][own] = x;
  meet(mask == 0xffffffff ? place : PART, false);
  return &shown[turn][own / WARP * WARP];
}

unsigned ballot(const char* place, unsigned mask, bool x) {
  const auto votes = show(place, mask, x);
  unsigned bits = 0;
  for (unsigned lane = 0; lane < WARP && current - current % WARP + lane < size; ++lane) {
    bits |= (unsigned) votes[lane] << lane;
  }
  return bits;
}

template <class T>
T shuffle(const char* place, unsigned mask, T x, unsigned lane) {
  static_assert(sizeof(T) <= 8, "a shuffle takes 8 bytes at most");
  unsigned long long bits = 0;
  memcpy(&bits, &x, sizeof x);
  memcpy(&x, show(place, mask, bits) + lane % WARP, sizeof x);
  return x;
}

template <class T>
T shuffle_up(const char* place, unsigned mask, T x, unsigned lanes) {
  const unsigned lane = current % WARP;
  return shuffle(place, mask, x, lane < lanes ? lane : lane - lanes);
}

void live() {
  for (;;) {  // one thread after the other
    enter(the_kernel, the_argument);
    state[current] = DONE;
    suspend();
  }
}

Fibre* new_fibre() {
  Fibre* fibre = &fibres[n_fibres++];
  void* memory = mmap(nullptr, PAGE + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(memory, PAGE, PROT_NONE);  // what grows over its stack ends the process, rather than another's stack
  fibre->stack = (char*) memory + PAGE;
  return fibre;
}

// Run a thread of the block to its next meeting or its end.
void __attribute__((noinline)) resume(unsigned thread) {
  Fibre*& fibre = fibre_of[thread];
  if (state[thread] == NEW) fibre = n_idle ? idle[--n_idle] : new_fibre();
  current = thread;
  threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
  if (_setjmp(scheduler) == 0) {
    if (fibre->entered) _longjmp(fibre->at, 1);
    fibre->entered = true;
    getcontext(&fibre->outset);
    fibre->outset.uc_stack.ss_sp = fibre->stack;
    fibre->outset.uc_stack.ss_size = STACK;
    makecontext(&fibre->outset, live, 0);
    setcontext(&fibre->outset);
  }
  if (state[current] == DONE) idle[n_idle++] = fibre_of[current];
}

// Fill this library's thread-local memory, which is the shared memory of all kernels and no more.
int poison(dl_phdr_info* library, size_t, void* base) {
  if ((void*) library->dlpi_addr != base) return 0;
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const auto& part = library->dlpi_phdr[i];
    if (part.p_type == PT_TLS && library->dlpi_tls_data) memset(library->dlpi_tls_data, 0xff, part.p_memsz);
  }
  return 1;
}

// Whether all threads from one to before another are where the first is; if not, the message says so.
bool together(unsigned begin, unsigned end) {
  unsigned at = begin, i = begin;
  for (unsigned j = begin; j < end; ++j) {
    if (state[j] != DONE) at = j;  // the last that waits
  }
  while (i < end && state[i] != PART && !strcmp(state[i], state[at])) ++i;
  if (i == end) return true;
  snprintf(
      message, sizeof message, "block (%u, %u, %u): thread %u waits at the barrier %s while thread %u is at %s",
      blockIdx.x, blockIdx.y, blockIdx.z, at, state[at], i, state[i]);
  return false;
}

// Run a warp, which is together, for a while: to one of the next meetings of its own, to one of its block, or its end.
bool run_warp(unsigned warp) {
  const unsigned begin = warp * WARP, end = begin + WARP < size ? begin + WARP : size;
  const bool far = random(4) == 0;
  do {
    unsigned i = 0;
    for (const Order order(end - begin); i < end - begin; ++i) resume(begin + order(i));
    if (!together(begin, end)) return false;
  } while (far && state[begin] != DONE && !whole[begin]);
  return true;
}

// Run all warps to their next meeting at which the whole block meets, or its end.
bool run_warps() {
  unsigned left[THREADS / WARP], n = 0;
  for (unsigned warp = 0; warp * WARP < size; ++warp) left[n++] = warp;
  while (n) {
    const unsigned i = random(n), first = left[i] * WARP;
    if (!run_warp(left[i])) return false;
    if (state[first] == DONE || whole[first]) left[i] = left[--n];
  }
  return together(0, size);
}

// Null where all threads meet wherever they wait for each other.
const char* run_block(unsigned n) {
  static thread_local volatile char touched;
  touched = 0;  // otherwise this thread may have no thread-local memory yet
  Dl_info self;
  dladdr((void*) run_block, &self);
  dl_iterate_phdr(poison, self.dli_fbase);
  memset(state, 0, sizeof state);
  memset(odd, 0, sizeof odd);
  size = n;
  while (run_warps()) {
    if (state[0] == DONE) return nullptr;
  }
  for (int f = n_idle = 0; f < n_fibres; ++f) {  // for the next launch: what waits will not be resumed
    fibres[f].entered = false;
    idle[n_idle++] = &fibres[f];
  }
  return message;
}

// Run a kernel, given the sizes of grid and block (x, y, z each) and its argument; return what went wrong, if anything.
template <class Argument>
const char* run(void (*kernel)(Argument), const unsigned* sizes, const void* argument, size_t bytes, unsigned seed) {
  gridDim = {sizes[0], sizes[1], sizes[2]};
  blockDim = {sizes[3], sizes[4], sizes[5]};
  const unsigned n = sizes[3] * sizes[4] * sizes[5], blocks = sizes[0] * sizes[1] * sizes[2];
  if (bytes != sizeof(Argument)) {
    snprintf(message, sizeof message, "got an argument of %zu bytes, the kernel's has %zu", bytes, sizeof(Argument));
    return message;
  }
  if (n > THREADS) return "a block has at most 1024 threads";
  enter = [](void* kernel, const void* x) { ((void (*)(Argument)) kernel)(*(const Argument*) x); };
  the_kernel = (void*) kernel;
  the_argument = argument;
  random_state = seed;
  const Order order(blocks);
  const char* error = nullptr;
  for (unsigned i = 0; i < blocks && !error; ++i) {
    const unsigned b = order(i);
    blockIdx = {b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y};
    error = run_block(n);
  }
  return error;
}

}  // namespace shim
