// Synapses that are visited late, as hostile as an input says: some calls in a row, which begin with an empty archive.
#pragma once
#include <string>

#include "logs.h"

extern "C" int hebbax_fuzz_recent();  // spikes that are kept of a neuron
enum VisitFlag { RETURNED = 1024, NEAREST = 2048, EVERYONE = 4096, DOWN_UPPER = 8192, DOWN_LOWER = 16384 };

// A weight as it is to be, and how far it may be from that: powers and what fades are worked out in few bits.
struct Guess {
    float x;
    double slack = 0;
};

// What a spike does to a weight, by `_core.visit.Change`.
struct Side {
    float factor, mu;
    bool soft, upper;

    void change(Guess& weight, float trace, float age, float low, float high) const {
        float amount = factor * trace, base = 1;
        double error = 0, power;
        if (soft) {
            bool ranged = std::isfinite(low) && std::isfinite(high);
            float scale = ranged ? low < high ? 1 / (high - low) : 0 : 1;
            scale = std::isinf(scale) ? 0 : scale;
            base = (weight.x - (upper ? high : low)) * (upper ? -scale : scale);
            base = base < 0 ? 0 : base;
            error = weight.slack * scale;
        }
        power = base;
        if (soft && mu != 1) {
            bool known = mu > 0 && (base == 0 || base >= FLT_MIN) && base <= FLT_MAX;
            double most = std::pow(base + error, mu), least = std::pow(std::max(base - error, 0.0), mu);
            if (base > 0) power = std::pow(base, mu);
            error = std::max(most - power, power - least);
            if (power > 0) error += power * (std::fabs(mu * std::log2(base)) * 0x1p-21 + 0x1p-18);
            if (!known || !(power < 1e30)) error = INFINITY;
        }
        bool inexact = error != 0 || age != 0;
        if (age != 0) {
            power *= std::exp2(-(double)age);
            error = (error * std::exp2(-(double)age)) + power * (age * 0x1p-21 + 0x1p-18);
        }
        if (inexact) error += 2 * FLT_MIN;  // (below, a power is 0)
        float scaled = (float)power, by = amount * scaled, x = weight.x + by;
        double off = std::fabs(amount) * error;  // (NaN: nothing is known of it)
        if (!(off <= 0) || weight.slack > 0) weight.slack += off + 2 * FLT_EPSILON * (std::fabs(x) + std::fabs(by)) + 1e-44;
        x = x < low ? low : x;
        weight.x = x > high ? high : x;
    }
};


inline Array visited[11];
inline void open_visited() {  // what is updated in place, what is only read, and what arrives
    for (int k = 0; k < 11; k++) visited[k].arena.open(k < 4 || k == 10);
}

struct VisitCase {
    enum { WEIGHT, ROWS, RECENT, SETTLING, INDICES, INDPTR, MESSAGE, SPIKE, TRACE, STEPS, OUT, ARRAYS, OPERANDS = OUT, IN_PLACE = INDICES };
    struct Pre {
        int64_t step = -(1 << 30);
        float trace = -1;  // before that spike; of none
        int64_t taken = 0;  // synapses have what was before
    };
    struct Pass {
        int32_t base, settled, began, next, share;  // as `pieces.pxd` says
    };

    Draw& draw;
    int64_t n_pre = 0, n_post = 0, nse = 0, capacity = 0, steps = 1, step = 0, post_step = INT64_MIN;
    int flags = 0, floats = 0, often = 0, often_post = 0;
    double decay = 0;
    float low = 0, high = 0;
    Side up, down;
    Pass settling = {};
    std::vector<Pre> pre;
    std::vector<std::vector<int64_t>> kept;  // by postsynaptic neuron, from the first spike to the last one
    std::vector<int32_t> indices, indptr;
    std::vector<uint8_t> before[IN_PLACE], spoiled[IN_PLACE];  // what is updated in place, as it was, and as it was handed over
    // Of one call:
    bool known = true, misfits = false;
    int given = OPERANDS, returns = IN_PLACE + 1, attributes = 8;
    std::vector<std::string> refusals, allowed;  // what it may say, if any has to be said, or may be
    std::vector<int64_t> spiking;
    std::vector<Guess> weight, out;
    char message[256];

    explicit VisitCase(Draw& draw) : draw(draw) {}

    template <class T> T* of(int k) { return visited[k].arena.as<T>(); }
    bool is(int flag) const { return flags & flag; }

    Side a_side(int lower, int upper) {
        static const float factors[] = {0.1f, 0.5f, -0.3f, 0.02f, -1, 0, 3, INFINITY}, powers[] = {1, 0.5f, 0.02f, 2, 0.4f, 8, 1.5f, NAN};
        int how = draw.byte();
        Side side{factors[how % 8], powers[how / 8 % 8], how >= 96, how >= 176};
        if (side.soft) flags |= side.upper ? upper : lower;
        return side;
    }
    void choose() {
        static const double decays[] = {0, 0.01, 0.3, 1e-5, 7, 1e-9, 0, 1e300};
        static const float bounds[][2] = {{0, 1}, {-INFINITY, INFINITY}, {-0.5f, 0.5f}, {0, INFINITY}, {-INFINITY, 0.3f}, {0.25f, 0.25f}, {0.5f, 0}, {NAN, 1}};
        static const int64_t firsts[] = {0, 1, 5, -70000, 1999999000, INT32_MAX - 70100, INT32_MIN + 5, 64990};
        int how = draw.byte(), sizes = draw.byte();
        n_pre = draw.byte() % 41, n_post = draw.byte() % 61;
        nse = std::min<int64_t>(n_pre * (sizes % 13) + sizes / 13 % 3, 1200);
        if (!n_pre) nse = sizes % 4;
        decay = decays[how % 8], low = bounds[how / 8 % 8][0], high = bounds[how / 8 % 8][1];
        floats = how >> 6;
        if (draw.of(2)) flags |= RETURNED;
        if (draw.one_in(3)) flags |= NEAREST;
        if (draw.one_in(4)) flags |= SECOND;
        up = a_side(LOWER, UPPER), down = a_side(DOWN_LOWER, DOWN_UPPER);
        step = firsts[draw.of(8)];
        settling.base = settling.settled = settling.began = step;
        often = draw.of(5), often_post = draw.of(6);
        steps = is(SECOND) ? 2 + draw.of(4) : 1 + draw.of(3), capacity = n_pre + draw.of(3);
        draw.reseed();
    }
    void make() {
        auto table = [](Array& x, int dtype, int64_t first, int64_t second) { shape(x, dtype, first), x.rank = 2, x.dims[1] = second; };
        shape(visited[WEIGHT], FLOAT32, nse), table(visited[ROWS], INT32, n_pre, 4);
        table(visited[RECENT], UINT16, hebbax_fuzz_recent(), n_post), shape(visited[SETTLING], INT32, 5);
        shape(visited[INDICES], INT32, nse), shape(visited[INDPTR], INT32, n_pre + 1);
        shape(visited[MESSAGE], INT32, 6 + steps + capacity), shape(visited[SPIKE], BOOL, n_post);
        shape(visited[TRACE], FLOAT32, n_post), shape(visited[STEPS], INT32, 2), shape(visited[OUT], FLOAT32, n_post);
        unsigned ends = draw.byte() | draw.byte() << 8;
        for (int k = 0; k < ARRAYS; k++) visited[k].arena.place(visited[k].bytes(), ends >> k & 1);
        for (int64_t k = 0, x = 0; k <= n_pre; k++) {
            indptr.push_back(k == n_pre && n_post ? nse : x);
            x = n_post ? std::min(nse, x + draw.below(2 * (nse - x) / std::max<int64_t>(1, n_pre - k) + 1)) : 0;
        }
        for (int64_t k = 0; k < nse; k++) indices.push_back(draw.below(n_post)), of<float>(WEIGHT)[k] = draw_float<float>(draw, floats);
        pre.resize(n_pre), kept.resize(n_post);
        for (int64_t j = 0; j < n_pre; j++) of<int32_t>(ROWS)[4 * j + 2] = -(1 << 30), of<float>(ROWS)[4 * j + 3] = -1;
        memset(of<uint8_t>(RECENT), 0, visited[RECENT].bytes());
        for (auto& x : pre) x.taken = step;
        *of<Pass>(SETTLING) = settling;
    }
    // The arrays of a call that go with those of the one before.
    void next(bool is_first) {
        static const int64_t later[] = {1, 1, 1, 1, 2, 1, 0, 3, 1, 40, 1, 30, 62, 65, 70000, 1ll << 30};
        int how = draw.byte();
        flags &= ~EVERYONE;
        if (how / 16 % 8 == 7) flags |= EVERYONE;
        step = std::min<int64_t>(step + (is_first ? 0 : later[how % 16]), INT32_MAX);
        post_step = std::max<int64_t>({post_step, step - !is(RETURNED) - (is(RETURNED) || how < 248 ? 0 : 2), INT32_MIN});
        of<int32_t>(STEPS)[0] = step, of<int32_t>(STEPS)[1] = post_step;
        std::copy(indices.begin(), indices.end(), of<int32_t>(INDICES)), std::copy(indptr.begin(), indptr.end(), of<int32_t>(INDPTR));
        place_rows();
        bool silent = is_first && post_step < settling.began && draw.of(8);
        for (int64_t i = 0; i < n_post; i++) {
            of<uint8_t>(SPIKE)[i] = silent || draw.below(1 << often_post) ? 0 : 1 + draw.below(255);
            of<float>(TRACE)[i] = draw_float<float>(draw, floats);
        }
        auto x = of<int32_t>(MESSAGE), ids = x + 6 + steps;
        int64_t half = is(SECOND) ? steps / 2 : 0, now = draw.below(half ? half : steps), count = 0, others = 0;
        x[0] = now, x[1] = n_pre, x[2] = steps, x[3] = capacity, x[4] = 0, now += half;
        for (int64_t k = 0; k < capacity; k++) ids[k] = (int32_t)draw.bits();
        for (int64_t j = 0; j < n_pre; j++) count += !draw.below(1 << often);
        others = draw.below(capacity - count + 1);  // of earlier steps
        for (int64_t k = 0; k <= steps; k++) x[5 + k] = k < now ? draw.below(2) * others : k == now ? others : others + count;
        for (int64_t k = 1; k <= now; k++) x[5 + k] = std::max(x[5 + k], x[4 + k]);
        for (int64_t j = 0, left = count; j < n_pre; j++)
            if (draw.below(n_pre - j) < left) ids[others + count - left--] = j;
        for (int k = 0; k < IN_PLACE; k++) before[k].assign(of<uint8_t>(k), of<uint8_t>(k) + visited[k].bytes());
    }
    // Rows say where synapses begin and end, as `indptr` does.
    void place_rows() {
        for (int64_t j = 0; j < n_pre; j++)
            for (int k = 0; k < 2; k++) of<int32_t>(ROWS)[4 * j + k] = of<int32_t>(INDPTR)[j + k];
    }
    // A call as nobody should make it.
    void spoil() {
        int how = draw.of(16), where = draw.byte();
        auto at = [&](int64_t size) { return size ? where % size : 0; };
        auto x = of<int32_t>(MESSAGE);
        if (how < 3) of<int32_t>(INDPTR)[at(n_pre + 1)] = hostile(draw, nse), place_rows();
        else if (how < 6 && nse) of<int32_t>(INDICES)[where < 128 ? at(nse) : draw.below(nse)] = hostile(draw, n_post);
        else if (how < 8) x[at(visited[MESSAGE].size())] = hostile(draw, n_pre);
        else if (how == 8) x[draw.of(6)] = hostile(draw, steps);
        else if (how == 9 && capacity) std::swap(x[6 + steps + at(capacity)], x[6 + steps + draw.below(capacity)]);
        else if (how == 10) known = false, of<int32_t>(STEPS)[where & 1] = hostile(draw, step);
        else if (how == 11 && n_pre) known = false, of<int32_t>(ROWS)[at(4 * n_pre)] = hostile(draw, where & 2 ? step : nse);
        else if (how == 12) {
            known = false;
            for (int64_t k = 0; k < visited[RECENT].bytes(); k++) of<uint8_t>(RECENT)[k] = draw.bits() >> 56;
        } else if (how == 13) known = false, of<int32_t>(SETTLING)[where % 5] = hostile(draw, where % 5 < 3 ? step : n_pre);
        else if (how == 14) misfits = true, (where % 3 == 0 ? given : where % 3 == 1 ? returns : attributes) += where & 4 ? 1 : -1;
        else if (how == 15) misfits = true, misfit(where);
    }
    // One array is not as long, or of another dtype or rank, than goes with the others.
    void misfit(int where) {
        int k = where % ARRAYS, what = where / ARRAYS % 3;
        Array& x = visited[k];
        if (what == 0 && k != MESSAGE) x.dims[where / 33 % x.rank] += where / 66 % 2 && x.dims[where / 33 % x.rank] ? -1 : 1;
        else if (what == 1) x.dtype = x.dtype == INT32 ? FLOAT32 : INT32;
        else x.rank = 3 - x.rank, x.dims[1] = x.rank == 2 ? x.dims[0] : 0;
    }

    // What is to come of it.
    void refuse(const char* text) { refusals.push_back(text); }
    bool read_message(int64_t& begin, int64_t& end) {
        auto x = of<int32_t>(MESSAGE);
        int64_t now = x[0], half = is(SECOND) ? x[2] / 2 : 0;
        if (x[1] < 0 || x[3] < 0 || x[4] || now < 0 || now >= (is(SECOND) ? half : x[2])) return false;
        if (visited[MESSAGE].size() != 6 + (int64_t)x[2] + x[3]) return false;
        begin = x[5 + now + half], end = x[6 + now + half];
        return begin >= 0 && begin <= end && end <= x[3];
    }
    void refuse_elements(const Member& m, std::vector<std::string>& those) {
        char text[200];
        for (int64_t j = 0; j < n_pre; j++)
            if (wrong_row(m, j, text)) return those.push_back(text);
    }
    void expect() {
        const char* lists = "more spikes than the lists have room for";
        char text[200];
        Member m = {};
        m.nse = nse, m.rows = n_pre, m.n_other = n_post, m.index = m.pointer = INT32;
        m.indices = of<uint8_t>(INDICES), m.indptr = of<uint8_t>(INDPTR);
        auto begins = of<int32_t>(INDPTR);
        int64_t begin = 0, end = 0, last = 0;
        bool spikes = false, wrong = false;
        for (int64_t i = 0; i < n_post; i++) spikes |= of<uint8_t>(SPIKE)[i] != 0;
        refuse_elements(m, allowed);  // (of rows that take what they missed, which may be any)
        if (!read_message(begin, end)) refuse(lists);
        if (spikes && post_step < settling.began) refuse("post_spike: got spikes of step");
        if (!refusals.empty()) return;
        weight.clear(), out.assign(n_post, Guess{0}), spiking.clear();
        for (int64_t k = 0; k < nse; k++) weight.push_back(Guess{of<float>(WEIGHT)[k]});
        if (is(EVERYONE)) refuse_elements(m, refusals);
        if (!is(EVERYONE)) {
            auto x = of<int32_t>(MESSAGE);
            bool good = x[1] == n_pre;
            for (int64_t k = begin; k < end; k++) {
                int64_t j = x[6 + x[2] + k];
                good = good && j >= 0 && j < n_pre && (k == begin || j > x[5 + x[2] + k]);
                if (j < 0 || j >= n_pre) continue;
                wrong |= wrong_row(m, j, text) || begins[j] < last;
                last = begins[j + 1], spiking.push_back(j);
            }
            if (!good) refuse(lists);
            if (wrong) refuse_elements(m, refusals);
        }
    }
    // What has come of it, where the archive stands as the call left it.
    void follow() {
        Pass now = *of<Pass>(SETTLING);
        bool full = now.base == post_step && settling.base != now.base && settling.settled != now.base;
        for (int64_t i = 0; i < n_post; i++)  // (a neuron's spikes lie by fours)
            full |= of<uint8_t>(SPIKE)[i] && !kept[i].empty() && !of<uint16_t>(RECENT)[4 * i + 1];
        if (full) settle();
        for (int64_t i = 0; i < n_post; i++)
            if (of<uint8_t>(SPIKE)[i]) kept[i].push_back(post_step);
        if (is(EVERYONE)) settle();
        else
            for (int64_t j : spiking) visit(j);
        if (now.base > now.settled || now.settled > now.began || now.settled < settling.settled || now.share < 0) fail("a pass", now.settled);
        if (!is(EVERYONE) && now.began > post_step + 1) fail("the begin of a pass", now.began);
        settling = now;
        for (int64_t j = 0; j < n_pre; j++) take_all(j, j < now.next ? now.began : now.settled);
        for (auto& spikes : kept)
            while (!spikes.empty() && spikes[0] < now.settled) spikes.erase(spikes.begin());
    }
    float after(const Pre& x) const { return x.trace < 0 ? 0 : is(NEAREST) ? 1 : x.trace + 1; }
    // Let a synapse take what it has missed before a step. (Of 2^30 steps and more, nobody says how many they are.)
    void take(int64_t j, int64_t k, int64_t until) {
        int64_t last = pre[j].step;
        for (int64_t spike : kept[of<int32_t>(INDICES)[k]]) {
            if (spike < last + is(RETURNED) || spike < pre[j].taken || spike >= until) continue;
            up.change(weight[k], spike > last ? after(pre[j]) : pre[j].trace, (float)decay * (float)(spike - last), low, high);
            if (pre[j].trace >= 0 && spike - last > (1 << 30) - (1 << 18)) weight[k].slack = INFINITY;
        }
    }
    void take_all(int64_t j, int64_t until) {
        bool none = until <= std::max(pre[j].taken, pre[j].step + is(RETURNED));  // (then a row is not looked at)
        for (int64_t k = of<int32_t>(INDPTR)[j]; !none && k < of<int32_t>(INDPTR)[j + 1]; k++) take(j, k, until);
        pre[j].taken = std::max(pre[j].taken, until);
    }
    void settle() {
        for (int64_t j = 0; j < n_pre; j++)
            for (int64_t k = of<int32_t>(INDPTR)[j]; k < of<int32_t>(INDPTR)[j + 1]; k++) take(j, k, INT64_MAX);
        for (auto& spikes : kept) spikes.clear();
    }
    void visit(int64_t j) {
        for (int64_t k = of<int32_t>(INDPTR)[j]; k < of<int32_t>(INDPTR)[j + 1]; k++) {
            int64_t i = of<int32_t>(INDICES)[k];
            take(j, k, INT64_MAX);
            if (!is(RETURNED)) send(i, weight[k]);
            down.change(weight[k], of<float>(TRACE)[i], 0, low, high);
            if (is(RETURNED)) send(i, weight[k]);
        }
        double fades = std::exp2(-std::min(decay * (step - pre[j].step), 300.0));
        pre[j] = Pre{step, (float)(after(pre[j]) * fades), pre[j].taken};
    }
    // (in the order of the synapses, whoever visits them: to the bit, if what is sent is)
    void send(int64_t i, const Guess& x) {
        Guess& sum = out[i];
        sum.slack += x.slack;
        if (sum.slack) sum.slack += 2 * FLT_EPSILON * (std::fabs(sum.x) + std::fabs(x.x));
        sum.x += x.x;
    }
    static void compare(const char* what, float now, const Guess& expected, int64_t k) {
        if (!std::isfinite(expected.x) && expected.slack) return;
        if (expected.slack ? !(std::fabs((double)now - expected.x) > expected.slack) && !std::isnan(now) : same(now, expected.x)) return;
        if (!(expected.slack < INFINITY)) return;
        fprintf(stderr, "now %.9g, expected %.9g within %g\n", now, expected.x, expected.slack);
        fail(what, k);
    }
    void compare() {
        for (int64_t k = 0; k < nse; k++) compare("a weight that is visited", of<float>(WEIGHT)[k], weight[k], k);
        for (int64_t i = 0; i < n_post && !is(EVERYONE); i++) compare("what arrives", of<float>(OUT)[i], out[i], i);
        for (int64_t j = 0; j < n_pre; j++) {
            if (of<int32_t>(ROWS)[4 * j + 2] != pre[j].step) fail("a presynaptic step", of<int32_t>(ROWS)[4 * j + 2], pre[j].step);
            float trace = of<float>(ROWS)[4 * j + 3];
            compare("a presynaptic trace", trace, Guess{pre[j].trace, decay == 0 ? 0 : FLT_EPSILON * (double)std::fabs(pre[j].trace) + 1e-44}, j);
            pre[j].trace = trace;
        }
    }

    int call(int pool, int limit) {
        Machine machine;
        machine.pool = pool;
        hebbax_fuzz_limit(limit);
        Buffer operands[OPERANDS + 1], results[IN_PLACE + 2];
        for (int k = 0; k < OPERANDS + 1; k++) operands[k] = buffer_of(visited[k]);
        for (int k = 0; k < IN_PLACE; k++) results[k] = operands[k];
        results[IN_PLACE] = results[IN_PLACE + 1] = buffer_of(visited[OUT]);
        double numbers[] = {decay, down.factor, down.mu, 0, high, low, up.factor, up.mu};
        XLA_FFI_Scalar scalars[9];
        for (int k = 0; k < 9; k++) scalars[k] = {XLA_FFI_DataType_F64, &numbers[k % 8]};
        scalars[3] = {XLA_FFI_DataType_S32, &flags};
        memset(of<uint8_t>(OUT), 0x7b, 4 * n_post);
        for (auto& x : visited) x.arena.lend();
        counts.calls[VISIT]++;
        snprintf(message, sizeof message, "%s", call_frame(handlers[VISIT], machine, operands, given, results, returns, scalars, attributes));
        let_late_ones_come(machine);
        for (auto& x : visited) x.arena.take_back();
        for (int k : {WEIGHT, ROWS, RECENT, SETTLING, OUT}) visited[k].arena.check();
        counts.accepted[VISIT] += !*message;
        return *message ? FAILED : DONE;
    }
    void put_back(const std::vector<uint8_t>* those) {
        for (int k = 0; k < IN_PLACE; k++) std::copy(those[k].begin(), those[k].end(), of<uint8_t>(k));
    }
    void one_call() {
        Array shapes[ARRAYS];
        for (int k = 0; k < ARRAYS; k++) shapes[k] = visited[k];
        known = true, misfits = false, given = OPERANDS, returns = IN_PLACE + 1, attributes = 8, refusals.clear(), allowed.clear();
        if (draw.one_in(3)) spoil();
        if (known && !misfits) expect();
        for (int k = 0; k < IN_PLACE; k++) spoiled[k].assign(of<uint8_t>(k), of<uint8_t>(k) + shapes[k].bytes());
        int how = draw.byte(), pool = how & 3, answer = call(NO_POOL, 1);
        if (misfits) {
            if (answer == DONE || !strstr(message, "another version")) fail("a visit of another version", answer);
        } else if (known) {
            bool said = refusals.empty() && answer == DONE;
            for (auto& those : {refusals, allowed})
                for (auto& text : those) said |= answer == FAILED && strstr(message, text.c_str());
            if (!said) fprintf(stderr, "said '%s', expected '%s'\n", message, refusals.empty() ? "" : refusals[0].c_str());
            if (!said) fail("accepted or refused", answer, VISIT);
            if (answer == DONE) follow(), compare();
        }
        std::vector<uint8_t> after[ARRAYS];
        for (int k = 0; k < ARRAYS; k++) after[k].assign(of<uint8_t>(k), of<uint8_t>(k) + shapes[k].bytes());
        if (!misfits) {
            put_back(spoiled);
            if (pool == THREADS && how >> 4 != 3) pool = AT_ONCE;
            if (call(pool, 1 + (how >> 2 & 3)) != answer) fail("accepted by one thread or by more", answer);
            for (int k = 0; k < ARRAYS && answer == DONE; k++)
                if (memcmp(after[k].data(), of<uint8_t>(k), after[k].size())) fail("another result by more threads", k);
        }
        for (int k = 0; k < ARRAYS; k++) visited[k] = shapes[k];
        if (answer == FAILED || !known) put_back(before);
    }
    void run() {
        choose(), make();
        for (int left = 1 + draw.of(14), first = 1; left > 0; left--, first = 0) next(first), one_call();
    }
};
