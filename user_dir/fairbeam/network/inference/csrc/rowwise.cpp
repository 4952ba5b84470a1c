#include "rowwise.h"

#include <cmath>

#include "export.h"
#include "math.h"

namespace fairbeam {
namespace {

INLINE void add_norm_row(const float* x, const float* block, float* out, const AddNorm& a) {
    const int64_t width = a.width, aligned = width / kLanes * kLanes;
    Floats total = splat(0.0f);
    for (int64_t i = 0; i < aligned; i += kLanes) {
        const Floats sum = load(x + i) + (block ? load(block + i) : splat(0.0f));
        total += sum;
        store(out + i, sum);
    }
    float tail = 0;
    for (int64_t i = aligned; i < width; ++i) tail += out[i] = x[i] + (block ? block[i] : 0.0f);
    const float mean = (sum_of(total) + tail) / width;
    Floats squares = splat(0.0f);
    for (int64_t i = 0; i < aligned; i += kLanes) {
        const Floats away = load(out + i) - mean;
        squares += away * away;
    }
    tail = 0;
    for (int64_t i = aligned; i < width; ++i) tail += (out[i] - mean) * (out[i] - mean);
    const float rate = 1.0f / std::sqrt((sum_of(squares) + tail) / width + a.epsilon);
    for (int64_t i = 0; i < aligned; i += kLanes) {
        const Floats bias = a.bias ? load(a.bias + i) : splat(0.0f);
        store(out + i, (load(out + i) - mean) * rate * load(a.weight + i) + bias);
    }
    for (int64_t i = aligned; i < width; ++i) {
        out[i] = (out[i] - mean) * rate * a.weight[i] + (a.bias ? a.bias[i] : 0.0f);
    }
}

INLINE void add_norm_kernel(const AddNorm& a) {
    const AddNorm own = a;  // which no output can alias
    for (int64_t row = 0; row < own.rows; ++row) {
        const int64_t first = row * own.width;
        add_norm_row(own.x + first, own.block ? own.block + first : nullptr, own.out + first, own);
    }
}

INLINE void log_softmax_kernel(const LogSoftmax& a) {
    const int64_t width = a.width, aligned = width / kLanes * kLanes;
    float* scores = a.scores;
    for (int64_t row = 0; row < a.rows; ++row, scores += width) {
        const float shift = log_sum_exp(scores, width);
        for (int64_t i = 0; i < aligned; i += kLanes) store(scores + i, load(scores + i) - shift);
        for (int64_t i = aligned; i < width; ++i) scores[i] -= shift;
    }
}

INLINE void log_sum_exps_kernel(const float* scores, float* sums, int64_t rows, int64_t width) {
    for (int64_t row = 0; row < rows; ++row) sums[row] = log_sum_exp(scores + row * width, width);
}

INLINE void activate_kernel(float* x, int64_t count, int64_t activation) {
    const int64_t aligned = count / kLanes * kLanes;
    for (int64_t i = 0; i < aligned; i += kLanes) store(x + i, activated(load(x + i), activation));
    if (aligned < count) {
        const Floats rest = activated(load_first(x + aligned, count - aligned, 0.0f), activation);
        std::memcpy(x + aligned, &rest, (count - aligned) * sizeof(float));
    }
}

}  // namespace

FAIRBEAM_DISPATCH(add_norm, (const AddNorm& a), (a))
FAIRBEAM_DISPATCH(log_softmax, (const LogSoftmax& a), (a))
FAIRBEAM_DISPATCH(log_sum_exps, (const float* scores, float* sums, int64_t rows, int64_t width),
                  (scores, sums, rows, width))
FAIRBEAM_DISPATCH(activate, (float* x, int64_t count, int64_t activation), (x, count, activation))

// No product is contracted with a sum, so that the results are torch's.
#if defined(__clang__)
void embed(const Embed& a) {
#pragma clang fp contract(off)
#else
__attribute__((optimize("fp-contract=off"))) void embed(const Embed& a) {
#endif
    const int64_t alike = a.count / a.different, width = a.width;
    const float scale = a.scale;
    for (int64_t i = 0; i < a.count; ++i) {
        const float* vector = a.vectors + a.tokens[i] * width;
        const float* position = a.positions + a.position_ids[i / alike] * width;
        float* out = a.out + i * width;
        for (int64_t j = 0; j < width; ++j) out[j] = vector[j] * scale + position[j];
    }
}

}  // namespace fairbeam

FAIRBEAM_EXPORT(add_norm, AddNorm)
FAIRBEAM_EXPORT(log_softmax, LogSoftmax)
FAIRBEAM_EXPORT(embed, Embed)
