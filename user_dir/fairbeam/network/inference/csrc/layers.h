// Transformer layers in one call: a decoding step through all layers, and an encoder's pass over whole sequences.
#pragma once

#include <cstdint>

#include "int_gemm.h"

namespace fairbeam {

// A layer norm.
struct Norm {
    const float *weight, *bias;  // (dim); the bias may be null
    float epsilon;
};

// A layer whose linear layers are quantized. Norms stand before the blocks or behind the residual sums; an encoder's
// layer has no cross-attention (query, cross_output and cross_norm are not read).
struct TransformerLayer {
    const IntegerLinear *qkv, *output;          // projections of self-attention
    const IntegerLinear *query, *cross_output;  // projections of cross-attention
    const IntegerLinear *up, *down;             // linear layers of the feed-forward block; `up` is activated
    Norm self_norm, cross_norm, feed_forward_norm;
    int64_t heads, head_dim, norm_before;
    float self_scale, cross_scale;  // multiply attention scores
};

// One decoding step of all beams. Each layer has a cache as in AttendToSlots, and keys and values of the source,
// (source sentences, heads, length, head_dim).
struct DecoderStep {
    float* x;                                  // (batch, beams, dim), in place
    const TransformerLayer* const* layers;     // (layer_count)
    float* const* storages;                    // (layer_count): caches
    const float *const *keys, *const *values;  // (layer_count)
    const float* mask;                         // (source sentences, heads, length), added to the scores; or null
    const int32_t* slots;                      // as in AttendToSlots
    const int64_t *rows, *source_rows;         // (batch): each sentence's row of the caches, and of the source
    const int64_t* starts;                     // as in AttendToSlots
    int64_t layer_count, batch, beams, sentences, capacity, steps, start, length;
};

// Whole sequences through an encoder.
struct EncoderPass {
    float* x;  // (batch, length, dim), in place
    const TransformerLayer* const* layers;
    const float* mask;  // (batch, heads, length), added to the scores; or null
    int64_t layer_count, batch, length;
};

#if FAIRBEAM_X86
// Write the norm of x + block, or of x if block is null; (rows, dim).
void apply_norm(const Norm& norm, const float* x, const float* block, float* out, int64_t rows, int64_t dim);
void decoder_step(const DecoderStep& a);
void encoder_pass(const EncoderPass& a);
#endif

}  // namespace fairbeam
