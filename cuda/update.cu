// weight[slot(k)] = clip(weight[slot(k)] + gain[j] * trace[indices[k]]) for every element k of every spiking row j.
//
// With a soft bound the change is scaled by a power of the distance to it, in units of the range between the bounds.
//
// What must move per element: its index, its slot, its trace (in cache) and the 32-byte sector of its weight, there and
// back. Each weight belongs to one element, so there is nothing to order. An element whose indices are out of range is
// skipped.

enum Soft { HARD, LINEAR, POWER };

template <class W>
struct Bounds {
  typedef typename Arithmetic<W>::type A;
  const Call& call;
  const W *w_min, *w_max;
  A low, high;

  __device__ __forceinline__ Bounds(const Call& call, int64 member)
      : call(call), w_min(of<const W>(call, call.w_min, member)), w_max(of<const W>(call, call.w_max, member)) {
    low = call.w_min.size == 1 ? load(w_min) : 0;
    high = call.w_max.size == 1 ? load(w_max) : 0;
  }

  __device__ __forceinline__ void look_up(int64 slot) {
    if (call.w_min.size > 1) low = load(w_min + slot);
    if (call.w_max.size > 1) high = load(w_max + slot);
  }

  // Clip to those looked up last, and say whether that does anything. NaN where a bound is NaN, as in `jnp.clip`.
  __device__ __forceinline__ bool clip(A& x) const {
    const bool low_moves = call.w_min.size && (x < low || isnan(low));
    if (low_moves) x = low;
    const bool high_moves = call.w_max.size && (x > high || isnan(high));
    if (high_moves) x = high;
    return low_moves || high_moves;
  }

  // What scales the change of a weight: 1 at the other bound; 0 at this one and beyond, and where there is no range.
  template <int SOFT>
  __device__ __forceinline__ A soften(A x, bool upper, A mu) const {
    if (!(low < high)) return 0;
    const A per_range = 1 / (high - low);
    const A base = upper ? (x - high) * -per_range : (x - low) * per_range;
    if (!(base > 0)) return 0;
    return SOFT == LINEAR ? base : power(base, mu);
  }

  static __device__ __forceinline__ float power(float x, float mu) { return powf(x, mu); }
  static __device__ __forceinline__ double power(double x, double mu) { return pow(x, mu); }
};

template <class W, class I, bool PERMUTED, int SOFT>
__global__ void __launch_bounds__(THREADS, BLOCKS) update(const Call call) {
  typedef typename Arithmetic<W>::type A;
  __shared__ Chunk chunk;
  for (int64 member = blockIdx.y; member < call.members; member += gridDim.y) {
    W* weight = of<W>(call, call.result, member);
    const A* trace = of<const A>(call, call.trace, member);
    const A* gain = of<const A>(call, call.gain, member);
    Bounds<W> bounds(call, member);
    for (Walk walk(call, member, chunk); walk.next();) {
      const Items<I, PERMUTED> items(call, walk);
      A x[ITEMS], change[ITEMS];
#pragma unroll
      for (int i = 0; i < ITEMS; ++i) {
        if (items.has(i)) {
          x[i] = load(weight + items.slot[i]);
          change[i] = gain_of(call, gain, walk, items.row[i]) * trace[items.partner[i]];
        }
      }
#pragma unroll
      for (int i = 0; i < ITEMS; ++i) {
        if (items.has(i)) {
          bounds.look_up(items.slot[i]);
          if (SOFT != HARD) change[i] = change[i] * bounds.template soften<SOFT>(x[i], call.soft_upper, call.mu);
          x[i] = x[i] + change[i];
          bounds.clip(x[i]);
          store(weight + items.slot[i], x[i]);
        }
      }
    }
  }
}

// As many weights as are read and written in one go.
template <class W>
struct alignas(16) Pack {
  static constexpr int WIDTH = 16 / sizeof(W);
  W weight[WIDTH];
};

// Clip all weights: they are read whole, but only what moves is written.
template <class W>
__global__ void __launch_bounds__(THREADS) clip(const Call call) {
  const int64 nse = call.result.size, threads = (int64) gridDim.x * THREADS;
  const int64 thread = (int64) blockIdx.x * THREADS + threadIdx.x;
  for (int64 member = blockIdx.y; member < call.members; member += gridDim.y) {
    W* weight = of<W>(call, call.result, member);
    Bounds<W> bounds(call, member);
    const auto clip_one = [&](W* target, int64 slot) {
      bounds.look_up(slot);
      auto x = load(target);
      const bool moves = bounds.clip(x);
      if (moves) store(target, x);
      return moves;
    };
    int64 before = (16 - ((uint64) weight & 15)) % 16 / sizeof(W);  // the first pack: packs lie at multiples of 16 bytes
    if (before > nse) before = nse;
    const int64 packs = (nse - before) / Pack<W>::WIDTH, after = before + packs * Pack<W>::WIDTH;
    for (int64 p = thread; p < packs; p += threads) {
      Pack<W>* source = (Pack<W>*) (weight + before) + p;
      Pack<W> pack = *source;
      bool moves = false;
#pragma unroll
      for (int i = 0; i < Pack<W>::WIDTH; ++i) {
        if (clip_one(&pack.weight[i], before + p * Pack<W>::WIDTH + i)) moves = true;
      }
      if (moves) *source = pack;
    }
    const int64 rest = thread < before ? thread : after + thread - before;
    if (rest < nse) clip_one(weight + rest, rest);
  }
}
