// The rows of the spiking neurons, and how blocks share out their elements: the part that all operators have in common.
//
// How many there are is known on the device alone. So every call launches the same blocks: `find_rows` lists the rows
// and counts their elements, and then every block of the operator takes its part of the elements, however long the rows
// they are in, or finds that none is left.

// A list of rows lies in scratch memory: its counter, then three numbers for every row. The counter holds, packed so that
// one atomic addition reserves both, how many elements the rows have (high bits) and how many rows there are (low bits).
struct Rows {
  int64* first;
  int64 n;

  __device__ __forceinline__ Rows(const Call& call, int64 list)
      : first((int64*) call.rows.data + call.lists + list * 3 * call.spike.size), n(call.spike.size) {}

  // How many elements all earlier rows have.
  __device__ __forceinline__ int64& before(int64 row) const { return first[row]; }
  // From the number of an element to its place in `indices`.
  __device__ __forceinline__ int64& shift(int64 row) const { return first[n + row]; }
  // The neuron whose row it is.
  __device__ __forceinline__ int64& event(int64 row) const { return first[2 * n + row]; }
};

__device__ __forceinline__ uint64* counter_of(const Call& call, int64 list) { return (uint64*) call.rows.data + list; }

// Fill the lists, whose counters are 0. The order of rows is that in which blocks come to it.
template <class P>
__global__ void __launch_bounds__(THREADS) find_rows(const Call call) {
  __shared__ uint64 found;    // what the block found in this round, and
  __shared__ uint64 earlier;  // what others had found before, packed as in the counter
  const int64 n = call.spike.size, nse = call.indices.size, round = (int64) gridDim.x * THREADS * SPIKES;
  const P* indptr = (const P*) call.indptr.data;
  const int64 thread = ((int64) blockIdx.y * gridDim.x + blockIdx.x) * THREADS + threadIdx.x;
  for (int64 k = thread; k < call.zeroed; k += (int64) gridDim.x * gridDim.y * THREADS) {
    ((unsigned*) call.result.data)[k] = 0;
  }
  for (int64 list = blockIdx.y; list < call.lists; list += gridDim.y) {
    const unsigned char* spike = (const unsigned char*) call.spike.data + list * n;
    const Rows rows(call, list);
    for (int64 first = (int64) blockIdx.x * THREADS * SPIKES; first < n; first += round) {
      if (threadIdx.x == 0) found = 0;
      __syncthreads();
      int64 begin[SPIKES], size[SPIKES];
      uint64 place[SPIKES];
#pragma unroll
      for (int i = 0; i < SPIKES; ++i) {
        const int64 event = first + i * THREADS + threadIdx.x;
        size[i] = 0;
        if (event < n && spike[event]) {
          const int64 start = indptr[event], stop = indptr[event + 1] > nse ? nse : indptr[event + 1];
          begin[i] = start < 0 ? 0 : start;
          size[i] = begin[i] < stop ? stop - begin[i] : 0;
        }
      }
#pragma unroll
      for (int i = 0; i < SPIKES; ++i) {
        if (size[i] > 0) place[i] = atomicAdd(&found, (uint64) size[i] << call.row_bits | 1);
      }
      __syncthreads();
      if (threadIdx.x == 0 && found) earlier = atomicAdd(counter_of(call, list), found);
      __syncthreads();
#pragma unroll
      for (int i = 0; i < SPIKES; ++i) {
        if (size[i] > 0) {
          place[i] += earlier;
          const int64 row = place[i] & (((uint64) 1 << call.row_bits) - 1), before = place[i] >> call.row_bits;
          rows.before(row) = before;
          rows.shift(row) = begin[i] - before;
          rows.event(row) = first + i * THREADS + threadIdx.x;
        }
      }
    }
  }
}

constexpr int CHUNK = THREADS * ITEMS;  // elements that a block works on in one go, at most

// The rows of a chunk, in shared memory.
struct Chunk {
  int64 found;       // of a search
  int rows;          // those that begin in it, and the one that holds its first element
  int start[CHUNK];  // the first element of each of these in the chunk
};

// A block's way through the elements of all rows of a member. All threads of the block make every step.
struct Walk {
  Chunk& chunk;
  const Rows rows;
  int64 count, elements;  // of the list
  int64 begin, size;      // of the chunk
  int64 first;            // row of the chunk

  __device__ __forceinline__ Walk(const Call& call, int64 member, Chunk& chunk)
      : chunk(chunk), rows(call, index_of(call, call.rows, member)) {
    const uint64 counter = *counter_of(call, index_of(call, call.rows, member));
    const int64 nse = call.indices.size;
    count = counter & (((uint64) 1 << call.row_bits) - 1);
    elements = counter >> call.row_bits;
    if (elements > nse) elements = nse;  // rows overlap: `indptr` is invalid, and the counter may have overflowed
    // As many chunks as blocks, but whole rounds of the threads.
    size = (elements + gridDim.x * THREADS - 1) / (gridDim.x * THREADS) * THREADS;
    if (size > CHUNK) size = CHUNK;
    begin = (blockIdx.x - (int64) gridDim.x) * size;
  }

  // Go on to the block's next chunk and find its rows; false when there is none.
  __device__ __forceinline__ bool next() {
    begin += gridDim.x * size;
    __syncthreads();  // the last chunk is done with
    if (begin >= elements) return false;
    int64 low = 0, high = count;
    while (high - low > 1) {  // find the row that holds the first element; every thread probes one place
      const int64 stride = (high - low + THREADS - 1) / THREADS, probe = low + stride * threadIdx.x;
      if (probe < high && rows.before(probe) <= begin) {
        if (probe + stride >= high || rows.before(probe + stride) > begin) chunk.found = probe;
      }
      __syncthreads();
      low = chunk.found;  // somebody has: rows begin at 0
      high = low + stride < high ? low + stride : high;
      __syncthreads();
    }
    int loaded = 0;
    do {
      const int own = loaded + threadIdx.x;
      const int64 row = low + own, start = row < count ? rows.before(row) - begin : size;
      chunk.start[own] = start < 0 ? 0 : start > size ? size : start;
      loaded += THREADS;
      __syncthreads();
      if (chunk.start[own] < size && (own + 1 == loaded || chunk.start[own + 1] >= size)) chunk.rows = own + 1;
    } while (loaded < size && chunk.start[loaded - 1] < size);
    first = low;
    __syncthreads();
    return true;
  }

  // Which of the chunk's rows an element of the chunk lies in.
  __device__ __forceinline__ int row_of(int element) const {
    int low = 0, high = chunk.rows;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (chunk.start[middle] <= element) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low;
  }

  // The neuron whose row that is.
  __device__ __forceinline__ int64 event(int row) const { return rows.event(first + row); }
};

// The elements of one chunk that a thread works on.
template <class I, bool PERMUTED>
struct Items {
  int64 slot[ITEMS];  // -1 where there is no such element, or one of its indices is out of range
  I partner[ITEMS];   // the neuron at the other end
  int row[ITEMS];     // of the chunk's

  __device__ __forceinline__ Items(const Call& call, const Walk& walk) {
    const I *indices = (const I*) call.indices.data, *slots = (const I*) call.weight_indices.data;
    const int left = walk.elements - walk.begin < walk.size ? walk.elements - walk.begin : walk.size;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
      const int element = i * THREADS + threadIdx.x;
      slot[i] = -1;
      partner[i] = -1;
      if (element < left) {
        row[i] = walk.row_of(element);
        const int64 k = walk.begin + element + walk.rows.shift(walk.first + row[i]);
        if ((uint64) k < call.indices.size) {
          slot[i] = PERMUTED ? slots[k] : k;
          partner[i] = indices[k];
        }
      }
    }
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
      const bool in_range = (uint64) slot[i] < call.indices.size && (uint64) partner[i] < call.n_other;
      if (!in_range) slot[i] = -1;
    }
  }

  __device__ __forceinline__ bool has(int i) const { return slot[i] >= 0; }
};

// The gain of the neuron whose row it is.
template <class A>
__device__ __forceinline__ A gain_of(const Call& call, const A* gain, const Walk& walk, int row) {
  if (call.gain.size == 0) return 1;
  return gain[call.gain.size > 1 ? walk.event(row) : 0];
}
