// What the kernels are to give, one element at a time, in the order of the elements: DESIGN's formulas and nothing else.
#pragma once
#include "frames.h"
#include "numbers.h"

enum Flag { PERMUTED = 1, CSC = 2, CLIP_ALL = 4, UPPER = 8, LOWER = 16, LISTED = 32, DUE = 64, SHIFTED = 128, SENT = 256, SECOND = 512 };

struct Array {
    Arena arena;
    int dtype = 0;
    int64_t rank = 1, dims[3] = {0, 0, 0};
    bool alias = false;  // of the result
    int64_t size() const { return dims[rank - 1]; }
    int64_t members() const { return rank == 1 ? 1 : rank == 2 ? dims[0] : dims[0] * dims[1]; }
    int64_t bytes() const { return members() * size() * itemsize(dtype); }
    // What is of member `i` of a batch of `dims`.
    uint8_t* of(const Array& batch, int64_t i) const {
        int64_t at = 0;
        if (rank == 2) at = dims[0] > 1 ? i : 0;
        if (rank == 3) at = (dims[0] > 1 ? i / batch.dims[1] : 0) * dims[1] + (dims[1] > 1 ? i % batch.dims[1] : 0);
        return arena.own + arena.begin + at * size() * itemsize(dtype);
    }
};
inline int64_t integer(const uint8_t* at, int dtype, int64_t k) {
    return dtype == INT32 ? ((const int32_t*)at)[k] : ((const int64_t*)at)[k];
}
inline bool fits(const Array& x, const Array& result) {
    if (x.rank == 1) return true;
    if (x.rank != result.rank) return false;
    for (int d = 0; d + 1 < x.rank; d++)
        if (x.dims[d] != 1 && x.dims[d] != result.dims[d]) return false;
    return true;
}

constexpr int MOST = 8192;  // events, elements, neurons

struct Events {
    int64_t row[MOST], count = 0, shift = 0;
    bool good = true, repeated = false;
    void add(int64_t j) { row[count++] = j; }
};

// `_core.events`: the neurons that spiked as many steps ago as there are delays.
inline void read_lists(const int32_t* x, int64_t size, int flags, int64_t rows, Events& events) {
    events.good = false;
    if (size < 5) return;
    int64_t position = x[0], length = x[2], n = x[3], count = x[4];
    if (length < 1 || n < 0 || position < 0 || position >= length || x[1] < 0 || count < 0 || count > length) return;
    if (size != 5 + count + length * (n + 1) || rows != length * n) return;
    for (int64_t d = 0; d < count; d++)
        if (x[5 + d] < 0 || x[5 + d] >= length) return;
    if (flags & DUE) position = (position + 1) % length;
    if (flags & SHIFTED) events.shift = x[1];
    for (int64_t d = 0; d < count; d++) {
        int64_t delay = x[5 + d];
        const int32_t* list = x + 5 + count + (position - delay + length) % length * (n + 1);
        if (list[0] < 0 || list[0] > n) return;
        for (int k = 1; k <= list[0]; k++) {
            if (list[k] < 0 || list[k] >= n) return;
            events.add((length - 1 - delay) * n + list[k]);
        }
    }
    events.good = true;
}
// `_core.sent`: the neurons that spiked in the step that is named, or in that of the second half.
inline void read_sent(const int32_t* x, int64_t size, int flags, int64_t rows, Events& events) {
    events.good = false;
    if (size < 5) return;
    int64_t step = x[0], n = x[1], steps = x[2], capacity = x[3];
    if (flags & SECOND) {
        if (step < 0 || step >= steps / 2) return;
        step += steps / 2;
    }
    if (n < 0 || capacity < 0 || x[4] || step < 0 || step >= steps || size != 5 + steps + 1 + capacity || rows != n) return;
    int64_t begin = x[5 + step], end = x[6 + step];
    if (begin < 0 || end < begin || end > capacity) return;
    for (int64_t k = begin; k < end; k++) {
        int64_t id = x[6 + steps + k];
        if (id < 0 || id >= n) return;
        events.add(id);
    }
    events.good = true;
}

struct Member {  // of a batch
    int64_t nse, rows, n_other;
    const uint8_t *weight, *indices, *indptr, *slots, *trace, *gain, *low, *high;
    int index, pointer;
    int64_t gains, lows, highs;
    int flags;
    bool permuted, shared;
    double mu;
    int64_t begin(int64_t j) const { return integer(indptr, pointer, j); }
    int64_t other(int64_t k) const { return integer(indices, index, k); }
    int64_t slot(int64_t k) const { return permuted ? integer(slots, index, k) : k; }
};

// What the message says of a row that has an index out of range; nothing if it has none.
inline bool wrong_row(const Member& m, int64_t j, char* text) {
    long long begin = m.begin(j), end = m.begin(j + 1);
    if (begin < 0 || end < begin || end > m.nse) {
        snprintf(text, 200, "indptr[%lld : %lld] = [%lld, %lld], expected", (long long)j, (long long)j + 2, begin, end);
        return true;
    }
    for (long long k = begin; k < end; k++) {
        if (m.other(k) < 0 || m.other(k) >= m.n_other) {
            snprintf(text, 200, " indices[%lld] = %lld, expected", k, (long long)m.other(k));
            return true;
        }
        if (m.permuted && (m.slot(k) < 0 || m.slot(k) >= m.nse)) {
            snprintf(text, 200, "weight_indices[%lld] = %lld, expected", k, (long long)m.slot(k));
            return true;
        }
    }
    return false;
}

template <class A> A clip(A x, A low, A high) {
    if (std::isnan(x) || std::isnan(low) || std::isnan(high)) return NAN;
    x = x < low ? low : x;
    return x > high ? high : x;
}
template <class W, class A> void bounds(const Member& m, int64_t slot, A& low, A& high) {
    low = m.lows ? load<A>(((const W*)m.low)[m.lows > 1 ? slot : 0]) : (A)-INFINITY;
    high = m.highs ? load<A>(((const W*)m.high)[m.highs > 1 ? slot : 0]) : (A)INFINITY;
}

// A soft bound's power need not be right to the last bit: what a weight may become, from least to most.
template <class W> struct Range {
    using A = typename Arithmetic<W>::type;
    W least, most;
    bool known = false, number = false;
    Range(const Member& m, A x, A change, A low, A high) {
        using L = long double;
        bool upper = m.flags & UPPER, ranged = m.lows && m.highs;
        if (!(upper ? m.highs : m.lows) || !(m.mu > 0) || m.mu > 8) return;
        if (!std::isfinite(x) || !std::isfinite(change) || (m.lows && !std::isfinite(low)) || (m.highs && !std::isfinite(high))) return;
        L range = ranged ? (L)high - low : 1, base = (upper ? (L)high - x : (L)x - low) / range, eps = std::numeric_limits<A>::epsilon();
        if (!(range > 0) || !(base > 0)) base = 0;
        if (!ranged && base > std::numeric_limits<A>::max()) return;
        // No range, or none that the dtype can tell.
        if (ranged && (std::isinf((A)range) || std::isinf((A)(1 / (A)range)))) base = 0;
        L power = std::pow(base, (L)m.mu), largest = std::numeric_limits<A>::max() / 4;
        number = power < largest && base < largest && std::fabs(change * power) < largest && base * range < largest;
        if (std::fabs(x) > 1e4 || std::fabs(change) > 1e4 || range > 1e6 || range < 1e-3 || base > 1e4) return;
        L error = base == 0 && !(range > 0) ? 0 : 4 * eps * ((std::fabs((L)x) + std::fabs((L)(upper ? high : low))) / range + base) + 2 * std::numeric_limits<A>::denorm_min();
        L ends[2];
        for (int k = 0; k < 2; k++) {
            L b = base + (k ? error : -error), p = b > 0 ? std::pow(b, (L)m.mu) : 0;
            ends[k] = x + change * p;
        }
        if (ends[0] > ends[1]) std::swap(ends[0], ends[1]);
        L slack = 8 * eps * (std::fabs((L)x) + std::fabs(ends[0]) + std::fabs(ends[1]));
        // (a product that is subnormal may lose all of its bits)
        slack += std::numeric_limits<A>::min();
        store(least, clip<A>((A)(ends[0] - slack), low, high));
        store(most, clip<A>((A)(ends[1] + slack), low, high));
        known = true;
    }
    bool has(const W& x) const { return load<A>(least) <= load<A>(x) && load<A>(x) <= load<A>(most); }
};

// Compare a weight after the update with what it is to be after it was `old`.
template <class W> void check_update(const Member& m, const Events& events, const W* old, const W* now) {
    using A = typename Arithmetic<W>::type;
    static uint8_t touched[MOST];
    static A change_of[MOST];
    memset(touched, 0, m.nse);
    for (int64_t e = 0; e < events.count; e++) {
        A factor = m.gains ? ((const A*)m.gain)[m.gains > 1 ? events.row[e] : 0] : 1;
        for (int64_t k = m.begin(events.row[e]); k < m.begin(events.row[e] + 1); k++) {
            int64_t slot = m.slot(k);
            touched[slot] += touched[slot] < 2;
            change_of[slot] = factor * ((const A*)m.trace)[m.other(k)];
        }
    }
    bool soft = m.flags & (UPPER | LOWER);
    for (int64_t slot = 0; slot < m.nse; slot++) {
        A x = load<A>(old[slot]), low, high;
        W expected = old[slot];
        bounds<W>(m, slot, low, high);
        if (touched[slot] > 1) continue;  // twice in a structure that is not one: then only memory is safe
        if (touched[slot] && soft) {
            Range<W> range(m, x, change_of[slot], low, high);
            A y = load<A>(now[slot]);
            if ((range.known && !range.has(now[slot])) || (range.number && std::isnan(y))) {
                fprintf(stderr, "weight %g, change %g, bounds %g, %g, mu %g, flags %d, size %d, now %g\n", (double)x,
                        (double)change_of[slot], (double)low, (double)high, m.mu, m.flags, (int)sizeof(W), (double)y);
                fail("a weight by a soft bound", slot);
            }
            continue;
        }
        if (touched[slot]) store(expected, clip<A>(x + change_of[slot], low, high));
        if (m.flags & CLIP_ALL) store(expected, clip(load<A>(expected), low, high));
        if (!same(now[slot], expected)) {
            fprintf(stderr, "weight %g (bounds %g, %g; flags %d, size %d), now %g, expected %g\n", (double)x, (double)low, (double)high, m.flags, (int)sizeof(W), (double)load<A>(now[slot]), (double)load<A>(expected));
            fail("a weight", slot, touched[slot]);
        }
    }
}

// The sums of `propagate`, on top of what `out` has.
template <class W, class A = typename Arithmetic<W>::type> void add_up(const Member& m, const Events& events, A* out) {
    for (int64_t e = 0; e < events.count; e++) {
        A factor = m.gains ? ((const A*)m.gain)[m.gains > 1 ? events.row[e] : 0] : 1;
        for (int64_t k = m.begin(events.row[e]); k < m.begin(events.row[e] + 1); k++)
            out[m.other(k)] += factor * load<A>(((const W*)m.weight)[m.shared ? 0 : m.slot(k)]);
    }
}
template <class W, class A = typename Arithmetic<W>::type> void collect(const Member& m, const Events& events, A* out) {
    for (int64_t e = 0; e < events.count; e++)
        for (int64_t k = m.begin(events.row[e]); k < m.begin(events.row[e] + 1); k++)
            out[events.row[e]] += load<A>(((const W*)m.weight)[m.shared ? 0 : m.slot(k)]) * ((const A*)m.trace)[m.other(k)];
}
