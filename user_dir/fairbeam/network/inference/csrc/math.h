// Functions of vectors and of rows of floats, inlined into kernels.
#pragma once

#include <cmath>

#include "simd.h"

namespace fairbeam {

// Return e^x for x <= 0: a power of 2 times a polynomial on [-ln 2 / 2, ln 2 / 2]. Below -87 it is e^-87.
INLINE Floats exponential(const Floats& given) {
    const Floats x = max(given, splat(-87.0f));
    const Floats rounded = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the mantissa's last bits are the integer
    const Floats n = rounded - 12582912.0f;
    const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Floats p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return {(Floats::Lanes)((Ints::Lanes)p.lanes + ((Ints::Lanes)rounded.lanes << 23))};
}

// Return 1 / (1 + e^-x).
INLINE Floats sigmoid(const Floats& x) {
    const Ints negative = x < 0.0f;
    const Floats small = exponential(select(negative, x, -x));
    return select(negative, small, splat(1.0f)) / (1.0f + small);
}

// Return the error function, within 1.5e-7 (Abramowitz and Stegun, 1964, formula 7.1.26).
INLINE Floats error_function(const Floats& x) {
    const Ints negative = x < 0.0f;
    const Floats size = select(negative, -x, x), t = 1.0f / (1.0f + 0.3275911f * size);
    Floats p = splat(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const Floats positive = 1.0f - p * t * exponential(-size * size);
    return select(negative, -positive, positive);
}

// Activations of a feed-forward block, under the numbers that quantized_linear.py gives them.
enum Activation : int64_t { kLinear, kRelu, kGelu, kGeluTanh, kSilu };

INLINE Floats activated(const Floats& x, int64_t activation) {
    switch (activation) {
        case kRelu: return max(x, splat(0.0f));
        case kGelu: return 0.5f * x * (1.0f + error_function(x * 0.70710678f));
        case kGeluTanh: return x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x));
        case kSilu: return x * sigmoid(x);
        default: return x;
    }
}

// Replace `count` scores by their softmax. The array has room for whole vectors.
INLINE void softmax(float* scores, int64_t count) {
    const int64_t padded = (count + kLanes - 1) / kLanes * kLanes;
    for (int64_t i = count; i < padded; ++i) scores[i] = -kInfinity;
    Floats high = load(scores);
    for (int64_t i = kLanes; i < padded; i += kLanes) high = max(high, load(scores + i));
    const float highest = max_of(high);
    Floats total = splat(0.0f);
    for (int64_t i = 0; i < padded; i += kLanes) {
        const Floats x = load(scores + i);
        const Floats e = select(x == -kInfinity, splat(0.0f), exponential(x - highest));
        total += e;
        store(scores + i, e);
    }
    const float rate = 1.0f / sum_of(total);
    for (int64_t i = 0; i < padded; i += kLanes) store(scores + i, load(scores + i) * rate);
}

// Return the logarithm of the sum of the exponentials of `width` numbers.
INLINE float log_sum_exp(const float* x, int64_t width) {
    const int64_t aligned = width / kLanes * kLanes;
    const Floats last = load_first(x + aligned, width - aligned, -kInfinity);
    Floats high = last;
    for (int64_t i = 0; i < aligned; i += kLanes) high = max(high, load(x + i));
    const float highest = max_of(high);
    Floats total = select(last == -kInfinity, splat(0.0f), exponential(last - highest));
    for (int64_t i = 0; i < aligned; i += kLanes) total += exponential(load(x + i) - highest);
    return highest + std::log(sum_of(total));
}

}  // namespace fairbeam
