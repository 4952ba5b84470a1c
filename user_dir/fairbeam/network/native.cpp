// The loops of decoding that a library of matrix products has no call for, or only a slow one.
//
// Every result for a row depends on that row alone, never on how many there are: the text must not depend on the batch.
// Products of 8-bit integers need AVX-512 VNNI; the rest is plain C++ that the compiler vectorises for what it finds.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define FAIRBEAM_X86 1
#include <immintrin.h>
// The loader picks the version for the processor it runs on.
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define WITH_VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#else
#define FOR_EACH_PROCESSOR
#endif

namespace {

// e^x for x <= 0: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2], within 2 units in the last place; 0 far below.
inline float exponential(float x) {
    x = std::max(x, -87.0f);
    const float rounded = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the mantissa's last bits are the integer
    int32_t bits;
    std::memcpy(&bits, &rounded, 4);
    const float n = rounded - 12582912.0f;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t result;
    std::memcpy(&result, &p, 4);
    result += static_cast<int32_t>(static_cast<uint32_t>(bits) << 23);
    std::memcpy(&p, &result, 4);
    return p;
}

// Softmax of weights[0 .. count), in place.
inline void normalise(float* weights, int64_t count) {
    float highest = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < count; ++i) highest = std::max(highest, weights[i]);
    float total = 0;
    for (int64_t i = 0; i < count; ++i) {
        weights[i] = weights[i] == -std::numeric_limits<float>::infinity() ? 0.0f : exponential(weights[i] - highest);
        total += weights[i];
    }
    for (int64_t i = 0; i < count; ++i) weights[i] /= total;
}

inline float dot(const float* a, const float* b, int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
    return sum;
}

inline void add(float* sum, float weight, const float* x, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) sum[i] += weight * x[i];
}

}  // namespace

extern "C" {

// Attention of one step's beams, each over the slots of its own history; the latest keys and values are stored first.
//   projected (batch, beams, 3, heads, width); storage (2, rows, heads, capacity, width)
//   slots (batch, beams, steps) int32; rows (batch): where the sentence's keys and values are; context (batch, beams, heads, width)
FOR_EACH_PROCESSOR void fairbeam_attend_to_slots(const float* projected, float* storage, const int32_t* slots,
                                                 const int64_t* rows, float* context, int64_t batch, int64_t beams,
                                                 int64_t heads, int64_t width, int64_t all_rows, int64_t capacity,
                                                 int64_t steps, int64_t start, float scale) {
    std::vector<float> weights(steps);
    const int64_t model = heads * width;
    for (int64_t sentence = 0; sentence < batch; ++sentence) {
        for (int64_t head = 0; head < heads; ++head) {
            float* keys = storage + (rows[sentence] * heads + head) * capacity * width;
            float* values = keys + all_rows * heads * capacity * width;
            for (int64_t beam = 0; beam < beams; ++beam) {
                const float* latest = projected + (sentence * beams + beam) * 3 * model + head * width;
                std::memcpy(keys + (start + beam) * width, latest + model, width * sizeof(float));
                std::memcpy(values + (start + beam) * width, latest + 2 * model, width * sizeof(float));
            }
            for (int64_t beam = 0; beam < beams; ++beam) {
                const int64_t place = sentence * beams + beam;
                const float* query = projected + place * 3 * model + head * width;
                const int32_t* own = slots + place * steps;
                for (int64_t i = 0; i < steps; ++i) weights[i] = scale * dot(query, keys + own[i] * width, width);
                normalise(weights.data(), steps);
                float* mean = context + place * model + head * width;
                std::memset(mean, 0, width * sizeof(float));
                for (int64_t i = 0; i < steps; ++i) add(mean, weights[i], values + own[i] * width, width);
            }
        }
    }
}

// Attention over the encoded source.
//   query and context (batch, queries, heads, width); keys and values (rows, heads, length, width)
//   mask (batch, heads, length), added to the scores, or null
FOR_EACH_PROCESSOR void fairbeam_attend_to_source(const float* query, const float* keys, const float* values,
                                                  const float* mask, const int64_t* rows, float* context,
                                                  int64_t batch, int64_t queries, int64_t heads, int64_t width,
                                                  int64_t length, float scale) {
    std::vector<float> weights(length);
    for (int64_t sentence = 0; sentence < batch; ++sentence) {
        for (int64_t head = 0; head < heads; ++head) {
            const int64_t row = rows[sentence] * heads + head;
            const float* added = mask ? mask + row * length : nullptr;
            for (int64_t number = 0; number < queries; ++number) {
                const int64_t place = ((sentence * queries + number) * heads + head) * width;
                for (int64_t i = 0; i < length; ++i) {
                    weights[i] = scale * dot(query + place, keys + (row * length + i) * width, width);
                }
                if (added) {
                    for (int64_t i = 0; i < length; ++i) weights[i] += added[i];
                }
                normalise(weights.data(), length);
                std::memset(context + place, 0, width * sizeof(float));
                for (int64_t i = 0; i < length; ++i) {
                    add(context + place, weights[i], values + (row * length + i) * width, width);
                }
            }
        }
    }
}

// Layer normalisation (Ba et al., 2016) of the sum of x and block, either of which may be null for no norm; bias may be null.
FOR_EACH_PROCESSOR void fairbeam_add_norm(const float* x, const float* block, const float* gain, const float* bias,
                                          float* out, int64_t rows, int64_t width, float epsilon) {
    for (int64_t row = 0; row < rows; ++row) {
        const float *a = x + row * width, *b = block + row * width;
        float* y = out + row * width;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; ++i) {
            y[i] = a[i] + b[i];
            sum += y[i];
        }
        const float mean = sum / width;
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < width; ++i) squares += (y[i] - mean) * (y[i] - mean);
        const float rate = 1.0f / std::sqrt(squares / width + epsilon);
        if (bias) {
#pragma omp simd
            for (int64_t i = 0; i < width; ++i) y[i] = (y[i] - mean) * rate * gain[i] + bias[i];
        } else {
#pragma omp simd
            for (int64_t i = 0; i < width; ++i) y[i] = (y[i] - mean) * rate * gain[i];
        }
    }
}

// Log-softmax of rows, in place.
FOR_EACH_PROCESSOR void fairbeam_log_softmax(float* scores, int64_t rows, int64_t width) {
    for (int64_t row = 0; row < rows; ++row) {
        float* x = scores + row * width;
        float highest = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : highest)
        for (int64_t i = 0; i < width; ++i) highest = std::max(highest, x[i]);
        float total = 0;
#pragma omp simd reduction(+ : total)
        for (int64_t i = 0; i < width; ++i) total += exponential(x[i] - highest);
        const float shift = highest + std::log(total);
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) x[i] -= shift;
    }
}

#ifdef FAIRBEAM_X86

int fairbeam_has_vnni() {
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

}  // extern "C"

namespace {

constexpr int64_t kPanel = 64;     // outputs whose weights lie side by side
constexpr int kTile = 6;           // rows whose sums are held in registers: 6 x 4 of 32
constexpr int64_t kBlock = 48;     // rows quantised at a time

struct Row {
    float scale, middle;  // an input is about scale * integer + middle
    int32_t sum;          // of the integers
};

// A row as integers of [-127, 127].
WITH_VNNI Row quantise(const float* x, int8_t* values, int64_t inputs, int64_t padded) {
    __m512 low = _mm512_set1_ps(std::numeric_limits<float>::infinity()), high = _mm512_sub_ps(_mm512_setzero_ps(), low);
    for (int64_t i = 0; i < inputs; i += 16) {
        const __mmask16 some = inputs - i >= 16 ? 0xFFFF : (1u << (inputs - i)) - 1;
        const __m512 part = _mm512_maskz_loadu_ps(some, x + i);
        low = _mm512_mask_min_ps(low, some, low, part);
        high = _mm512_mask_max_ps(high, some, high, part);
    }
    const float least = _mm512_reduce_min_ps(low), most = _mm512_reduce_max_ps(high);
    Row row{(most - least) / 254.0f, 0.5f * (most + least), 0};
    const __m512 inverse = _mm512_set1_ps(row.scale > 0 ? 1.0f / row.scale : 0.0f), middle = _mm512_set1_ps(row.middle);
    __m512i total = _mm512_setzero_si512();
    for (int64_t i = 0; i < padded; i += 16) {
        const __mmask16 some = i >= inputs ? 0 : inputs - i >= 16 ? 0xFFFF : (1u << (inputs - i)) - 1;
        const __m512 part = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(some, x + i), middle), inverse);
        const __m512i whole = _mm512_maskz_cvtps_epi32(some, part);
        total = _mm512_add_epi32(total, whole);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(values + i), _mm512_cvtsepi32_epi8(whole));
    }
    row.sum = _mm512_reduce_add_epi32(total);
    return row;
}

struct Weight {
    const uint8_t* values;  // (panels, groups, 64 outputs, 4 inputs): integers + 128
    const float* scales;    // of each output, padded to whole panels
    const float* sums;      // scale times the sum of the output's integers
    const float* bias;
    int64_t inputs, outputs, groups;
};

// sums + w x, four products a lane. Some compilers wrap the intrinsic in copies that halve its speed.
WITH_VNNI inline __m512i multiply_add(__m512i sums, __m512i w, __m512i x) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(w), "v"(x));
    return sums;
}

template <int R>
WITH_VNNI inline void tile(const int8_t* rows, int64_t stride, const Row* facts, const Weight& weight, int64_t panel,
                           float* out, bool relu) {
    __m512i sums[R][4];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) sums[r][j] = _mm512_set1_epi32(-128 * facts[r].sum);
    }
    const uint8_t* values = weight.values + panel * weight.groups * 4 * kPanel;
    for (int64_t group = 0; group < weight.groups; ++group, values += 4 * kPanel) {
        __m512i w[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) w[j] = _mm512_loadu_si512(values + 64 * j);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            int32_t four;
            std::memcpy(&four, rows + r * stride + 4 * group, 4);
            const __m512i x = _mm512_set1_epi32(four);
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) sums[r][j] = multiply_add(sums[r][j], w[j], x);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const int64_t first = panel * kPanel + 16 * j, left = weight.outputs - first;
        const __mmask16 some = left >= 16 ? 0xFFFF : left > 0 ? (1u << left) - 1 : 0;
        const __m512 scales = _mm512_loadu_ps(weight.scales + first), shifts = _mm512_loadu_ps(weight.sums + first);
        const __m512 bias = _mm512_loadu_ps(weight.bias + first);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            const __m512 base = _mm512_fmadd_ps(shifts, _mm512_set1_ps(facts[r].middle), bias);
            const __m512 factor = _mm512_mul_ps(scales, _mm512_set1_ps(facts[r].scale));
            __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][j]), factor, base);
            if (relu) y = _mm512_max_ps(y, _mm512_setzero_ps());
            _mm512_mask_storeu_ps(out + r * weight.outputs + first, some, y);
        }
    }
}

// At most kBlock rows.
WITH_VNNI void block_product(const float* x, const Weight& weight, float* out, int64_t rows, bool relu,
                             int8_t* values) {
    const int64_t stride = (weight.groups * 4 + 15) / 16 * 16;
    Row facts[kBlock];
    for (int64_t r = 0; r < rows; ++r) facts[r] = quantise(x + r * weight.inputs, values + r * stride, weight.inputs, stride);
    const int64_t panels = (weight.outputs + kPanel - 1) / kPanel;
    for (int64_t panel = 0; panel < panels; ++panel) {
        for (int64_t first = 0; first < rows; first += kTile) {
            const int8_t* a = values + first * stride;
            float* y = out + first * weight.outputs;
            switch (std::min<int64_t>(kTile, rows - first)) {
                case 1: tile<1>(a, stride, facts + first, weight, panel, y, relu); break;
                case 2: tile<2>(a, stride, facts + first, weight, panel, y, relu); break;
                case 3: tile<3>(a, stride, facts + first, weight, panel, y, relu); break;
                case 4: tile<4>(a, stride, facts + first, weight, panel, y, relu); break;
                case 5: tile<5>(a, stride, facts + first, weight, panel, y, relu); break;
                default: tile<6>(a, stride, facts + first, weight, panel, y, relu); break;
            }
        }
    }
}

}  // namespace

extern "C" {

// x W^T + b, rectified if asked. x (rows, inputs); out (rows, outputs); the weight as Weight says.
WITH_VNNI void fairbeam_int8_product(const float* x, const uint8_t* values, const float* scales, const float* sums,
                                     const float* bias, float* out, int64_t rows, int64_t inputs, int64_t outputs,
                                     int relu) {
    const Weight weight{values, scales, sums, bias, inputs, outputs, (inputs + 3) / 4};
    std::vector<int8_t> quantised(std::min(rows, kBlock) * ((inputs + 15) / 16 * 16));
    for (int64_t first = 0; first < rows; first += kBlock) {
        block_product(x + first * inputs, weight, out + first * outputs, std::min(kBlock, rows - first), relu,
                      quantised.data());
    }
}

#else

int fairbeam_has_vnni() { return 0; }

#endif

}  // extern "C"
