// A call of a kernel, its operands in memory that is guarded, and what counts calls; numbers that do harm.
#pragma once
#include "oracle.h"

extern "C" int hebbax_fuzz_call(int kind, const void* result, const void* operands, int flags, double mu, char* message);
extern "C" void hebbax_fuzz_limit(long long threads);

enum Kind { UPDATE, PROPAGATE, COLLECT, DELIVER, RECORD, FADE, TILE, PACK, MERGE, EXCHANGE, APPEND, TALLY, SAMPLE, VISIT, KINDS };
enum Answer { DONE, FAILED, WRONG, NOT_FIT };

struct Counts {
    long long inputs, calls[KINDS], accepted[KINDS];
};
inline Counts counts;
inline Handler handlers[KINDS];
inline Array operands[9], result;
inline uint8_t initial[Arena::ROOM];  // of the result

inline void open_arenas() {
    for (Array& x : operands) x.arena.open(false);
    result.arena.open(true);
}
inline Buffer buffer_of(const Array& x) {
    const Array& memory = x.alias ? result : x;
    return Buffer{memory.arena.data(), x.size(), x.dtype, x.rank, x.dims};
}
inline void shape(Array& x, int dtype, int64_t size) {
    x.dtype = dtype, x.rank = 1, x.dims[0] = size, x.dims[1] = x.dims[2] = 0, x.alias = false;
}

// One call with `count` operands, by XLA's door, or by that behind Python's.
struct Call {
    int kind, count, flags = 0, attributes = 1;
    double mu = 1;
    char message[512];

    int run(bool python, Machine& machine) {
        Buffer given[9], out = buffer_of(result);
        for (int k = 0; k < count; k++) given[k] = buffer_of(operands[k]);
        if (result.bytes()) memcpy(result.arena.as<uint8_t>(), initial, result.bytes());
        result.arena.lend();
        for (int k = 0; k < count; k++) operands[k].arena.lend();
        counts.calls[kind]++;
        int answer;
        memset(message, 0x55, sizeof message);
        if (python) {
            message[0] = 0;
            answer = hebbax_fuzz_call(kind, &out, given, flags, mu, message);
        } else {
            const char* said = call_xla(handlers[kind], machine, given, count, out, flags, mu, attributes);
            let_late_ones_come(machine);
            answer = *said ? FAILED : DONE;
            snprintf(message, sizeof message, "%s", said);
        }
        result.arena.take_back();
        for (int k = 0; k < count; k++) operands[k].arena.take_back();
        result.arena.check();
        if (answer == FAILED && (!*message || strlen(message) > 255)) fail("a message", strlen(message));
        counts.accepted[kind] += answer == DONE;
        return answer;
    }
};

inline int64_t hostile(Draw& draw, int64_t limit) {
    const int64_t table[] = {
        -1, limit, limit + 1, -limit, INT32_MIN, INT32_MAX, INT64_MIN, INT64_MAX, 1ll << 32, (1ll << 32) + 1, -(1ll << 32),
        1ll << 31, 1ll << 62, 0, limit - 1, draw.below(limit + 1),
    };
    return table[draw.of(sizeof table / sizeof *table)];
}
inline void put(uint8_t* at, int dtype, int64_t k, int64_t x) {
    if (dtype == INT32) ((int32_t*)at)[k] = (int32_t)x;
    else ((int64_t*)at)[k] = x;
}
