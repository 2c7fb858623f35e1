// Numbers: drawn from an input and a seed in it, and 16-bit floats, by their definition.
#pragma once
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

enum DType { BOOL = 1, INT32 = 4, INT64 = 5, UINT16 = 7, FLOAT16 = 10, FLOAT32 = 11, FLOAT64 = 12, BFLOAT16 = 16 };

inline int itemsize(int dtype) {
    switch (dtype) {
        case BOOL: return 1;
        case UINT16: case FLOAT16: case BFLOAT16: return 2;
        case INT64: case FLOAT64: return 8;
        default: return 4;
    }
}

// Choices are bytes of the input, one each, so that the fuzzer finds them; what fills arrays comes from a seed.
struct Draw {
    const uint8_t* at;
    const uint8_t* end;
    uint64_t state = 88172645463325252u;
    unsigned byte() { return at < end ? *at++ : 0; }
    unsigned of(unsigned n) { return byte() % n; }
    bool one_in(unsigned n) { return byte() % n == n - 1; }
    uint64_t bits() {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        return state * 2685821657736338717u;
    }
    int64_t below(int64_t n) { return n < 1 ? 0 : (int64_t)((bits() >> 32) * (uint64_t)n >> 32); }
    void reseed() {
        uint64_t seed = 0;
        for (int k = 0; k < 3; k++) seed = seed << 8 | byte();
        state = (seed + 1) * 0x9E3779B97F4A7C15u;
    }
};

struct Half { uint16_t bits; };
struct Brain { uint16_t bits; };

// A float of so many bits of fraction and such a smallest normal exponent.
template <int FRACTION, int LOWEST> struct Narrow {
    static float decode(uint16_t h) {
        int exponent = (h & 0x7fff) >> FRACTION, fraction = h & ((1 << FRACTION) - 1), top = 0x7fff >> FRACTION;
        double x = exponent == top ? (fraction ? NAN : INFINITY)
                   : exponent == 0 ? ldexp(fraction, LOWEST - FRACTION)
                                   : ldexp(fraction + (1 << FRACTION), exponent - 1 + LOWEST - FRACTION);
        return (float)(h & 0x8000 ? -x : x);
    }
    static uint16_t encode(float x) {
        uint16_t sign = std::signbit(x) ? 0x8000 : 0, infinite = (0x7fff >> FRACTION) << FRACTION;
        if (std::isnan(x)) return sign | infinite | 1 << (FRACTION - 1);
        if (std::isinf(x)) return sign | infinite;
        if (x == 0) return sign;
        int exponent = std::ilogb(x) < LOWEST ? LOWEST : std::ilogb(x);
        // (which may round up into the next exponent: the bits then carry over as they should)
        long units = std::lrint(std::ldexp((double)std::fabs(x), FRACTION - exponent));
        long bits = units + ((long)(exponent - LOWEST) << FRACTION);
        return sign | (uint16_t)(bits > infinite ? infinite : bits);
    }
};
using Half16 = Narrow<10, -14>;
using Brain16 = Narrow<7, -126>;

inline const float* decoded(bool brain) {
    static float* tables[2] = {nullptr, nullptr};
    if (!tables[brain]) {
        auto table = new float[65536];
        for (int k = 0; k < 65536; k++) table[k] = brain ? Brain16::decode(k) : Half16::decode(k);
        tables[brain] = table;
    }
    return tables[brain];
}

template <class A> A load(const float& x) { return x; }
template <class A> A load(const double& x) { return (A)x; }
template <class A> A load(const Half& x) { return decoded(false)[x.bits]; }
template <class A> A load(const Brain& x) { return decoded(true)[x.bits]; }
inline void store(float& y, float x) { y = x; }
inline void store(double& y, double x) { y = x; }
inline void store(Half& y, float x) { y.bits = Half16::encode(x); }
inline void store(Brain& y, float x) { y.bits = Brain16::encode(x); }

template <class T> struct Arithmetic { using type = float; };
template <> struct Arithmetic<double> { using type = double; };

// Equal bit for bit, but for what a NaN carries.
template <class W> bool same(const W& x, const W& y) {
    using A = typename Arithmetic<W>::type;
    return !memcmp(&x, &y, sizeof(W)) || (std::isnan(load<A>(x)) && std::isnan(load<A>(y)));
}

enum Floats { TAME, SMALL_INTEGERS, EXTREME, ANY_BITS };

template <class A> A draw_float(Draw& draw, int floats) {
    static const A table[] = {
        0, -0.0, 1, -1, 0.5, std::numeric_limits<A>::infinity(), -std::numeric_limits<A>::infinity(),
        std::numeric_limits<A>::quiet_NaN(), std::numeric_limits<A>::max(), std::numeric_limits<A>::lowest(),
        std::numeric_limits<A>::min(), std::numeric_limits<A>::denorm_min(), -std::numeric_limits<A>::denorm_min(),
        (A)65504, (A)65520, (A)6e-8, (A)1e-39, (A)-1e30,
    };
    uint64_t bits = draw.bits();
    A x = (A)((int32_t)(bits >> 32)) * (A)4.656612873077393e-10;
    if (floats == TAME) return x;
    if (floats == SMALL_INTEGERS) return (A)((int)(bits >> 40) % 5 - 2);
    if (floats == EXTREME) return bits % 4 == 0 ? table[(bits >> 8) % (sizeof(table) / sizeof(A))] : x;
    if (sizeof(A) == 4) bits >>= 32;
    memcpy(&x, &bits, sizeof(A));
    return x;
}
