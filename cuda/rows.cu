// The rows of the spiking neurons, and how warps share out their elements: the part that all operators have in common.
//
// How many there are is known on the device alone. So every call launches the same blocks: `find_rows` lists the rows,
// and then every warp of the operator takes its part of the elements, however long the rows they are in, or finds that
// none is left. A warp searches for its first row once and then goes on from row to row, and waits for no other warp.
//
// Nothing is known of `indptr` but its size. So every row is cut to where `indices` is, and sums of elements stop at the
// size of `indices`, which those of valid rows cannot exceed: whatever `indptr` says, every element that a warp comes to
// lies in `indices`.

constexpr int WARP = 32, WARPS = THREADS / WARP;
constexpr unsigned ALL = 0xffffffff;  // threads of a warp

__device__ __forceinline__ int lane() { return threadIdx.x % WARP; }
__device__ __forceinline__ int warp() { return threadIdx.x / WARP; }

// a + b, but no more than `most`; a is no more than that.
template <class N>
__device__ __forceinline__ N capped(N a, N b, N most) {
  return b < most - a ? a + b : most;
}

template <class N>
struct Found {
  N elements, rows;

  __device__ __forceinline__ void add(const Found& other, N most) {
    elements = capped(elements, other.elements, most);
    rows += other.rows;
  }
};

// What the threads of a block have found together; all of them must come here.
template <class N>
struct Scan {
  Found<N> earlier, all;  // of earlier threads; of the block

  __device__ __forceinline__ Scan(const Found<N>& own, N most, Found<N>* of_warps) {
    Found<N> sum = own;
#pragma unroll
    for (int lanes = 1; lanes < WARP; lanes *= 2) {
      const Found<N> other = from(sum, lanes);
      if (lane() >= lanes) sum.add(other, most);
    }
    __syncthreads();  // nobody reads any more what another scan has put there
    if (lane() == WARP - 1) of_warps[warp()] = sum;
    sum = from(sum, 1);
    __syncthreads();
    earlier = all = {0, 0};
#pragma unroll 1
    for (int w = 0; w < WARPS; ++w) {
      if (w == warp()) earlier = all;
      all.add(of_warps[w], most);
    }
    if (lane() > 0) earlier.add(sum, most);
  }

  static __device__ __forceinline__ Found<N> from(const Found<N>& x, int lanes) {
    return {__shfl_up_sync(ALL, x.elements, lanes), __shfl_up_sync(ALL, x.rows, lanes)};
  }
};

// The last of `count` numbers that is at most x, the first of which is: all lanes of a warp search together.
template <class N, class Numbers>
__device__ __forceinline__ N last_at_most(N x, N count, const Numbers& number) {
  N low = 0, high = count;
#pragma unroll 1
  while (high - low > 1) {
    const N stride = (high - low + WARP - 1) / WARP, probe = low + stride * lane();
    const int at_most = __popc(__ballot_sync(ALL, probe < high && number(probe) <= x));
    low += stride * (at_most - 1);
    if (high - low > stride) high = low + stride;
  }
  return low;
}

// The part of `indices` that is a neuron's row.
template <class N>
struct Span {
  N begin, size;
};
template <class N>
__device__ __forceinline__ Span<N> span_of(const Call& call, uint64 event) {
  const void* indptr = (const void*) call.indptr.data;
  const int64 start = call.wide ? ((const int64*) indptr)[event] : ((const int*) indptr)[event];
  const int64 end = call.wide ? ((const int64*) indptr)[event + 1] : ((const int*) indptr)[event + 1];
  const int64 nse = call.indices.size, begin = start < 0 ? 0 : start, stop = end > nse ? nse : end;
  return {(N) begin, begin < stop ? (N) (stop - begin) : 0};
}

// A list of rows lies in scratch memory: how many elements the rows of each tile of neurons have, how many rows these
// are, and then three numbers for every row, those of a tile where its neurons begin.
struct Rows {
  const Call& call;
  uint64* first;

  __device__ __forceinline__ uint64& elements(uint64 tile) const { return first[tile]; }
  __device__ __forceinline__ uint64& count(uint64 tile) const { return first[call.tiles + tile]; }
  // How many elements the earlier rows of the tile have.
  __device__ __forceinline__ uint64& before(uint64 row) const { return first[2 * call.tiles + row]; }
  // Where in `indices` the row would begin if it were the first of the tile's elements.
  __device__ __forceinline__ uint64& shift(uint64 row) const { return before(call.spike.size + row); }
  // The neuron whose row it is.
  __device__ __forceinline__ uint64& event(uint64 row) const { return before(2 * call.spike.size + row); }
};

// Which of the SPIKES neurons from `event` on spike, a bit each.
static_assert(SPIKES % 4 == 0 && SPIKES <= 16);
struct alignas(SPIKES) Bytes {
  unsigned word[SPIKES / 4];
};
__device__ __forceinline__ unsigned spikes_from(const unsigned char* spike, uint64 event, uint64 end) {
  unsigned bits = 0;
  if ((uint64) (spike + event) % SPIKES == 0 && end - event >= SPIKES) {
    const Bytes bytes = *(const Bytes*) (spike + event);
#pragma unroll
    for (int i = 0; i < SPIKES; ++i) bits |= (bytes.word[i / 4] >> i % 4 * 8 & 255 ? 1u : 0u) << i;
  } else {
#pragma unroll
    for (int i = 0; i < SPIKES; ++i) bits |= (event + i < end && spike[event + i] ? 1u : 0u) << i;
  }
  return bits;
}

// The rows of these neurons that have elements, a few of which are looked up at once.
template <class Work>
__device__ __forceinline__ void for_rows(const Call& call, uint64 event, unsigned bits, const Work& work) {
  constexpr int AT_ONCE = 4;
#pragma unroll 1
  while (bits) {
    Span<uint64> span[AT_ONCE];
    uint64 neuron[AT_ONCE];
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i, bits &= bits - 1) {
      neuron[i] = event + __ffs(bits) - 1;
      span[i] = {0, 0};
      if (bits) span[i] = span_of<uint64>(call, neuron[i]);
    }
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i) {
      if (span[i].size > 0) work(neuron[i], span[i]);
    }
  }
}

// Fill the lists, and make zero what is to be zero. Rows come in the order of their neurons.
__global__ void __launch_bounds__(THREADS, BLOCKS) find_rows(const Call call) {
  __shared__ Found<uint64> of_warps[WARPS];
  const uint64 n = call.spike.size, nse = call.indices.size;
  const int64 thread = ((int64) blockIdx.y * gridDim.x + blockIdx.x) * THREADS + threadIdx.x;
  for (int64 k = thread; k < call.zeroed; k += (int64) gridDim.x * gridDim.y * THREADS) {
    ((unsigned*) call.result.data)[k] = 0;
  }
  for (int64 list = blockIdx.y; list < call.lists; list += gridDim.y) {
    const unsigned char* spike = (const unsigned char*) call.spike.data + list * n;
    const Rows rows = {call, (uint64*) call.rows.data + list * call.rows.size};
    for (uint64 tile = blockIdx.x; tile < call.tiles; tile += gridDim.x) {
      const uint64 first = tile * call.per_tile, end = n - first < call.per_tile ? n : first + call.per_tile;
      Found<uint64> found = {0, 0};
      for (uint64 begin = first; begin < end; begin += THREADS * SPIKES) {
        const uint64 event = begin + threadIdx.x * SPIKES;
        const unsigned bits = event < end ? spikes_from(spike, event, end) : 0;
        Found<uint64> own = {0, 0};
        for_rows(call, event, bits, [&](uint64, const Span<uint64>& span) { own.add({span.size, 1}, nse); });
        const Scan<uint64> scan(own, nse, of_warps);
        Found<uint64> before = found;
        before.add(scan.earlier, nse);
        for_rows(call, event, bits, [&](uint64 neuron, const Span<uint64>& span) {
          const uint64 row = first + before.rows;
          rows.before(row) = before.elements;
          rows.shift(row) = span.begin - before.elements;
          rows.event(row) = neuron;
          before.add({span.size, 1}, nse);
        });
        found.add(scan.all, nse);
      }
      if (threadIdx.x == 0) {
        rows.elements(tile) = found.elements;
        rows.count(tile) = found.rows;
      }
    }
  }
}

// What is before each tile of a list, in shared memory.
template <int WAY>
struct Tiles {
  typedef typename Count<WAY>::type N;
  N elements[TILES], rows[TILES];
  Found<N> of_warps[WARPS];
  Found<N> all;

  // Fill it; all threads of the block must come here.
  __device__ __forceinline__ void sum_up(const Call& call, const Rows& list) {
    const int count = call.tiles;
    const N most = call.indices.size;
    const int each = (count + THREADS - 1) / THREADS;
    const int begin = threadIdx.x * each, end = begin + each < count ? begin + each : count;
    Found<N> own = {0, 0};
#pragma unroll 1
    for (int t = begin; t < end; ++t) {
      const Found<N> found = {(N) list.elements(t), (N) list.count(t)};
      elements[t] = found.elements;
      rows[t] = found.rows;
      own.add(found, most);
    }
    const Scan<N> scan(own, most, of_warps);
    Found<N> before = scan.earlier;
#pragma unroll 1
    for (int t = begin; t < end; ++t) {
      const Found<N> found = {elements[t], rows[t]};
      elements[t] = before.elements;
      rows[t] = before.rows;
      before.add(found, most);
    }
    if (threadIdx.x == 0) all = scan.all;
    __syncthreads();
  }

  // The tile that holds a row; each lane looks for its own.
  __device__ __forceinline__ int holds(N row, int count) const {
    int low = 0, high = count;
#pragma unroll 1
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (rows[middle] <= row) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

// A warp's way through its part of the elements of a member's rows, step by step. Each lane knows one row of those that
// lie ahead, but for the last lane's, which only says where the others end.
template <int WAY>
struct Walk {
  typedef typename Count<WAY>::type N;
  const Call& call;
  const Member<WAY>& member;
  const Tiles<WAY>& tiles;
  N at, stop;     // what is left of the warp's part
  N first, end;   // the first lane's row, and the element before which the lanes' rows end
  N start;        // the first element of the lane's row
  N shift;        // from the number of one of its elements to its place in `indices`
  N event;        // the neuron whose row it is
  int size;       // elements of this step
  int low, high;  // lanes whose rows these are in

  __device__ __forceinline__ Walk(const Call& call, const Member<WAY>& member, Tiles<WAY>& tiles)
      : call(call), member(member), tiles(tiles), size(0) {
    tiles.sum_up(call, list());
    const N elements = tiles.all.elements;
    // Whole warps of elements, and the first of them to all multiprocessors alike.
    const N threads = gridDim.x * THREADS, part = elements ? ((elements - 1) / threads + 1) * WARP : 0;
    at = part * (warp() * gridDim.x + blockIdx.x);
    stop = at >= elements ? at : elements - at < part ? elements : at + part;
    if (at < stop) find();
  }

  __device__ __forceinline__ Rows list() const { return {call, member.template of<uint64>(call, call.rows)}; }

  // Find the row of the warp's first element, or one before it. Lanes have no rows yet: theirs end where it begins.
  __device__ __forceinline__ void find() {
    const Tiles<WAY>& tiles = this->tiles;
    const Rows list = this->list();
    const N tile = last_at_most<N>(at, call.tiles, [&](N t) { return tiles.elements[t]; });
    end = tiles.elements[tile];
    const N count = (tile + 1 < call.tiles ? tiles.rows[tile + 1] : tiles.all.rows) - tiles.rows[tile];
    const uint64 begin = (uint64) tile * call.per_tile;
    first = tiles.rows[tile] - (WARP - 1);
    first += last_at_most<N>(at - end, count, [&](N row) { return list.before(begin + row); });
  }

  // Give each lane the next of the rows.
  __device__ __forceinline__ void look() {
    first += WARP - 1;
    const N row = first + lane();
    const bool is_row = row < tiles.all.rows;
    const int tile = is_row ? tiles.holds(row, call.tiles) : 0;
    const N within = row - tiles.rows[tile];
    start = tiles.all.elements;
    shift = event = 0;
    if (is_row) {
      const uint64 place = (uint64) tile * call.per_tile + within;
      start = capped<uint64>(tiles.elements[tile], list().before(place), tiles.all.elements);
      shift = list().shift(place) - tiles.elements[tile];
      event = list().event(place);
    }
    end = __shfl_sync(ALL, start, WARP - 1);
  }

  // Go on to the next `most` elements or fewer; false when there are none.
  __device__ __forceinline__ bool next(int most) {
    at += size;
    if (at >= stop) return false;
    while (at >= end) look();
    const N left = (stop < end ? stop : end) - at;
    size = left < most ? left : most;
    low = __popc(__ballot_sync(ALL, start <= at)) - 1;
    high = __popc(__ballot_sync(ALL, start < at + size));
    return true;
  }
};

// The elements of one step that a thread works on. All loads of a kind are under way before one of them is used.
template <class I, bool PERMUTED, int WAY, int ITEMS>
struct Items {
  typedef typename Count<WAY>::type N;
  static constexpr N NONE = ~(N) 0;
  N slot[ITEMS];     // NONE where there is no such element, or one of its indices is out of range
  N partner[ITEMS];  // the neuron at the other end
  int row[ITEMS];    // the lane whose row it is in

  __device__ __forceinline__ Items(const Call& call, const Walk<WAY>& walk) {
    const I *indices = (const I*) call.indices.data, *slots = (const I*) call.weight_indices.data;
    N place[ITEMS];
    I to[ITEMS], from[ITEMS];
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) row[i] = walk.low;
#pragma unroll 1
    for (int step = WARP / 2; step > 0; step /= 2) {
      if (step >= walk.high - walk.low) continue;
#pragma unroll
      for (int i = 0; i < ITEMS; ++i) {
        const int later = row[i] + step;
        const N start = __shfl_sync(ALL, walk.start, later);
        if (later < walk.high && start <= walk.at + i * WARP + lane()) row[i] = later;
      }
    }
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) place[i] = __shfl_sync(ALL, walk.shift, row[i]) + walk.at + i * WARP + lane();
    if (PERMUTED) {
#pragma unroll
      for (int i = 0; i < ITEMS; ++i) {
        to[i] = -1;
        if (i * WARP + lane() < walk.size) to[i] = slots[place[i]];
      }
    }
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
      from[i] = -1;
      if (i * WARP + lane() < walk.size) from[i] = indices[place[i]];
    }
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
      const bool in_range = (uint64) from[i] < call.n_other && (!PERMUTED || (uint64) to[i] < call.indices.size);
      slot[i] = in_range ? PERMUTED ? to[i] : place[i] : NONE;
      partner[i] = from[i];
    }
  }

  __device__ __forceinline__ bool has(int i) const { return slot[i] != NONE; }
};

// The gain of each element's row, of which each lane has loaded its own.
template <class A, int WAY>
__device__ __forceinline__ A gain_of_lane(const Call& call, const A* gain, const Walk<WAY>& walk) {
  return call.gain.size == 0 ? 1 : gain[call.gain.size > 1 ? walk.event : 0];
}

// Elements of a thread in one step: half as many of those that take two registers for a weight, or for its slot. With
// 4, the batched `update` of float32 spilled 296 bytes of a thread.
template <class W, int WAY>
constexpr int items = ITEMS / (sizeof(W) > 4 ? 2 : 1) / (WAY == BATCHED ? 2 : 1);
