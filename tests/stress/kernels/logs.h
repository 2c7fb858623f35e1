// What recorders write, append, tally and sample, as hostile as an input says: XLA alone calls them.
#pragma once
#include <algorithm>

#include "lists.h"

struct LogCase {
    Draw& draw;
    Call call;
    bool misfit = false;
    int64_t n = 0;  // neurons, or weights

    LogCase(Draw& draw, int kind, int count) : draw(draw), call{kind, count} {}

    // After the arrays were shaped: another dtype, or a batch, of which what is not the log may be one for all.
    void distort() {
        static const int types[] = {BOOL, INT32, INT64, FLOAT16, FLOAT32, FLOAT64, BFLOAT16};
        if (draw.one_in(16)) {
            int which = draw.of(call.count), how = draw.byte();
            (which ? operands[which] : result).dtype = types[how % 7];
            if (call.kind == SAMPLE && which < 2 && how & 128) result.dtype = operands[1].dtype = types[how % 7];
        }
        if (draw.one_in(4)) {
            int64_t members = 1 + draw.of(3);
            auto widen = [](Array& x, int64_t many) { x.dims[1] = x.dims[0], x.dims[0] = many, x.rank = 2; };
            widen(result, members);
            for (int k = 1; k < call.count; k++)
                if (int own = draw.of(3)) widen(operands[k], own == 1 ? 1 : members);
            if (draw.one_in(16)) {
                Array& x = operands[1];
                if (x.rank == 1) widen(x, members + 1);
                else x.dims[0] = members + 1;
            }
        }
        shape(operands[0], result.dtype, 0), operands[0].alias = true, operands[0].rank = result.rank;
        std::copy(result.dims, result.dims + 3, operands[0].dims);
        for (int k = 0; k < call.count; k++) misfit |= !fits(operands[k], result);
        draw.reseed(), place_all(draw, call);
    }
    template <class Fill> void each(Array& x, Fill fill) {
        uint8_t* begin = &x == &result ? initial : x.arena.own + x.arena.begin;
        int64_t size = x.size() * itemsize(x.dtype);
        for (int64_t k = 0; k < x.members() * size; k++) begin[k] = draw.bits() >> 56;
        for (int64_t i = 0; i < x.members() && (x.dtype == INT32 || x.dtype == BOOL); i++) fill(begin + i * size);
    }
    void spikes(Array& x) {
        int often = draw.of(10), ends = draw.of(2);
        each(x, [&](uint8_t* spike) {
            if (x.dtype != BOOL) return;
            for (int64_t j = 0; j < x.size(); j++) spike[j] = draw.below(1 << often) ? 0 : 1 + draw.below(255);
            if (ends && x.size()) spike[x.size() - 1] = 1;
        });
    }
    // A header: what is drawn, or, seldom, what does harm.
    void header(int32_t* x, int64_t size, std::initializer_list<int64_t> numbers) {
        int64_t k = 0;
        for (int64_t number : numbers)
            if (k < size) x[k++] = (int32_t)(draw.below(24) ? number : hostile(draw, number));
    }
    // The call, after which the result has to be what `expected(member, what was there, size)` made, if all are good.
    template <class Expected> void run(Expected expected) {
        static uint8_t want[Arena::ROOM];
        int64_t size = result.size() * itemsize(result.dtype);
        memcpy(want, initial, result.bytes());
        bool good = !misfit;
        for (int64_t i = 0; good && i < result.members(); i++) good = expected(i, want + i * size, result.size());
        expect(call, run_by_xla(call), good);
        const uint8_t* now = result.arena.as<uint8_t>();
        if (good || misfit || result.rank == 1)  // (what is refused is as it was)
            for (int64_t k = 0; k < result.bytes(); k++)
                if (now[k] != (good ? want : initial)[k]) fail("a log", now[k], (good ? want : initial)[k]);
        if (draw.one_in(64)) {
            call.count -= 1;
            expect(call, run_by_xla(call), false);
            if (!strstr(call.message, "another version")) fail("a missing operand");
        }
    }
    const uint8_t* of(int k, int64_t i) const { return operands[k].of(result, i); }
    void counted(int32_t& step) { step += step < INT32_MAX; }

    void append() {
        int64_t capacity = draw.of(40);
        n = draw.byte() * (1 + draw.of(2));
        shape(result, INT32, draw.one_in(16) ? draw.of(3) : 2 + 2 * capacity + draw.of(2)), shape(operands[1], BOOL, n);
        distort();
        each(result, [&](uint8_t* at) { header((int32_t*)at, result.size() * (result.dtype == INT32), {draw.below(capacity + 3), draw.below(99)}); });
        spikes(operands[1]);
        run([&](int64_t i, uint8_t* at, int64_t size) {
            auto x = (int32_t*)at;
            auto spike = of(1, i);
            if (result.dtype != INT32 || operands[1].dtype != BOOL || size < 2 || x[0] < 0) return false;
            int64_t count = x[0];
            for (int64_t j = 0; j < operands[1].size(); j++)
                if (spike[j] && count++ < (size - 2) / 2) x[2 * count] = x[1], x[2 * count + 1] = j;
            x[0] = std::min<int64_t>(count, INT32_MAX), counted(x[1]);
            return true;
        });
    }
    void tally() {
        int64_t groups = 1 + draw.of(8), bins = draw.of(6), every = 1 + draw.of(5);
        n = draw.byte();
        bool grouped = draw.of(2), misled = draw.one_in(4);
        shape(result, INT32, draw.one_in(16) ? draw.of(4) : 3 + bins * groups + draw.of(3));
        shape(operands[1], BOOL, n), shape(operands[2], INT32, grouped ? n + (draw.one_in(16) ? 1 : 0) : 0);
        distort();
        each(result, [&](uint8_t* at) { header((int32_t*)at, result.size() * (result.dtype == INT32), {draw.below(every * (bins + 1)), every, groups}); });
        spikes(operands[1]);
        each(operands[2], [&](uint8_t* at) {
            for (int64_t j = 0; j < operands[2].size() && operands[2].dtype == INT32; j++)
                ((int32_t*)at)[j] = (int32_t)(misled && !draw.below(16) ? hostile(draw, groups) : draw.below(groups));
        });
        run([&](int64_t i, uint8_t* at, int64_t size) {
            auto x = (int32_t*)at;
            auto spike = of(1, i);
            auto group = (const int32_t*)of(2, i);
            int64_t given = operands[2].size(), many = operands[1].size();
            if (result.dtype != INT32 || operands[1].dtype != BOOL || operands[2].dtype != INT32) return false;
            if (size < 3 || x[0] < 0 || x[1] < 1 || x[2] < 1 || (given && given != many)) return false;
            int64_t first = 3 + (int64_t)(x[0] / x[1]) * x[2];
            for (int64_t j = 0; j < many && first + x[2] <= size; j++) {
                int64_t g = given ? group[j] : j;
                if (spike[j] && g >= 0 && g < x[2]) ((uint32_t*)x)[first + g] += 1;  // (as XLA's own adds, which wrap)
            }
            return counted(x[0]), true;
        });
    }
    void sample() {
        static const int types[] = {FLOAT16, BFLOAT16, FLOAT32, FLOAT64};
        int type = types[draw.of(4)];
        int64_t some = draw.of(9), room = draw.of(5), every = 1 + draw.of(4);
        n = draw.byte();
        bool misled = draw.one_in(4);
        shape(result, type, some * room + draw.of(3)), shape(operands[1], type, n);
        shape(operands[2], INT32, draw.one_in(16) ? draw.of(3) : 2 + some);
        distort();
        each(result, [](uint8_t*) {}), each(operands[1], [](uint8_t*) {});
        each(operands[2], [&](uint8_t* at) {
            auto plan = (int32_t*)at;
            int64_t size = operands[2].dtype == INT32 ? operands[2].size() : 0, step = draw.below(every * (room + 1));
            header(plan, size, {draw.below(3) ? step / every * every : step, every});
            for (int64_t k = 2; k < size; k++) plan[k] = (int32_t)(misled && !draw.below(8) ? hostile(draw, n) : draw.below(n));
        });
        run([&](int64_t i, uint8_t* at, int64_t size) {
            auto plan = (const int32_t*)of(2, i);
            int64_t k = operands[2].size() - 2, bytes = itemsize(result.dtype);
            bool is_weight = std::count(types, types + 4, result.dtype);
            if (!is_weight || operands[1].dtype != result.dtype || operands[2].dtype != INT32 || k < 0) return false;
            if (plan[0] < 0 || plan[1] < 1) return false;
            int64_t first = plan[0] / plan[1] * k;
            if (plan[0] % plan[1] || first + k > size) return true;
            for (int64_t j = 0; j < k; j++)
                if (plan[2 + j] >= 0 && plan[2 + j] < operands[1].size()) memcpy(at + (first + j) * bytes, of(1, i) + plan[2 + j] * bytes, bytes);
            return true;
        });
    }
};
