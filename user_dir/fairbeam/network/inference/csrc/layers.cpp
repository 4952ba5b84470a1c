#include "layers.h"

#if FAIRBEAM_X86

#include <algorithm>
#include <numeric>
#include <vector>

#include "attention.h"
#include "export.h"
#include "rowwise.h"

namespace fairbeam {
namespace {

constexpr int64_t kTogether = 192;  // rows that pass all layers before others do, so that they stay in the cache

// A thread's buffers, which grow and stay.
struct Buffers {
    std::vector<float> normed, projected, context, block;

    static Buffers& for_rows(const TransformerLayer& layer, int64_t rows) {
        static thread_local Buffers buffers;
        const int64_t dim = layer.qkv->inputs, widest = std::max(layer.qkv->outputs, layer.up->outputs);
        grow(buffers.normed, rows * dim);
        grow(buffers.projected, rows * widest);
        grow(buffers.context, rows * widest);
        grow(buffers.block, rows * dim);
        return buffers;
    }

    static void grow(std::vector<float>& buffer, size_t size) { buffer.resize(std::max(buffer.size(), size)); }
};

// Return what a block sees of the residual stream: x, or its norm, which is written to `normed`.
const float* enter(const TransformerLayer& layer, const Norm& norm, const float* x, int64_t rows, float* normed) {
    if (!layer.norm_before) return x;
    apply_norm(norm, x, nullptr, normed, rows, layer.qkv->inputs);
    return normed;
}

// Add a block's output to the residual stream.
void leave(const TransformerLayer& layer, const Norm& norm, float* x, const float* block, int64_t rows) {
    const int64_t dim = layer.qkv->inputs;
    if (layer.norm_before) {
        for (int64_t i = 0; i < rows * dim; ++i) x[i] = x[i] + block[i];
    } else {
        apply_norm(norm, x, block, x, rows, dim);
    }
}

void feed_forward(const TransformerLayer& layer, float* stream, int64_t rows, Buffers& buffers) {
    float *projected = buffers.projected.data(), *block = buffers.block.data();
    for (int64_t first = 0; first < rows; first += kBlock) {  // what is between stays in the cache
        const int64_t some = std::min(kBlock, rows - first);
        float* x = stream + first * layer.qkv->inputs;
        const float* seen = enter(layer, layer.feed_forward_norm, x, some, buffers.normed.data());
        apply_linear({.x = seen, .out = projected, .layer = layer.up, .rows = some});
        apply_linear({.x = projected, .out = block, .layer = layer.down, .rows = some});
        leave(layer, layer.feed_forward_norm, x, block, some);
    }
}

void self_attention(const TransformerLayer& layer, const DecoderStep& a, float* storage, int64_t rows,
                    Buffers& buffers) {
    float *projected = buffers.projected.data(), *context = buffers.context.data(), *block = buffers.block.data();
    const float* seen = enter(layer, layer.self_norm, a.x, rows, buffers.normed.data());
    apply_linear({.x = seen, .out = projected, .layer = layer.qkv, .rows = rows});
    attend_to_slots({.projected = projected,
                     .storage = storage,
                     .slots = a.slots,
                     .rows = a.rows,
                     .starts = a.starts,
                     .context = context,
                     .batch = a.batch,
                     .beams = a.beams,
                     .heads = layer.heads,
                     .head_dim = layer.head_dim,
                     .sentences = a.sentences,
                     .capacity = a.capacity,
                     .steps = a.steps,
                     .start = a.start,
                     .scale = layer.self_scale});
    apply_linear({.x = context, .out = block, .layer = layer.output, .rows = rows});
    leave(layer, layer.self_norm, a.x, block, rows);
}

void cross_attention(const TransformerLayer& layer, const DecoderStep& a, const float* keys, const float* values,
                     int64_t rows, Buffers& buffers) {
    float *projected = buffers.projected.data(), *context = buffers.context.data(), *block = buffers.block.data();
    const float* seen = enter(layer, layer.cross_norm, a.x, rows, buffers.normed.data());
    apply_linear({.x = seen, .out = projected, .layer = layer.query, .rows = rows});
    const int64_t head_stride = a.length * layer.head_dim;
    attend({.query = projected,
            .keys = keys,
            .values = values,
            .mask = a.mask,
            .rows = a.source_rows,
            .context = context,
            .batch = a.batch,
            .queries = a.beams,
            .heads = layer.heads,
            .head_dim = layer.head_dim,
            .length = a.length,
            .query_stride = layer.query->outputs,
            .sentence_stride = layer.heads * head_stride,
            .head_stride = head_stride,
            .key_stride = layer.head_dim,
            .mask_stride = layer.heads * a.length,
            .scale = layer.cross_scale});
    apply_linear({.x = context, .out = block, .layer = layer.cross_output, .rows = rows});
    leave(layer, layer.cross_norm, a.x, block, rows);
}

// A step of a few sentences.
void step_together(const DecoderStep& a) {
    const int64_t rows = a.batch * a.beams;
    for (int64_t i = 0; i < a.layer_count; ++i) {
        const TransformerLayer& layer = *a.layers[i];
        Buffers& buffers = Buffers::for_rows(layer, rows);
        self_attention(layer, a, a.storages[i], rows, buffers);
        cross_attention(layer, a, a.keys[i], a.values[i], rows, buffers);
        feed_forward(layer, a.x, rows, buffers);
    }
}

// An encoder's pass over a few sequences; `sentences` are 0, 1, ….
void encode_together(const EncoderPass& a, const int64_t* sentences) {
    const int64_t rows = a.batch * a.length;
    for (int64_t i = 0; i < a.layer_count; ++i) {
        const TransformerLayer& layer = *a.layers[i];
        const int64_t inner = layer.heads * layer.head_dim;
        Buffers& buffers = Buffers::for_rows(layer, rows);
        float *projected = buffers.projected.data(), *context = buffers.context.data(), *block = buffers.block.data();
        const float* seen = enter(layer, layer.self_norm, a.x, rows, buffers.normed.data());
        apply_linear({.x = seen, .out = projected, .layer = layer.qkv, .rows = rows});
        attend({.query = projected,
                .keys = projected + inner,
                .values = projected + 2 * inner,
                .mask = a.mask,
                .rows = sentences,
                .context = context,
                .batch = a.batch,
                .queries = a.length,
                .heads = layer.heads,
                .head_dim = layer.head_dim,
                .length = a.length,
                .query_stride = 3 * inner,
                .sentence_stride = a.length * 3 * inner,
                .head_stride = layer.head_dim,
                .key_stride = 3 * inner,
                .mask_stride = layer.heads * a.length,
                .scale = layer.self_scale});
        apply_linear({.x = context, .out = block, .layer = layer.output, .rows = rows});
        leave(layer, layer.self_norm, a.x, block, rows);
        feed_forward(layer, a.x, rows, buffers);
    }
}

}  // namespace

void apply_norm(const Norm& norm, const float* x, const float* block, float* out, int64_t rows, int64_t dim) {
    add_norm({.x = x,
              .block = block,
              .weight = norm.weight,
              .bias = norm.bias,
              .out = out,
              .rows = rows,
              .width = dim,
              .epsilon = norm.epsilon});
}

void decoder_step(const DecoderStep& a) {
    const int64_t group = std::max<int64_t>(1, kTogether / a.beams), dim = a.layers[0]->qkv->inputs;
    for (int64_t first = 0; first < a.batch; first += group) {
        DecoderStep part = a;
        part.batch = std::min(group, a.batch - first);
        part.x += first * a.beams * dim;
        part.slots += first * a.beams * a.steps;
        part.rows += first;
        part.source_rows += first;
        if (part.starts) part.starts += first;
        step_together(part);
    }
}

void encoder_pass(const EncoderPass& a) {
    const int64_t group = std::max<int64_t>(1, kTogether / a.length), dim = a.layers[0]->qkv->inputs;
    std::vector<int64_t> sentences(std::min(group, a.batch));
    std::iota(sentences.begin(), sentences.end(), 0);
    for (int64_t first = 0; first < a.batch; first += group) {
        EncoderPass part = a;
        part.batch = std::min(group, a.batch - first);
        part.x += first * a.length * dim;
        if (part.mask) part.mask += first * a.layers[0]->heads * a.length;
        encode_together(part, sentences.data());
    }
}

}  // namespace fairbeam

FAIRBEAM_EXPORT(decoder_step, DecoderStep)
FAIRBEAM_EXPORT(encoder_pass, EncoderPass)

#endif
