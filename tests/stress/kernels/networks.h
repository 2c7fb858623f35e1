// Networks as hostile as an input says, for update, propagate, collect and deliver, by both doors.
#pragma once
#include "calls.h"

enum Place { WEIGHT, INDICES, INDPTR, SLOTS, SPIKE, REST };

struct NetworkCase {
    Draw& draw;
    Call call;
    int kind, weight_type, index_type, pointer_type, arithmetic, floats, lists;
    int64_t rows, n_other, nse, n = 0, length = 0;
    bool sorted, patched = false, odd = false, misfit = false;
    int pool, limit;

    explicit NetworkCase(Draw& draw, int kind) : draw(draw), kind(kind) {}

    int64_t a_size() {
        int x = draw.byte();
        return x < 200 ? x % 41 : x < 240 ? x - 150 : x < 250 ? 128 + x % 16 : 200 + 30 * (x % 4);
    }
    void choose() {
        static const int types[] = {FLOAT32, FLOAT64, FLOAT16, BFLOAT16};
        int types_chosen = draw.byte(), how = draw.byte();
        weight_type = types[types_chosen % 4];
        index_type = types_chosen & 4 ? INT64 : INT32;
        pointer_type = types_chosen & 8 ? INT64 : INT32;
        floats = types_chosen >> 4 & 3;
        sorted = types_chosen & 64 || types_chosen & 128;
        arithmetic = weight_type == FLOAT64 ? FLOAT64 : FLOAT32;
        lists = how % 8 < 5 && kind != DELIVER ? 0 : how % 8 == 7 ? SENT | LISTED : LISTED;
        pool = how >> 3 & 3, limit = 1 + (how >> 5 & 3);
        if (pool == THREADS && !draw.one_in(32)) pool = AT_ONCE;
        call.flags = draw.byte() & (PERMUTED | CSC | CLIP_ALL | UPPER | LOWER) | lists;
        if (kind != UPDATE) call.flags &= ~(CLIP_ALL | UPPER | LOWER);
        if (lists == LISTED) call.flags |= draw.byte() & (DUE | SHIFTED);
        if (lists & SENT && draw.one_in(3)) call.flags |= SECOND;
        rows = a_size(), n_other = a_size();
        if (lists == LISTED) n = 1 + draw.of(12) - draw.one_in(16), length = 1 + draw.of(5), rows = n * length;
        nse = std::min<int64_t>(rows * draw.of(9) + draw.of(4), 1600);
        if (draw.one_in(8)) nse = std::min<int64_t>(nse * 8, 1600);
        static const double powers[] = {1, 0.5, 2, 0.4, 3, 0, -1, NAN, INFINITY, 1e-300, 1e300, 1};
        call.mu = powers[draw.of(12)];
        call.kind = kind, call.attributes = kind == UPDATE ? 2 : 1;
        draw.reseed();
    }
    int64_t optional(int64_t each) {
        int how = draw.of(4);
        return how < 2 ? 0 : how == 2 ? 1 : each;
    }
    void shapes() {
        bool shared = kind != UPDATE && draw.one_in(4);
        shape(operands[WEIGHT], weight_type, shared ? 1 : nse);
        shape(operands[INDICES], index_type, nse);
        shape(operands[INDPTR], pointer_type, rows + 1);
        shape(operands[SLOTS], index_type, call.flags & PERMUTED ? nse : 0);
        int64_t events = rows;
        if (lists == LISTED) events = 5 + draw.of(length + 1) + length * (n + 1);
        if (lists & SENT) events = 5 + draw.of(4) + 1 + draw.of(100);
        shape(operands[SPIKE], lists ? INT32 : BOOL, events);
        int64_t gain = optional(rows), trace = n_other;
        if (kind == UPDATE) {
            shape(operands[5], arithmetic, trace), shape(operands[6], arithmetic, gain);
            shape(operands[7], weight_type, optional(nse)), shape(operands[8], weight_type, optional(nse));
            shape(result, weight_type, nse), call.count = 9;
        } else if (kind == COLLECT) {
            shape(operands[5], arithmetic, trace), shape(result, arithmetic, rows), call.count = 6;
        } else {
            shape(operands[5], arithmetic, gain), shape(result, arithmetic, n_other), call.count = 6;
        }
        if (kind == DELIVER) {
            shape(result, arithmetic, 2 * n_other + draw.of(2)), shape(operands[6], arithmetic, result.size());
            shape(operands[7], INT32, 2), call.count = 8;
        }
        int batch = draw.byte();
        if (batch % 4 == 3) batches(batch / 4);
        if (batch % 32 == 30 && kind != DELIVER) mutate();
        if (kind == UPDATE) operands[WEIGHT].alias = !odd && !misfit;
        if (kind == DELIVER) operands[6].alias = !misfit;
    }
    void batches(int how) {
        int64_t lead[2] = {1 + how % 3, 1 + how / 3 % 3};
        int ranks = 1 + how / 9 % 2, own = draw.byte() | draw.byte() << 8;
        auto widen = [&](Array& x, bool first, bool second) {
            int64_t size = x.dims[0];
            x.rank = 1 + ranks;
            if (ranks == 2) x.dims[0] = first ? lead[0] : 1, x.dims[1] = second ? lead[1] : 1;
            else x.dims[0] = first ? lead[0] : 1;
            x.dims[ranks] = size;
        };
        for (int k = 0; k < call.count; k++)
            if (own >> k & 1) widen(operands[k], own >> (k + 5) & 1 || k == SPIKE, own >> (k + 3) & 1 || k == SPIKE);
        if (kind == UPDATE) shape(operands[WEIGHT], weight_type, nse), widen(operands[WEIGHT], true, true);
        if (kind == DELIVER) shape(operands[6], arithmetic, result.size()), widen(operands[6], true, true);
        widen(result, true, true);
        if (draw.one_in(16)) {
            Array& x = operands[draw.of(call.count)];
            int wrong = draw.byte();
            if (x.rank == 1) x.rank = 2, x.dims[1] = x.dims[0], x.dims[0] = 1 + wrong % 4;
            else x.dims[wrong & 1 && x.rank == 3] = 2 + wrong / 2 % 3;
        }
    }
    // A dtype or a size that does not go with the others, which Python's door is to refuse.
    void mutate() {
        static const int types[] = {BOOL, INT32, INT64, FLOAT16, FLOAT32, FLOAT64, BFLOAT16};
        int which = draw.of(call.count + 1), how = draw.byte();
        Array& x = which == call.count ? result : operands[which];
        odd = true;
        if (how & 1) x.dtype = types[how / 2 % 7];
        else x.dims[x.rank - 1] = std::max<int64_t>(0, x.size() + how / 2 % 5 - 2);
        if (how >= 224) call.flags ^= PERMUTED;
        if (how >= 240) call.flags ^= draw.byte() | draw.byte() << 8;
    }
    void place() {
        unsigned ends = draw.byte() | draw.byte() << 8;
        for (int k = 0; k < call.count; k++) {
            operands[k].arena.place(operands[k].alias ? 0 : operands[k].bytes(), ends >> k & 1);
        }
        result.arena.place(result.bytes(), ends >> 10 & 1);
    }
    template <class T> void fill_floats(uint8_t* at, int64_t size) {
        using A = typename Arithmetic<T>::type;
        for (int64_t k = 0; k < size; k++) store(((T*)at)[k], draw_float<A>(draw, floats));
    }
    void fill_any(uint8_t* at, int dtype, int64_t size) {
        switch (dtype) {
            case FLOAT32: return fill_floats<float>(at, size);
            case FLOAT64: return fill_floats<double>(at, size);
            case FLOAT16: return fill_floats<Half>(at, size);
            case BFLOAT16: return fill_floats<Brain>(at, size);
            default:
                for (int64_t k = 0; k < size * itemsize(dtype); k++) at[k] = draw.bits() >> 56;
        }
    }
    void each(Array& x, auto fill) {
        for (int64_t k = 0; k < x.members(); k++) fill(x.arena.own + x.arena.begin + k * x.size() * itemsize(x.dtype), x.size());
    }
    static bool is_index(const Array& x) { return x.dtype == INT32 || x.dtype == INT64; }

    void fill() {
        for (int k = 0; k < call.count; k++) {
            Array& x = operands[k];
            bool own = (k == INDICES || k == INDPTR || k == SLOTS) && is_index(x);
            if (!x.alias && !own && k != SPIKE)
                each(x, [&](uint8_t* at, int64_t size) { fill_any(at, x.dtype, size); });
        }
        if (is_index(operands[INDPTR])) each(operands[INDPTR], [&](uint8_t* at, int64_t size) { fill_indptr(at, size); });
        if (is_index(operands[INDICES])) each(operands[INDICES], [&](uint8_t* at, int64_t size) { fill_indices(at, size); });
        if (is_index(operands[SLOTS])) each(operands[SLOTS], [&](uint8_t* at, int64_t size) { fill_slots(at, size); });
        spikes = draw.of(8), values = draw.byte();
        each(operands[SPIKE], [&](uint8_t* at, int64_t size) { fill_spikes(at, size); });
        if (kind == DELIVER)
            each(operands[7], [&](uint8_t* at, int64_t size) {
                int64_t half = result.size() / 2, place = draw.below(half + 1), cleared = draw.below(half - place + 1);
                if (size > 0) ((int32_t*)at)[0] = (int32_t)place;
                if (size > 1) ((int32_t*)at)[1] = (int32_t)cleared;
            });
        patch();
        for (int64_t k = 0; k < result.members(); k++)
            fill_any(initial + k * result.size() * itemsize(result.dtype), result.dtype, result.size());
    }
    int spikes, values;

    void fill_indptr(uint8_t* at, int64_t size) {
        int64_t x = 0;
        for (int64_t k = 0; k < size; k++) {
            put(at, operands[INDPTR].dtype, k, k + 1 == size ? nse : x);
            x = std::min(nse, x + draw.below(2 * (nse - x) / std::max<int64_t>(1, size - 1 - k) + 1));
        }
        if (size) put(at, operands[INDPTR].dtype, 0, 0);
    }
    void fill_indices(uint8_t* at, int64_t size) {
        const Array& pointer = operands[INDPTR];
        bool in_rows = sorted && is_index(pointer) && pointer.bytes() > 0;
        int64_t row = 0, x = 0;
        for (int64_t k = 0; k < size; k++) {
            if (!in_rows) x = draw.below(n_other);
            else {
                const uint8_t* p = pointer.arena.own + pointer.arena.begin;
                bool starts = false;
                while (row + 1 < pointer.size() && integer(p, pointer.dtype, row) <= k) row++, starts = true;
                int64_t left = integer(p, pointer.dtype, row) - k;
                x = std::min(n_other - 1, (starts ? 0 : x) + draw.below(2 * (n_other - (starts ? 0 : x)) / std::max<int64_t>(1, left) + 1));
            }
            put(at, operands[INDICES].dtype, k, std::max<int64_t>(x, 0));
        }
    }
    void fill_slots(uint8_t* at, int64_t size) {
        int dtype = operands[SLOTS].dtype;
        for (int64_t k = 0; k < size; k++) {
            int64_t other = draw.below(k + 1);
            put(at, dtype, k, integer(at, dtype, other));
            put(at, dtype, other, k);
        }
    }
    void fill_spikes(uint8_t* at, int64_t size) {
        if (!lists || operands[SPIKE].dtype != INT32) {
            for (int64_t k = 0; k < size * itemsize(operands[SPIKE].dtype); k++) {
                uint64_t bits = draw.bits();
                bool spike = spikes == 7 || (int)(bits >> 32 & 15) < 1 << spikes >> 1;
                at[k] = !spike ? 0 : values & 1 ? 1 : (bits >> 56) | 1 << (bits >> 40 & 7);
            }
            return;
        }
        auto x = (int32_t*)at;
        if (lists & SENT) return fill_sent(x, size, rows);
        if (size < 5) return;
        int64_t count = size - 5 - length * (n + 1);
        x[0] = draw.below(length), x[1] = draw.below(4) ? 0 : draw.below(4), x[2] = length, x[3] = n, x[4] = std::max<int64_t>(count, 0);
        if (count < 0) return;
        for (int64_t d = 0; d < count; d++) x[5 + d] = values & 2 ? draw.below(length) : (length - 1 - d);
        for (int64_t k = 0; k < length; k++) {
            int32_t* list = x + 5 + count + k * (n + 1);
            list[0] = 0;
            for (int64_t j = 0; j < n; j++) {
                list[1 + j] = (int32_t)draw.bits();
                if ((draw.bits() >> 60) < 1u << spikes >> 1) list[1 + list[0]++] = j;
            }
        }
    }
    void fill_sent(int32_t* x, int64_t size, int64_t n) {
        if (size < 6) return;
        int64_t most = call.flags & SECOND ? 2 + values % 6 : values % 4;  // half of which are another population's
        int64_t steps = std::min<int64_t>(size - 6, most), capacity = size - 6 - steps, ids = 0;
        x[0] = draw.below(steps), x[1] = n, x[2] = steps, x[3] = capacity, x[4] = 0;
        for (int64_t k = 0; k <= steps; k++) {
            x[5 + k] = k == steps ? capacity - draw.below(2) * draw.below(capacity + 1) : ids;
            if (x[5 + k] < ids) x[5 + k] = ids;
            ids += draw.below(2 * (capacity - ids) / std::max<int64_t>(1, steps - k) + 1);
        }
        for (int64_t k = 0; k < capacity; k++) x[6 + steps + k] = draw.below(n);
    }
    // Some values that no structure has, where they do most harm.
    void patch() {
        for (int left = draw.of(8) - 4; left > 0; left--) {
            int which = draw.of(6);
            Array& x = which == 5 ? operands[7] : operands[which == 0 ? INDPTR : which];
            if ((which == 5 && kind != DELIVER) || !is_index(x) || !x.bytes() || x.alias) continue;
            int64_t limit = which == INDICES ? n_other : which == SLOTS ? nse : which == SPIKE ? n : x.size() && which == 5 ? n_other : nse;
            int64_t many = x.members() * x.size(), at = draw.byte() & 1 ? draw.byte() % many : draw.below(many);
            put(x.arena.own + x.arena.begin, x.dtype, at, hostile(draw, limit));
            patched = true;
        }
        if (draw.one_in(64)) {
            Array& x = operands[1 + draw.of(4)];
            for (int64_t k = 0; k < x.bytes(); k++) x.arena.own[x.arena.begin + k] = draw.bits() >> 56;
            patched = true;
        }
    }

    Member member(int64_t i) {
        Member m = {};
        m.nse = operands[INDICES].size(), m.rows = operands[INDPTR].size() - 1;
        const uint8_t* of[9] = {};
        for (int k = 0; k < call.count; k++) of[k] = operands[k].of(result, i);
        m.weight = of[WEIGHT], m.indices = of[INDICES], m.indptr = of[INDPTR], m.slots = of[SLOTS];
        m.index = operands[INDICES].dtype, m.pointer = operands[INDPTR].dtype;
        m.shared = operands[WEIGHT].size() == 1 && m.nse != 1;
        m.permuted = call.flags & PERMUTED && !m.shared;
        m.flags = call.flags, m.mu = call.mu;
        int gain = kind == UPDATE ? 6 : 5;
        if (kind != COLLECT) m.gain = of[gain], m.gains = operands[gain].size();
        if (kind == UPDATE || kind == COLLECT) m.trace = of[5], m.n_other = operands[5].size();
        if (kind == PROPAGATE) m.n_other = result.size();
        if (kind == DELIVER) m.n_other = result.size() / 2;
        if (kind == UPDATE) m.low = of[7], m.lows = operands[7].size(), m.high = of[8], m.highs = operands[8].size();
        return m;
    }
    // What is to come of member `i`: true, or what has to be said of it.
    bool expect(Member& m, Events& events, int64_t i, char* text) {
        const uint8_t* spike = operands[SPIKE].of(result, i);
        events.count = events.shift = 0, events.good = true, events.repeated = false, *text = 0;
        if (lists & SENT) read_sent((const int32_t*)spike, operands[SPIKE].size(), call.flags, m.rows, events);
        else if (lists) read_lists((const int32_t*)spike, operands[SPIKE].size(), call.flags, m.rows, events);
        else
            for (int64_t j = 0; j < operands[SPIKE].size(); j++)
                if (spike[j]) events.add(j);
        if (kind == DELIVER) {
            auto places = (const int32_t*)operands[7].of(result, i);
            if (places[0] < 0 || places[1] < 0 || (int64_t)places[0] + places[1] > m.n_other) events.good = false;
        } else {
            int64_t room = m.n_other;
            if (events.shift > room) events.good = false;
            m.n_other -= events.shift;
            if (m.trace) m.trace += events.shift * itemsize(arithmetic);
        }
        if (!events.good) return snprintf(text, 200, lists & SENT ? "more spikes than" : "the lists of"), false;
        if (kind == COLLECT) {
            static uint32_t seen[MOST], stamp = 0;
            stamp++;
            for (int64_t e = 0; e < events.count; e++) {
                events.repeated |= seen[events.row[e]] == stamp;
                seen[events.row[e]] = stamp;
            }
        }
        for (int64_t e = 0; e < events.count; e++)
            if (wrong_row(m, events.row[e], text)) {
                for (int64_t j = 0; lists && j < m.rows; j++)  // of lists it says what it finds first in any row
                    if (wrong_row(m, j, text)) break;
                return false;
            }
        return true;
    }
    template <class W> void compare_as(const Member& m, const Events& events, int64_t i) {
        using A = typename Arithmetic<W>::type;
        const uint8_t* now = result.of(result, i);
        int64_t size = result.size();
        if (kind == UPDATE) return check_update<W>(m, events, (const W*)(initial + i * size * sizeof(W)), (const W*)now);
        static A sums[MOST];
        memset(sums, 0, size * sizeof(A));
        if (kind == PROPAGATE) add_up<W>(m, events, sums + events.shift);
        if (kind == COLLECT) collect<W>(m, events, sums);
        if (kind == DELIVER) {
            auto places = (const int32_t*)operands[7].of(result, i);
            memcpy(sums, initial + i * size * sizeof(A), size * sizeof(A));
            for (int64_t k = places[0]; k < (int64_t)places[0] + places[1]; k++) sums[k] = sums[k + size / 2] = 0;
            add_up<W>(m, events, sums + places[0]);
        }
        for (int64_t k = 0; k < size && !events.repeated; k++)
            if (!same(((const A*)now)[k], sums[k])) {
                fprintf(stderr, "sum %g, expected %g\n", (double)((const A*)now)[k], (double)sums[k]);
                fail("a sum", k, kind);
            }
    }
    void compare(const Member& m, const Events& events, int64_t i) {
        if (weight_type == FLOAT32) compare_as<float>(m, events, i);
        if (weight_type == FLOAT64) compare_as<double>(m, events, i);
        if (weight_type == FLOAT16) compare_as<Half>(m, events, i);
        if (weight_type == BFLOAT16) compare_as<Brain>(m, events, i);
    }
    void run();
};

inline void NetworkCase::run() {
    choose(), shapes(), place(), fill();
    for (int k = 0; k < call.count; k++) misfit |= !fits(operands[k], result);
    static Events events;
    static char texts[9][200];
    int64_t members = result.members(), wrong = 0;
    bool compares = !odd && !misfit;
    for (int64_t i = 0; i < members && compares; i++) {
        Member m = member(i);
        if (!expect(m, events, i, texts[wrong])) wrong++;
    }
    for (int door = 0; door < 3; door++) {
        bool python = door == 2;
        if ((python && kind == DELIVER) || (!python && odd)) continue;
        Machine machine;
        machine.pool = door ? pool : NO_POOL;
        hebbax_fuzz_limit(door ? limit : 1);
        int answer = call.run(python, machine);
        if (odd) continue;
        if (python && lists) {
            if (answer != WRONG) fail("lists by Python's door", answer, WRONG);
        } else if (misfit) {
            if (answer == DONE) fail("a batch that is none", answer);
        } else if (answer != (wrong ? FAILED : DONE)) {
            fprintf(stderr, "said '%s', expected '%s'\n", call.message, texts[0]);
            fail("accepted or refused", answer, wrong);
        } else if (wrong) {
            bool said = false;
            for (int64_t k = 0; k < wrong; k++) said |= strstr(call.message, texts[k]) != nullptr;
            // (a list of which an early batch names a bad row, and the rest is bad too)
            said |= lists && strstr(call.message, "expected");
            if (!said) fprintf(stderr, "said '%s', expected '%s'\n", call.message, texts[0]), fail("another message");
        } else {
            for (int64_t i = 0; i < members; i++) {
                Member m = member(i);
                expect(m, events, i, texts[0]);
                compare(m, events, i);
            }
        }
    }
    if (!odd && !misfit && draw.one_in(64)) {
        Machine machine;
        call.count -= 1;
        int answer = call.run(false, machine);
        if (answer != FAILED || !strstr(call.message, "another version")) fail("a missing operand", answer);
    }
}
