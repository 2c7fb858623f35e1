// out[indices[k]] += gain[j] * weight[slot(k)] for every element k of every spiking row j; `find_rows` makes it 0.
//
// Several elements may have one target: atomics add them in the order in which they come, so that the last bits of a
// sum may differ from one call to the next. An element whose indices are out of range is skipped.

template <class W, class I, bool PERMUTED, bool SHARED, int WAY>
__global__ void __launch_bounds__(THREADS, BLOCKS) propagate(const Call call) {
  typedef typename Arithmetic<W>::type A;
  constexpr int N = items<W, WAY>;
  __shared__ Tiles<WAY> tiles;
  __shared__ Member<WAY> member;
  for (int64 number = member.first(); number < member.count(call); number += member.stride()) {
    member.find(call, number);
    A* out = member.template of<A>(call, call.result);
    const W* weight = member.template of<const W>(call, call.weight);
    const A one = SHARED ? load(weight) : 0;  // that all elements share
    const A* gain = member.template of<const A>(call, call.gain);
    for (Walk<WAY> walk(call, member, tiles); walk.next(N * WARP);) {
      const A own = gain_of_lane(call, gain, walk);
      const Items<I, PERMUTED, WAY, N> found(call, walk);
      W raw[N];
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (!SHARED && found.has(i)) raw[i] = weight[found.slot[i]];
      }
      A x[N];
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = SHARED ? one : load(&raw[i]);
      if (call.gain.size) {
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = __shfl_sync(ALL, own, found.row[i]) * x[i];
      }
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (found.has(i)) atomicAdd(out + found.partner[i], x[i]);
      }
    }
  }
}
