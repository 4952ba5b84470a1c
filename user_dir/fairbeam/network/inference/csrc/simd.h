// Vectors of 16 floats, for kernels that are compiled for several instruction sets.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "cpu.h"

namespace fairbeam {

constexpr int kLanes = 16;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A struct around the compiler's vector type, because how bare vectors of 64 bytes are passed to functions depends on
// the instruction set.
struct Floats {
    typedef float Lanes __attribute__((vector_size(4 * kLanes)));
    Lanes lanes;
};

// 32-bit integers, or the results of comparing floats: all bits of a lane set or none.
struct Ints {
    typedef int32_t Lanes __attribute__((vector_size(4 * kLanes)));
    Lanes lanes;
};

INLINE Floats splat(float x) { return {x - Floats::Lanes{}}; }

INLINE Floats load(const float* x) {
    Floats v;
    std::memcpy(&v, x, sizeof v);
    return v;
}

INLINE void store(float* x, const Floats& v) { std::memcpy(x, &v, sizeof v); }

// Load `count` < 16 floats; the other lanes are `filling`.
INLINE Floats load_first(const float* x, int64_t count, float filling) {
    Floats v = splat(filling);
    std::memcpy(&v, x, count * sizeof(float));
    return v;
}

#define FAIRBEAM_OPERATOR(op)                                                                    \
    INLINE Floats operator op(const Floats& a, const Floats& b) { return {a.lanes op b.lanes}; } \
    INLINE Floats operator op(const Floats& a, float b) { return {a.lanes op b}; }               \
    INLINE Floats operator op(float a, const Floats& b) { return {a op b.lanes}; }
FAIRBEAM_OPERATOR(+)
FAIRBEAM_OPERATOR(-)
FAIRBEAM_OPERATOR(*)
FAIRBEAM_OPERATOR(/)
#undef FAIRBEAM_OPERATOR

INLINE Floats operator-(const Floats& a) { return {-a.lanes}; }
INLINE void operator+=(Floats& a, const Floats& b) { a.lanes += b.lanes; }

INLINE Ints operator<(const Floats& a, float b) { return {a.lanes < b}; }
INLINE Ints operator==(const Floats& a, float b) { return {a.lanes == b}; }
INLINE Floats select(const Ints& condition, const Floats& a, const Floats& b) {
    return {condition.lanes ? a.lanes : b.lanes};
}
INLINE Floats max(const Floats& a, const Floats& b) { return {a.lanes > b.lanes ? a.lanes : b.lanes}; }

// Lanes are added, or compared, by halves: 8 pairs, then 4, then 2, then 1.
#define FAIRBEAM_LOW_HALF(v) __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7)
#define FAIRBEAM_TOP_HALF(v) __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15)

template <typename Vector>
INLINE auto sum_of(const Vector& v) {
    const auto half = FAIRBEAM_LOW_HALF(v.lanes) + FAIRBEAM_TOP_HALF(v.lanes);
    auto sum = __builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7);
    sum += __builtin_shufflevector(sum, sum, 2, 3, 0, 1);
    return sum[0] + sum[1];
}

INLINE float max_of(const Floats& v) {
    const auto low = FAIRBEAM_LOW_HALF(v.lanes), top = FAIRBEAM_TOP_HALF(v.lanes);
    const auto half = low > top ? low : top;
    const auto first = __builtin_shufflevector(half, half, 0, 1, 2, 3);
    const auto last = __builtin_shufflevector(half, half, 4, 5, 6, 7);
    auto high = first > last ? first : last;
    const auto other = __builtin_shufflevector(high, high, 2, 3, 0, 1);
    high = high > other ? high : other;
    return std::max(high[0], high[1]);
}

INLINE float min_of(const Floats& v) { return -max_of(-v); }

#undef FAIRBEAM_LOW_HALF
#undef FAIRBEAM_TOP_HALF

}  // namespace fairbeam
