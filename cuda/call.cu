// What every kernel is given, and how it reads it. The source of a kernel is this file, rows.cu and its own, joined:
// nothing is included, so NVRTC needs no headers, and a host's C++ compiler takes the same text behind a shim.

typedef long long int64;
typedef unsigned long long uint64;

// One member after the other of those that the batch does not share, `size` elements each; none: it is not given.
struct Operand {
  uint64 data;
  int64 size;
};

constexpr int OPERANDS = 11;

// `hebbax._cuda` fills it in: fields of 8 bytes only, so that no compiler pads it. What only a batch needs comes last: a
// multiprocessor fetches what a kernel reads of this line by line, and each kernel anew.
struct Call {
  Operand result, weight, indices, indptr, weight_indices, spike, trace, gain, w_min, w_max;
  Operand rows;      // scratch memory: lists of rows, each of so many numbers of 8 bytes, see rows.cu
  int64 lists;       // of rows: one, or one for each member
  int64 tiles;       // that the neurons are cut into, see rows.cu
  int64 per_tile;    // neurons
  int64 wide;        // whether `indptr` is of int64
  int64 n_other;     // neurons that `indices` may name
  int64 zeroed;      // 4-byte words of the result that are to be zero at first
  int64 soft_upper;  // which bound is soft, where one is
  double mu;
  int64 members;     // of the batch
  int64 rank;        // how many dimensions it has
  int64 dims[DIMS];
  int64 strides[OPERANDS][DIMS];  // members from one to the next along each of them; 0 where they share one
};

// What a kernel is compiled for.
enum Way {
  BATCHED,  // any batch, any number of synapses
  FLAT,     // no batch, and fewer than 2^31 of everything
};

// Counts of elements and of rows. 32 bits where they do: half the registers, and no arithmetic in several steps.
template <int WAY>
struct Count {
  typedef unsigned type;
};
template <>
struct Count<BATCHED> {
  typedef uint64 type;
};

// A member of the batch, in shared memory: where its parts of the operands begin. A block works on every `stride`-th.
template <int WAY>
struct Member {
  int64 offset[WAY == BATCHED ? OPERANDS : 1];

  static __device__ __forceinline__ int64 first() { return WAY == BATCHED ? blockIdx.y : 0; }
  static __device__ __forceinline__ int64 stride() { return WAY == BATCHED ? gridDim.y : 1; }
  static __device__ __forceinline__ int64 count(const Call& call) { return WAY == BATCHED ? call.members : 1; }

  // Each of the first threads finds one operand's. If every thread found all that it needs, the divisions would be
  // 2 000 instructions of `update`, and its registers would not do.
  __device__ __forceinline__ void find(const Call& call, int64 member) {
    if (WAY != BATCHED) return;
    __syncthreads();  // nobody reads any more where the last member's are
    if (threadIdx.x < OPERANDS) {
      const int64* strides = call.strides[threadIdx.x];
      int64 index = 0;
#pragma unroll 1
      for (int64 d = call.rank - 1; d > 0; --d) {
        index += member % call.dims[d] * strides[d];
        member /= call.dims[d];
      }
      offset[threadIdx.x] = (index + member * strides[0]) * (&call.result)[threadIdx.x].size;
    }
    __syncthreads();
  }

  // Its part of an operand.
  template <class T>
  __device__ __forceinline__ T* of(const Call& call, const Operand& operand) const {
    return (T*) operand.data + (WAY == BATCHED ? offset[&operand - &call.result] : 0);
  }
};

struct float16 {
  unsigned short bits;
};
struct bfloat16 {
  unsigned short bits;
};

// The type that weights are added in.
template <class W>
struct Arithmetic {
  typedef float type;
};
template <>
struct Arithmetic<double> {
  typedef double type;
};

union Bits {
  float x;
  unsigned u;
};

__device__ __forceinline__ float load(const float* source) { return *source; }
__device__ __forceinline__ double load(const double* source) { return *source; }
__device__ __forceinline__ float load(const bfloat16* source) {
  Bits bits;
  bits.u = (unsigned) source->bits << 16;
  return bits.x;
}

__device__ __forceinline__ void store(float* target, float x) { *target = x; }
__device__ __forceinline__ void store(double* target, double x) { *target = x; }
__device__ __forceinline__ void store(bfloat16* target, float x) {
  Bits bits;
  bits.x = x;
  const bool is_nan = (bits.u & 0x7fffffff) > 0x7f800000;
  target->bits = is_nan ? bits.u >> 16 | 0x40 : (bits.u + 0x7fff + (bits.u >> 16 & 1)) >> 16;
}

#ifdef __CUDA_ARCH__
__device__ __forceinline__ float load(const float16* source) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(source->bits));
  return x;
}
__device__ __forceinline__ void store(float16* target, float x) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(target->bits) : "f"(x));
}
#endif  // the shim has these two for the host

// What a call launches that has nothing to do.
__global__ void nothing(const Call call) {}
