// Spikes on their way, as hostile as an input says: record, fade, tile, pack, merge and exchange, which XLA alone calls.
#pragma once
#include "networks.h"

inline void patch_integers(Draw& draw, Array& x, int64_t limit, bool& patched) {
    for (int left = draw.of(8) - 4; left > 0 && x.size(); left--) {
        put(x.arena.own + x.arena.begin, x.dtype, draw.byte() % (x.members() * x.size()), hostile(draw, limit));
        patched = true;
    }
}
inline void place_all(Draw& draw, const Call& call) {
    unsigned ends = draw.byte();
    for (int k = 0; k < call.count; k++) operands[k].arena.place(operands[k].alias ? 0 : operands[k].bytes(), ends >> k & 1);
    result.arena.place(result.bytes(), ends >> 7);
}
inline int run_by_xla(Call& call) {
    Machine machine;
    hebbax_fuzz_limit(2);
    return call.run(false, machine);
}
inline void expect(const Call& call, int answer, bool good) {
    if (answer == (good ? DONE : FAILED)) return;
    fprintf(stderr, "said '%s'\n", call.message);
    fail("accepted or refused", answer, call.kind);
}

inline void run_record(Draw& draw) {
    Call call{RECORD, 3};
    int64_t n = draw.of(48), length = 1 + draw.of(5), count = draw.of(length + 1), size = 5 + count + length * (n + 1);
    shape(result, INT32, size), shape(operands[0], INT32, size), operands[0].alias = true;
    shape(operands[1], BOOL, n + (draw.one_in(16) ? 1 : 0)), shape(operands[2], INT32, 2);
    draw.reseed(), place_all(draw, call);
    auto x = (int32_t*)initial;
    for (int64_t k = 0; k < size; k++) x[k] = draw.below(n);
    x[0] = draw.below(length), x[1] = 0, x[2] = length, x[3] = n, x[4] = count;
    for (int64_t d = 0; d < count; d++) x[5 + d] = draw.below(length);
    if (draw.one_in(8)) x[draw.of(5)] = hostile(draw, length);
    if (draw.one_in(8) && count) x[5 + draw.of(count)] = hostile(draw, length);
    auto spike = operands[1].arena.as<uint8_t>();
    for (int64_t k = 0, often = draw.of(6); k < operands[1].size(); k++) spike[k] = draw.below(1 << often) ? 0 : 1 + draw.below(255);
    auto places = operands[2].arena.as<int32_t>();
    places[0] = draw.below(length), places[1] = draw.bits();
    if (draw.one_in(8)) places[0] = hostile(draw, length);
    bool good = x[2] >= 1 && x[3] >= 0 && x[0] >= 0 && x[0] < x[2] && x[1] >= 0 && x[4] >= 0 && x[4] <= x[2];
    good = good && size == 5 + x[4] + (int64_t)x[2] * ((int64_t)x[3] + 1) && operands[1].size() == x[3];
    for (int64_t d = 0; good && d < x[4]; d++) good = x[5 + d] >= 0 && x[5 + d] < x[2];
    good = good && places[0] >= 0 && places[0] < x[2];
    int answer = run_by_xla(call);
    expect(call, answer, good);
    if (!good) return;
    int32_t* list = x + 5 + x[4] + places[0] * (int64_t)(x[3] + 1);
    x[0] = places[0], x[1] = places[1], list[0] = 0;
    for (int64_t j = 0; j < operands[1].size(); j++)
        if (spike[j]) list[++list[0]] = j;
    if (memcmp(x, result.arena.own + result.arena.begin, size * 4)) fail("recorded lists");
}

template <class A> void compare_fade(const int32_t*, int64_t n, const Events& events) {
    static A trace[MOST];
    auto numbers = operands[2].arena.as<A>();
    memcpy(trace, initial, n * sizeof(A));
    for (int64_t k = 0; k < n; k++) trace[k] *= numbers[0];
    for (int64_t e = 0; e < events.count; e++) trace[events.row[e]] = numbers[2] ? numbers[1] : trace[events.row[e]] + numbers[1];
    for (int64_t k = 0; k < n; k++)
        if (!same(trace[k], result.arena.as<A>()[k])) fail("a trace that fades", k);
}
inline void run_fade(Draw& draw) {
    Call call{FADE, 3};
    bool wide = draw.of(2);
    int64_t n = draw.of(48), steps = draw.of(5), capacity = draw.of(64), type = wide ? FLOAT64 : FLOAT32;
    int floats = draw.of(4);
    if (draw.one_in(3)) call.flags = SECOND;
    shape(result, type, n), shape(operands[0], type, n), operands[0].alias = true;
    shape(operands[1], INT32, draw.one_in(16) ? draw.of(6) : 6 + steps + capacity), shape(operands[2], type, 3);
    draw.reseed(), place_all(draw, call);
    NetworkCase generator(draw, FADE);
    generator.floats = floats, generator.values = steps, generator.call.flags = call.flags;
    generator.fill_any(initial, type, n);
    generator.fill_any(operands[2].arena.as<uint8_t>(), type, 3);
    generator.fill_sent(operands[1].arena.as<int32_t>(), operands[1].size(), n);
    if (draw.one_in(2)) {
        if (wide) operands[2].arena.as<double>()[0] = 1;
        else operands[2].arena.as<float>()[0] = 1;
    }
    bool patched = false;
    patch_integers(draw, operands[1], n, patched);
    static Events events;
    events.count = 0;
    read_sent(operands[1].arena.as<int32_t>(), operands[1].size(), call.flags, n, events);
    int answer = run_by_xla(call);
    expect(call, answer, events.good);
    if (events.good && wide) compare_fade<double>(nullptr, n, events);
    if (events.good && !wide) compare_fade<float>(nullptr, n, events);
}

inline void run_tile(Draw& draw) {
    Call call{TILE, 5};
    int type = draw.of(2) ? INT64 : INT32;
    int64_t n = draw.of(24), n_other = draw.of(40), nse = n * draw.of(6), lanes = draw.of(40);
    bool permuted = draw.of(2);
    NetworkCase generator(draw, TILE);
    generator.nse = nse, generator.n_other = n_other, generator.rows = n, generator.sorted = false;
    shape(operands[0], type, n + 1), shape(operands[1], type, nse), shape(operands[2], type, permuted ? nse : 0);
    shape(operands[3], INT32, n + 1), shape(operands[4], type, 3), shape(result, type, 3 * lanes + 2);
    draw.reseed(), place_all(draw, call);
    uint8_t *at[5], *given;
    for (int k = 0; k < 5; k++) at[k] = operands[k].arena.as<uint8_t>();
    given = at[4];
    // (the generator's places for these: INDICES 1, INDPTR 2, SLOTS 3)
    auto pointer = [&](int64_t k) { return integer(at[0], type, k); };
    for (int64_t k = 0, x = 0; k <= n; k++) {
        put(at[0], type, k, k == n ? nse : x);
        x = std::min(nse, x + draw.below(2 * (nse - x) / std::max<int64_t>(1, n - k) + 1));
    }
    for (int64_t k = 0; k < nse; k++) put(at[1], type, k, draw.below(n_other));
    for (int64_t k = 0; k < operands[2].size(); k++) put(at[2], type, k, nse - 1 - k);
    auto spiking = (int32_t*)at[3];
    spiking[0] = 0;
    for (int64_t j = 0, often = draw.of(4); j < n; j++) {
        spiking[1 + j] = j;
        if (!draw.below(1 << often)) spiking[1 + spiking[0]++] = j;
    }
    int64_t place = draw.below(spiking[0] + 1), row = place < spiking[0] ? spiking[1 + place] : -1;
    put(given, type, 0, place), put(given, type, 1, row < 0 ? 0 : draw.below(pointer(row + 1) - pointer(row) + 1));
    put(given, type, 2, n_other);
    bool patched = false;
    Array& x = operands[draw.of(5)];
    patch_integers(draw, x, &x == &operands[1] ? n_other : &x == &operands[3] ? n : nse, patched);
    put(given, type, 2, n_other);  // which is no array, but a number that hebbax compiles in
    memset(initial, 0x33, result.bytes());
    // What is to come.
    static int64_t tile[3][64];
    int64_t count = 0, start = integer(given, type, 1), others = integer(given, type, 2);
    bool good = spiking[0] <= n;
    place = integer(given, type, 0), good = good && place >= 0;
    while (good && count < lanes && place < spiking[0]) {
        int64_t j = spiking[1 + place], begin, end;
        if (j < 0 || j >= n) { good = false; break; }
        begin = pointer(j), end = pointer(j + 1);
        if (begin < 0 || end < begin || end > nse || start < 0 || start > end - begin) { good = false; break; }
        for (; start < end - begin && count < lanes; start++, count++) {
            tile[0][count] = permuted ? integer(at[2], type, begin + start) : begin + start;
            tile[1][count] = j, tile[2][count] = integer(at[1], type, begin + start);
            good = good && tile[0][count] >= 0 && tile[0][count] < nse && tile[2][count] >= 0 && tile[2][count] < others;
        }
        if (start == end - begin) place++, start = 0;
    }
    int answer = run_by_xla(call);
    expect(call, answer, good);
    if (!good) return;
    auto now = result.arena.as<uint8_t>();
    int64_t outside[3] = {nse, n, others};
    for (int64_t k = 0; k < 3 * lanes; k++) {
        int64_t expected = k % lanes < count ? tile[k / lanes][k % lanes] : outside[k / lanes];
        if (integer(now, type, k) != expected) fail("a tile", integer(now, type, k), expected);
    }
    if (integer(now, type, 3 * lanes) != place || integer(now, type, 3 * lanes + 1) != start) fail("a cursor", place, start);
}

// The message that `_core.sent` describes, of spikes of shape (steps, own).
inline void pack(const uint8_t* spike, int64_t steps, int64_t own, int64_t capacity, int32_t* x) {
    int64_t count = 0;
    x[0] = 0, x[1] = own, x[2] = steps, x[3] = capacity;
    for (int64_t s = 0; s < steps; s++) {
        x[5 + s] = count;
        for (int64_t j = 0; j < own; j++)
            if (spike[s * own + j] && count++ < capacity) x[6 + steps + count - 1] = j;
    }
    x[5 + steps] = count, x[4] = count > capacity ? count - capacity : 0;
}
inline bool same_message(const int32_t* x, const int32_t* y) {
    int64_t used = 6 + x[2] + (x[4] ? 0 : x[5 + x[2]]);
    return !memcmp(x, y, used * 4);
}
inline void run_pack(Draw& draw) {
    Call call{PACK, 1};
    call.attributes = 0;
    int64_t steps = draw.of(5), own = draw.of(48), capacity = draw.of(2) ? steps * own : draw.of(64);
    shape(operands[0], BOOL, own), operands[0].rank = 2, operands[0].dims[0] = steps, operands[0].dims[1] = own;
    shape(result, INT32, 6 + steps + capacity);
    draw.reseed(), place_all(draw, call);
    auto spike = operands[0].arena.as<uint8_t>();
    for (int64_t k = 0, often = draw.of(6); k < steps * own; k++) spike[k] = draw.below(1 << often) ? 0 : 1 + draw.below(255);
    static int32_t expected[4096];
    pack(spike, steps, own, capacity, expected);
    expect(call, run_by_xla(call), true);
    if (!same_message(expected, result.arena.as<int32_t>())) fail("a packed message");
}
// The message that says all of `devices` that are as `own`, `steps` and `capacity` say: step by step, device by device.
inline void merge(const int32_t* x, int64_t devices, int64_t own, int64_t steps, int64_t capacity, int32_t* out) {
    int64_t size = 6 + steps + capacity, count = 0;
    out[0] = 0, out[1] = devices * own, out[2] = steps, out[3] = devices * capacity, out[4] = 0;
    for (int64_t d = 0; d < devices; d++) out[4] = std::max(out[4], x[d * size + 4]);
    for (int64_t s = 0; s < steps; s++) {
        out[5 + s] = count;
        for (int64_t d = 0; d < devices; d++) {
            const int32_t *starts = x + d * size + 5, *ids = starts + steps + 1;
            if (out[4]) count += (int64_t)starts[s + 1] - starts[s];
            else
                for (int64_t k = starts[s]; k < starts[s + 1]; k++) out[6 + steps + count++] = ids[k] + d * own;
        }
    }
    out[5 + steps] = count;
}
// Whether the messages are as they were packed, of `own` neurons each, and those of a result of so many integers. How many
// steps they are of, and what there is room for, the sizes say; how many neurons, none does.
inline bool is_packed(const int32_t* x, int64_t devices, int64_t size, int64_t own, int64_t merged) {
    if (!devices || size < 6) return false;
    int64_t steps = x[2], capacity = x[3];
    if (steps < 0 || capacity < 0 || size != 6 + steps + capacity || merged != 6 + steps + devices * capacity) return false;
    for (; devices--; x += size) {
        if (x[1] != own || x[2] != steps || x[3] != capacity || x[5] < 0) return false;
        for (int64_t s = 0; s < steps; s++)
            if (x[5 + s] > x[6 + s]) return false;
        if (x[4] != std::max<int64_t>((int64_t)x[5 + steps] - capacity, 0)) return false;
    }
    return true;
}
inline void run_merge(Draw& draw) {
    Call call{MERGE, 1};
    int64_t devices = 1 + draw.of(4), steps = draw.of(5), own = draw.of(24), capacity = draw.of(2) ? steps * own : draw.of(32);
    int64_t size = 6 + steps + capacity, often = draw.of(6);
    call.flags = own;
    shape(result, INT32, 6 + steps + devices * capacity);
    auto shape_messages = [&] { shape(operands[0], INT32, size), operands[0].rank = 2, operands[0].dims[0] = devices, operands[0].dims[1] = size; };
    shape_messages(), draw.reseed(), place_all(draw, call);
    static uint8_t spike[4096], all[16384];
    static int32_t expected[16384], whole[16384];
    auto x = operands[0].arena.as<int32_t>();
    int32_t lost = 0;
    for (int64_t d = 0; d < devices; d++) {
        for (int64_t k = 0; k < steps * own; k++) {
            spike[k] = !draw.below(1 << often);
            all[k / own * devices * own + d * own + k % own] = spike[k];
        }
        for (int64_t k = 0; k < size; k++) x[d * size + k] = draw.bits();
        pack(spike, steps, own, capacity, x + d * size);
        lost = std::max(lost, x[d * size + 4]);
    }
    bool patched = false;
    patch_integers(draw, operands[0], steps * own, patched);
    if (draw.one_in(8)) {  // in all messages the same
        int64_t at = draw.of(6), value = hostile(draw, steps * own);
        for (int64_t d = 0; d < devices; d++) x[d * size + at] = (int32_t)value;
        patched = true;
    }
    if (draw.one_in(32)) {
        devices = draw.of(4), size = draw.of(9), patched = true;
        shape_messages(), operands[0].arena.place(operands[0].bytes(), true);
        x = operands[0].arena.as<int32_t>();
        for (int64_t k = 0; k < devices * size; k++) x[k] = draw.below(3);
        if (draw.one_in(2))
            for (int64_t k = 1; k < devices * size; k += size) x[k] = own;
    }
    bool good = is_packed(x, devices, size, own, result.size());
    if (draw.one_in(64)) {  // as hebbax called it once: messages in a row, or no number of neurons
        if (draw.of(2)) call.attributes = 0;
        else operands[0].rank = 1, operands[0].dims[0] = devices * size;
        expect(call, run_by_xla(call), false);
        if (!strstr(call.message, "another version")) fail("a merge of another version");
        return;
    }
    expect(call, run_by_xla(call), good);
    if (!good) return;
    merge(x, devices, own, x[2], x[3], expected);
    if (!same_message(expected, result.arena.as<int32_t>())) fail("a merged message");
    if (patched) return;
    pack(all, steps, devices * own, devices * capacity, whole);
    whole[4] = lost;
    if (!same_message(expected, whole)) fail("the oracle's merged message");
}

// One device by itself, or, seldom, several that wait for each other, whose arrays are their own.
inline void run_exchange(Draw& draw) {
    Call call{EXCHANGE, 2};
    call.attributes = 0;
    static int64_t run = 1000;
    int64_t steps = draw.of(4), own = draw.of(24), capacity = draw.of(32), size = 6 + steps + capacity;
    int64_t devices = draw.one_in(64) ? 2 + draw.of(2) : 1, many = draw.one_in(16) ? 2 + draw.byte() : 1;
    bool again = draw.of(4) == 3;
    int32_t which = 0;
    shape(operands[0], INT32, size), shape(operands[1], INT32, 1), shape(result, INT32, devices * many * size);
    if (devices == 1 && draw.one_in(16)) which = (int32_t)hostile(draw, 1);
    draw.reseed(), place_all(draw, call);
    static uint8_t spike[4096];
    for (int64_t k = 0, often = draw.of(6); k < steps * own; k++) spike[k] = !draw.below(1 << often);
    auto x = operands[0].arena.as<int32_t>();
    pack(spike, steps, own, capacity, x);
    bool patched = false;
    if (devices == 1) patch_integers(draw, operands[0], size, patched);
    *operands[1].arena.as<int32_t>() = which;
    Machine machine;
    run += !again;
    machine.run = run;
    if (devices > 1) {
        machine.run = ++run;
        static int32_t whole[3][3 * 128];
        std::vector<std::thread> others;
        counts.calls[EXCHANGE] += devices, counts.accepted[EXCHANGE] += devices;
        for (int64_t d = 0; d < devices; d++)
            others.emplace_back([&, d] {
                Machine own_machine = machine;
                int32_t number = d;
                int64_t sizes[3] = {size, 1, devices * size};
                Buffer given[2] = {{operands[0].arena.data(), size, INT32, 1, &sizes[0]}, {&number, 1, INT32, 1, &sizes[1]}};
                Buffer out = {whole[d], sizes[2], INT32, 1, &sizes[2]};
                if (*call_xla(handlers[EXCHANGE], own_machine, given, 2, out, 0, 1, 0)) fail("an exchange");
                for (int64_t k = 0; k < devices; k++)
                    if (!same_message(x, whole[d] + k * size)) fail("an exchanged message", d, k);
            });
        for (auto& other : others) other.join();
        return;
    }
    // (more places than devices: nobody else would come, so only what is refused at once)
    if (many > 1 && many <= 128 && which >= 0 && which < many) return;
    int answer = call.run(false, machine);
    if (many > 1 || which) return expect(call, answer, false);
    if (!again) expect(call, answer, true);
    if (!patched && answer == DONE && !same_message(x, result.arena.as<int32_t>())) fail("an exchanged message");
}
