// weight[slot(k)] = clip(weight[slot(k)] + gain[j] * trace[indices[k]]) for every element k of every spiking row j.
//
// With a soft bound the change is scaled by a power of the distance to it, in units of the range between the bounds.
//
// What must move per element: its index, its slot, its trace (in cache) and the 32-byte sector of its weight, there and
// back. Each weight belongs to one element, so there is nothing to order. An element whose indices are out of range is
// skipped.

enum Soft { HARD, LINEAR, POWER };

template <class W, int WAY>
struct Bounds {
  typedef typename Arithmetic<W>::type A;
  const Call& call;
  const Member<WAY>& member;
  A low, high;  // where all weights share them

  __device__ __forceinline__ Bounds(const Call& call, const Member<WAY>& member) : call(call), member(member) {
    low = call.w_min.size == 1 ? load(w_min()) : 0;
    high = call.w_max.size == 1 ? load(w_max()) : 0;
  }

  // Not kept, as registers are few.
  __device__ __forceinline__ const W* w_min() const { return member.template of<const W>(call, call.w_min); }
  __device__ __forceinline__ const W* w_max() const { return member.template of<const W>(call, call.w_max); }

  __device__ __forceinline__ bool each_has_low() const { return call.w_min.size > 1; }
  __device__ __forceinline__ bool each_has_high() const { return call.w_max.size > 1; }

  // Clip, and say whether that does anything. NaN where a bound is NaN, as in `jnp.clip`.
  __device__ __forceinline__ bool clip(A& x, A low, A high) const {
    const bool low_moves = call.w_min.size && (x < low || isnan(low));
    if (low_moves) x = low;
    const bool high_moves = call.w_max.size && (x > high || isnan(high));
    if (high_moves) x = high;
    return low_moves || high_moves;
  }

  // What scales the change of a weight: 1 at the other bound; 0 at this one and beyond, and where there is no range.
  // Without another bound it is a power of the distance as it is.
  template <int SOFT>
  __device__ __forceinline__ A soften(A x, A low, A high, bool upper, A mu) const {
    const bool ranged = call.w_min.size && call.w_max.size;
    if (ranged && !(low < high)) return 0;
    const A per_range = ranged ? 1 / (high - low) : 1;
    const A base = upper ? (x - high) * -per_range : (x - low) * per_range;
    if (!(base > 0)) return 0;
    return SOFT == LINEAR ? base : power(base, mu);
  }

  static __device__ __forceinline__ float power(float x, float mu) { return powf(x, mu); }
  static __device__ __forceinline__ double power(double x, double mu) { return pow(x, mu); }
};

template <class W, class I, bool PERMUTED, int SOFT, int WAY>
__global__ void __launch_bounds__(THREADS, BLOCKS) update(const Call call) {
  typedef typename Arithmetic<W>::type A;
  constexpr int N = items<W, WAY>;
  __shared__ Tiles<WAY> tiles;
  __shared__ Member<WAY> member;
  for (int64 number = member.first(); number < member.count(call); number += member.stride()) {
    member.find(call, number);
    const Bounds<W, WAY> bounds(call, member);
    for (Walk<WAY> walk(call, member, tiles); walk.next(N * WARP);) {
      // Not before the loop, where the batched variants of float64 would not have the registers for them.
      W* weight = member.template of<W>(call, call.result);
      const A* trace = member.template of<const A>(call, call.trace);
      const A* gain = member.template of<const A>(call, call.gain);
      const A own = gain_of_lane(call, gain, walk);
      const Items<I, PERMUTED, WAY, N> found(call, walk);
      W raw[N], raw_low[N], raw_high[N];
      A change[N], low[N], high[N];
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (found.has(i)) raw[i] = weight[found.slot[i]];
      }
#pragma unroll
      for (int i = 0; i < N; ++i) {
        change[i] = 0;
        if (found.has(i)) change[i] = trace[found.partner[i]];
      }
      if (bounds.each_has_low()) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          if (found.has(i)) raw_low[i] = bounds.w_min()[found.slot[i]];
        }
      }
      if (bounds.each_has_high()) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          if (found.has(i)) raw_high[i] = bounds.w_max()[found.slot[i]];
        }
      }
#pragma unroll
      for (int i = 0; i < N; ++i) {
        low[i] = bounds.each_has_low() ? load(&raw_low[i]) : bounds.low;
        high[i] = bounds.each_has_high() ? load(&raw_high[i]) : bounds.high;
      }
      if (call.gain.size) {
#pragma unroll
        for (int i = 0; i < N; ++i) change[i] = __shfl_sync(ALL, own, found.row[i]) * change[i];
      }
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (found.has(i)) {
          A x = load(&raw[i]);
          if (SOFT != HARD) {
            const A scale = bounds.template soften<SOFT>(x, low[i], high[i], call.soft_upper, call.mu);
            change[i] = change[i] * scale;
          }
          x = x + change[i];
          bounds.clip(x, low[i], high[i]);
          store(weight + found.slot[i], x);
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
template <class W, int WAY>
__global__ void __launch_bounds__(THREADS, BLOCKS) clip(const Call call) {
  typedef typename Count<WAY>::type N;
  constexpr int WIDTH = Pack<W>::WIDTH;
  const N nse = call.result.size, threads = gridDim.x * THREADS, thread = blockIdx.x * THREADS + threadIdx.x;
  __shared__ Member<WAY> member;
  for (int64 number = member.first(); number < member.count(call); number += member.stride()) {
    member.find(call, number);
    W* weight = member.template of<W>(call, call.result);
    const Bounds<W, WAY> bounds(call, member);
    const auto clip_one = [&](W* target, N slot) {
      const auto low = bounds.each_has_low() ? load(bounds.w_min() + slot) : bounds.low;
      const auto high = bounds.each_has_high() ? load(bounds.w_max() + slot) : bounds.high;
      auto x = load(target);
      const bool moves = bounds.clip(x, low, high);
      if (moves) store(target, x);
      return moves;
    };
    N before = (16 - ((uint64) weight & 15)) % 16 / sizeof(W);  // the first pack: packs lie at multiples of 16 bytes
    if (before > nse) before = nse;
    const N packs = (nse - before) / WIDTH, after = before + packs * WIDTH;
    for (N p = thread; p < packs; p += threads) {
      Pack<W>* source = (Pack<W>*) (weight + before) + p;
      Pack<W> pack = *source;
      bool moves = false;
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) {
        if (clip_one(&pack.weight[i], before + p * WIDTH + i)) moves = true;
      }
      if (moves) *source = pack;
    }
    const N rest = thread < before ? thread : after + thread - before;
    if (rest < nse) clip_one(weight + rest, rest);
  }
}
