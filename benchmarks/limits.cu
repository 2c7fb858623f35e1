// What a GPU needs at least for what the operators do: kernels without structure, bounds or order, as limits to compare
// with. `benchmarks/gpu_kernels.py` launches them.

struct Work {
  unsigned long long target, source;  // addresses of floats
  unsigned long long indices;         // address of ints, all below `source_size`
  long long size, source_size;        // of the target and of the source
  long long count;                    // how many elements are read or changed
  long long seed;
};

constexpr int THREADS = 256, UNDER_WAY = 8;  // accesses of a thread at once

struct alignas(16) Four {
  float x[4];
};

// A number below `size` that is as good as random.
__device__ __forceinline__ long long somewhere(long long k, long long seed, long long size) {
  unsigned x = static_cast<unsigned>(k + seed * 0x9e3779b9);
  x ^= x >> 16;
  x *= 0x85ebca6b;
  x ^= x >> 13;
  x *= 0xc2b2ae35;
  x ^= x >> 16;
  return static_cast<long long>((static_cast<unsigned long long>(x) * static_cast<unsigned long long>(size)) >> 32);
}

// `count` floats, a multiple of 4.
__global__ void __launch_bounds__(THREADS) copy(Work work) {
  Four* target = reinterpret_cast<Four*>(work.target);
  const Four* source = reinterpret_cast<const Four*>(work.source);
  const long long threads = static_cast<long long>(gridDim.x) * THREADS, count = work.count / 4;
  for (long long k = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x; k < count; k += threads) target[k] = source[k];
}

// Each in a sector of 32 bytes that nothing else prepares for it.
__global__ void __launch_bounds__(THREADS) read_modify_write(Work work) {
  float* target = reinterpret_cast<float*>(work.target);
  const long long threads = static_cast<long long>(gridDim.x) * THREADS;
  long long k = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
  for (; k < work.count; k += threads * UNDER_WAY) {
    long long slots[UNDER_WAY];
    float values[UNDER_WAY];
#pragma unroll
    for (int i = 0; i < UNDER_WAY; ++i) {
      slots[i] = somewhere(k + i * threads, work.seed, work.size);
      values[i] = k + i * threads < work.count ? target[slots[i]] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < UNDER_WAY; ++i) {
      if (k + i * threads < work.count) target[slots[i]] = values[i] + 1.0f;
    }
  }
}

// In a row: one of the source, that an index names, is added to each. `size` and `seed` say where the row begins.
__global__ void __launch_bounds__(THREADS) gather(Work work) {
  const long long first = somewhere(0, work.seed, work.size - work.count + 1);
  float* target = reinterpret_cast<float*>(work.target) + first;
  const int* indices = reinterpret_cast<const int*>(work.indices) + first;
  const float* source = reinterpret_cast<const float*>(work.source);
  const long long threads = static_cast<long long>(gridDim.x) * THREADS;
  long long k = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
  for (; k < work.count; k += threads * UNDER_WAY) {
    int from[UNDER_WAY];
    float values[UNDER_WAY];
#pragma unroll
    for (int i = 0; i < UNDER_WAY; ++i) from[i] = k + i * threads < work.count ? indices[k + i * threads] : 0;
#pragma unroll
    for (int i = 0; i < UNDER_WAY; ++i) values[i] = k + i * threads < work.count ? target[k + i * threads] : 0.0f;
#pragma unroll
    for (int i = 0; i < UNDER_WAY; ++i) {
      if (k + i * threads < work.count) target[k + i * threads] = values[i] + source[from[i]];
    }
  }
}

// Numbers at random places of the source are added to others of the target.
__global__ void __launch_bounds__(THREADS) read_and_add(Work work) {
  float* target = reinterpret_cast<float*>(work.target);
  const float* source = reinterpret_cast<const float*>(work.source);
  const long long threads = static_cast<long long>(gridDim.x) * THREADS;
  long long k = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
  for (; k < work.count; k += threads * UNDER_WAY) {
    float values[UNDER_WAY];
#pragma unroll
    for (int i = 0; i < UNDER_WAY; ++i) {
      values[i] = k + i * threads < work.count ? source[somewhere(k + i * threads, work.seed, work.source_size)] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < UNDER_WAY; ++i) {
      if (k + i * threads < work.count) atomicAdd(&target[somewhere(k + i * threads, ~work.seed, work.size)], values[i]);
    }
  }
}

__global__ void __launch_bounds__(THREADS) atomic_add(Work work) {
  float* target = reinterpret_cast<float*>(work.target);
  const long long threads = static_cast<long long>(gridDim.x) * THREADS;
  for (long long k = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x; k < work.count; k += threads) {
    atomicAdd(&target[somewhere(k, work.seed, work.size)], 1.0f);
  }
}

#ifdef __CUDA_ARCH__
// Keeps the GPU busy for `count` cycles, so that the host can queue work behind it.
__global__ void spin(Work work) {
  const long long start = clock64();
  while (clock64() - start < work.count) {
  }
}
#endif
