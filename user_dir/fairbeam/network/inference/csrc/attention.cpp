#include "attention.h"

#include <vector>

#include "export.h"
#include "math.h"

namespace fairbeam {
namespace {

// Where a key lies, in floats from the first: at the slots of a history, or at equal distances.
struct AtSlots {
    const int32_t* slots;
    int64_t head_dim;
    INLINE int64_t operator()(int64_t key) const { return slots[key] * head_dim; }
};
struct AtStride {
    int64_t stride;
    INLINE int64_t operator()(int64_t key) const { return key * stride; }
};

// One query of one head, and the keys that it attends to.
template <typename Offset>
struct Query {
    const float *query, *keys, *values;
    const float* mask;  // (count) or null
    Offset offset;
    int64_t count;
    float scale;
    float* weights;  // room for `count` floats and a vector
    float* mean;     // (head_dim), written
};

// Attention of a head of kParts vectors.
template <int kParts, typename Offset>
INLINE void attend_in_vectors(const Query<Offset>& a) {
    Floats q[kParts];
#pragma GCC unroll 8
    for (int p = 0; p < kParts; ++p) q[p] = load(a.query + p * kLanes) * a.scale;
    for (int64_t i = 0; i < a.count; ++i) {
        const float* key = a.keys + a.offset(i);
        Floats products = q[0] * load(key);
#pragma GCC unroll 8
        for (int p = 1; p < kParts; ++p) products += q[p] * load(key + p * kLanes);
        a.weights[i] = sum_of(products);
    }
    if (a.mask) {
        for (int64_t i = 0; i < a.count; ++i) a.weights[i] += a.mask[i];
    }
    softmax(a.weights, a.count);
    Floats sum[kParts];
#pragma GCC unroll 8
    for (int p = 0; p < kParts; ++p) sum[p] = splat(0.0f);
    for (int64_t i = 0; i < a.count; ++i) {
        const float* value = a.values + a.offset(i);
#pragma GCC unroll 8
        for (int p = 0; p < kParts; ++p) sum[p] += a.weights[i] * load(value + p * kLanes);
    }
#pragma GCC unroll 8
    for (int p = 0; p < kParts; ++p) store(a.mean + p * kLanes, sum[p]);
}

// The same for heads of any size.
template <typename Offset>
INLINE void attend_in_scalars(const Query<Offset>& a, int64_t head_dim) {
    for (int64_t i = 0; i < a.count; ++i) {
        float score = 0;
        for (int64_t j = 0; j < head_dim; ++j) score += a.query[j] * a.keys[a.offset(i) + j];
        a.weights[i] = score * a.scale + (a.mask ? a.mask[i] : 0.0f);
    }
    softmax(a.weights, a.count);
    std::fill(a.mean, a.mean + head_dim, 0.0f);
    for (int64_t i = 0; i < a.count; ++i) {
        for (int64_t j = 0; j < head_dim; ++j) a.mean[j] += a.weights[i] * a.values[a.offset(i) + j];
    }
}

template <typename Offset>
INLINE void attend_one(const Query<Offset>& a, int64_t head_dim) {
    switch (head_dim) {  // fused_stack.py knows these sizes, too
        case 16: return attend_in_vectors<1>(a);
        case 32: return attend_in_vectors<2>(a);
        case 64: return attend_in_vectors<4>(a);
        case 80: return attend_in_vectors<5>(a);
        case 96: return attend_in_vectors<6>(a);
        case 128: return attend_in_vectors<8>(a);
        default: return attend_in_scalars(a, head_dim);
    }
}

INLINE void attend_to_slots_kernel(const AttendToSlots& a) {
    std::vector<float> weights(a.steps + kLanes);
    const int64_t head_dim = a.head_dim, dim = a.heads * head_dim;
    for (int64_t sentence = 0; sentence < a.batch; ++sentence) {
        const int64_t first = a.starts ? a.starts[sentence] : a.start;
        for (int64_t head = 0; head < a.heads; ++head) {
            float* keys = a.storage + (a.rows[sentence] * a.heads + head) * a.capacity * head_dim;
            float* values = keys + a.sentences * a.heads * a.capacity * head_dim;
            for (int64_t beam = 0; beam < a.beams; ++beam) {
                const float* latest = a.projected + (sentence * a.beams + beam) * 3 * dim + head * head_dim;
                std::memcpy(keys + (first + beam) * head_dim, latest + dim, head_dim * sizeof(float));
                std::memcpy(values + (first + beam) * head_dim, latest + 2 * dim, head_dim * sizeof(float));
            }
            for (int64_t beam = 0; beam < a.beams; ++beam) {
                const int64_t row = sentence * a.beams + beam;
                const int32_t* own = a.slots + row * a.steps;
                int64_t fillers = 0;
                while (own[fillers] < 0) ++fillers;
                attend_one(Query<AtSlots>{a.projected + row * 3 * dim + head * head_dim, keys, values, nullptr,
                                          AtSlots{own + fillers, head_dim}, a.steps - fillers, a.scale, weights.data(),
                                          a.context + row * dim + head * head_dim},
                           head_dim);
            }
        }
    }
}

INLINE void attend_kernel(const Attend& a) {
    std::vector<float> weights(a.length + kLanes);
    for (int64_t sentence = 0; sentence < a.batch; ++sentence) {
        const float* mask = a.mask ? a.mask + a.rows[sentence] * a.mask_stride : nullptr;
        for (int64_t head = 0; head < a.heads; ++head) {
            const int64_t first = a.rows[sentence] * a.sentence_stride + head * a.head_stride;
            for (int64_t query = 0; query < a.queries; ++query) {
                const int64_t row = sentence * a.queries + query;
                attend_one(Query<AtStride>{a.query + row * a.query_stride + head * a.head_dim, a.keys + first,
                                           a.values + first, mask, AtStride{a.key_stride}, a.length, a.scale,
                                           weights.data(), a.context + (row * a.heads + head) * a.head_dim},
                           a.head_dim);
            }
        }
    }
}

}  // namespace

FAIRBEAM_DISPATCH(attend_to_slots, (const AttendToSlots& a), (a))
FAIRBEAM_DISPATCH(attend, (const Attend& a), (a))

void append_slots(const AppendSlots& a) {
    const int32_t* history = a.history;
    int32_t* longer = a.longer;
    for (int64_t row = 0; row < a.batch * a.beams; ++row, history += a.steps, longer += a.steps + 1) {
        std::copy_n(history, a.steps, longer);
        longer[a.steps] = static_cast<int32_t>(a.first + row % a.beams);
    }
}

}  // namespace fairbeam

FAIRBEAM_EXPORT(attend_to_slots, AttendToSlots)
FAIRBEAM_EXPORT(attend, Attend)
FAIRBEAM_EXPORT(append_slots, AppendSlots)
