// out[indices[k]] += gain[j] * weight[slot(k)] for every element k of every spiking row j; `find_rows` makes it 0.
//
// Several elements may have one target: atomics add them in the order in which they come, so that the last bits of a
// sum may differ from one call to the next. An element whose indices are out of range is skipped.

template <class W, class I, bool PERMUTED>
__global__ void __launch_bounds__(THREADS, BLOCKS) propagate(const Call call) {
  typedef typename Arithmetic<W>::type A;
  __shared__ Chunk chunk;
  for (int64 member = blockIdx.y; member < call.members; member += gridDim.y) {
    A* out = of<A>(call, call.result, member);
    const W* weight = of<const W>(call, call.weight, member);
    const A* gain = of<const A>(call, call.gain, member);
    for (Walk walk(call, member, chunk); walk.next();) {
      const Items<I, PERMUTED> items(call, walk);
      A x[ITEMS];
#pragma unroll
      for (int i = 0; i < ITEMS; ++i) {
        if (items.has(i)) x[i] = gain_of(call, gain, walk, items.row[i]) * load(weight + items.slot[i]);
      }
#pragma unroll
      for (int i = 0; i < ITEMS; ++i) {
        if (items.has(i)) atomicAdd(out + items.partner[i], x[i]);
      }
    }
  }
}
