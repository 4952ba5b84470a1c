#include "int_gemm.h"

#if FAIRBEAM_X86

#include <immintrin.h>

#include <type_traits>
#include <vector>

#include "export.h"
#include "math.h"
#include "rowwise.h"

namespace fairbeam {
namespace {

constexpr int kTile = 6;  // rows whose sums are held in registers: 6 x 4 of 32
// Conversions are written with a mask of all lanes: in those without one GCC 12 sees reads of uninitialised registers.
constexpr __mmask16 kAll = 0xFFFF;

// A quantized row: an input is about scale * integer + middle.
struct Row {
    float scale, middle;
    int32_t sum;  // of the integers
};

INLINE TARGET_VNNI __mmask16 first_of(int64_t count) { return count >= 16 ? kAll : count > 0 ? (1u << count) - 1 : 0; }

INLINE int64_t padded(int64_t inputs) { return (inputs + 15) / 16 * 16; }

// Round a row to integers of [-qmax, qmax], 8 or 16 bits wide, with zeros behind them up to whole vectors.
template <typename Integer>
TARGET_VNNI Row quantize(const float* x, Integer* integers, int64_t inputs, int32_t qmax) {
    __m512 low = _mm512_set1_ps(kInfinity), high = _mm512_set1_ps(-kInfinity);
    for (int64_t i = 0; i < inputs; i += 16) {
        const __mmask16 some = first_of(inputs - i);
        const __m512 part = _mm512_maskz_loadu_ps(some, x + i);
        low = _mm512_mask_min_ps(low, some, low, part);
        high = _mm512_mask_max_ps(high, some, high, part);
    }
    const float least = min_of(Floats{(Floats::Lanes)low}), largest = max_of(Floats{(Floats::Lanes)high});
    Row row{(largest - least) / static_cast<float>(2 * qmax), 0.5f * (largest + least), 0};
    const __m512 inverse = _mm512_set1_ps(row.scale > 0 ? 1.0f / row.scale : 0.0f), middle = _mm512_set1_ps(row.middle);
    __m512i total = _mm512_setzero_si512();
    for (int64_t i = 0; i < inputs; i += 16) {
        const __mmask16 some = first_of(inputs - i);
        const __m512 part = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(some, x + i), middle), inverse);
        const __m512i rounded = _mm512_maskz_cvtps_epi32(some, part);
        total = _mm512_add_epi32(total, rounded);
        if constexpr (sizeof(Integer) == 1) {
            _mm_storeu_si128(reinterpret_cast<__m128i*>(integers + i), _mm512_maskz_cvtsepi32_epi8(kAll, rounded));
        } else {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(integers + i), _mm512_maskz_cvtsepi32_epi16(kAll, rounded));
        }
    }
    row.sum = sum_of(Ints{(Ints::Lanes)total});
    return row;
}

// Return sums + w x. Some compilers wrap the intrinsics in copies that halve their speed.
template <bool kWide>
INLINE TARGET_VNNI __m512i multiply_add(__m512i sums, __m512i w, __m512i x) {
    if constexpr (kWide) {
        __asm__("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(w), "v"(x));
    } else {
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(w), "v"(x));
    }
    return sums;
}

// Write one panel's outputs of kRows rows, which are quantized and lie `stride` bytes apart.
template <bool kWide, int kRows>
INLINE TARGET_VNNI void tile(const char* integers, int64_t stride, const Row* rows, const IntegerLinear& layer,
                             int64_t panel, float* out) {
    __m512i sums[kRows][4];
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) sums[r][j] = _mm512_set1_epi32(kWide ? 0 : -128 * rows[r].sum);
    }
    const int64_t groups = layer.groups();
    const char* weight = layer.weight + panel * groups * 4 * kPanel;
    for (int64_t group = 0; group < groups; ++group, weight += 4 * kPanel) {
        __m512i w[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) w[j] = _mm512_loadu_si512(weight + 64 * j);
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
            int32_t four;
            std::memcpy(&four, integers + r * stride + 4 * group, 4);
            const __m512i x = _mm512_set1_epi32(four);
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) sums[r][j] = multiply_add<kWide>(sums[r][j], w[j], x);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const int64_t first = panel * kPanel + 16 * j;
        const __mmask16 some = first_of(layer.outputs - first);
        const __m512 scales = _mm512_loadu_ps(layer.scales + first),
                     shifts = _mm512_loadu_ps(layer.weight_sums + first);
        const __m512 bias = _mm512_loadu_ps(layer.bias + first);
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
            const __m512 base = _mm512_fmadd_ps(shifts, _mm512_set1_ps(rows[r].middle), bias);
            const __m512 factor = _mm512_mul_ps(scales, _mm512_set1_ps(rows[r].scale));
            __m512 y = _mm512_fmadd_ps(_mm512_maskz_cvtepi32_ps(kAll, sums[r][j]), factor, base);
            if (layer.activation == kRelu) y = _mm512_maskz_max_ps(kAll, y, _mm512_setzero_ps());
            _mm512_mask_storeu_ps(out + r * layer.outputs + first, some, y);
        }
    }
}

// Apply a layer to at most kBlock rows; there is room for them in `integers`.
template <bool kWide>
TARGET_VNNI void apply_to_block(const float* x, const IntegerLinear& layer, float* out, int64_t rows, char* integers) {
    using Integer = std::conditional_t<kWide, int16_t, int8_t>;
    const int64_t stride = padded(layer.inputs) * sizeof(Integer);
    Row quantized[kBlock];
    for (int64_t r = 0; r < rows; ++r) {
        quantized[r] = quantize(x + r * layer.inputs, reinterpret_cast<Integer*>(integers + r * stride), layer.inputs,
                                static_cast<int32_t>(layer.qmax));
    }
    const int64_t panels = (layer.outputs + kPanel - 1) / kPanel;
    for (int64_t panel = 0; panel < panels; ++panel) {
        for (int64_t first = 0; first < rows; first += kTile) {
            const char* a = integers + first * stride;
            const Row* some = quantized + first;
            float* y = out + first * layer.outputs;
            switch (std::min<int64_t>(kTile, rows - first)) {
                case 1: tile<kWide, 1>(a, stride, some, layer, panel, y); break;
                case 2: tile<kWide, 2>(a, stride, some, layer, panel, y); break;
                case 3: tile<kWide, 3>(a, stride, some, layer, panel, y); break;
                case 4: tile<kWide, 4>(a, stride, some, layer, panel, y); break;
                case 5: tile<kWide, 5>(a, stride, some, layer, panel, y); break;
                default: tile<kWide, 6>(a, stride, some, layer, panel, y); break;
            }
        }
    }
}

// Return x w - q(x) q(w), where q rounds to the quantized row's and the output's integers.
TARGET_VNNI float product_delta(const float* x, const float* weight, const int8_t* integers, const Row& row,
                                float output_scale, int64_t inputs) {
    const __m512 scale = _mm512_set1_ps(output_scale);
    __m512 exact = _mm512_setzero_ps(), rounded = exact;
    for (int64_t j = 0; j < inputs; j += 16) {
        const __mmask16 some = first_of(inputs - j);
        const __m512 w = _mm512_maskz_loadu_ps(some, weight + j);
        const __m512 nearest = _mm512_mul_ps(_mm512_maskz_roundscale_ps(kAll, _mm512_div_ps(w, scale), 0), scale);
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(integers + j));
        const __m512 q = _mm512_fmadd_ps(_mm512_maskz_cvtepi32_ps(kAll, _mm512_maskz_cvtepi8_epi32(kAll, bytes)),
                                         _mm512_set1_ps(row.scale), _mm512_set1_ps(row.middle));
        exact = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(some, x + j), w, exact);
        rounded = _mm512_fmadd_ps(q, nearest, rounded);
    }
    return sum_of(Floats{(Floats::Lanes)_mm512_sub_ps(exact, rounded)});
}

}  // namespace

void apply_linear(const ApplyLinear& a) {
    static thread_local std::vector<char> integers;
    const IntegerLinear& layer = *a.layer;
    integers.resize(kBlock * padded(layer.inputs) * 2);
    const auto apply = layer.is_wide() ? apply_to_block<true> : apply_to_block<false>;
    for (int64_t first = 0; first < a.rows; first += kBlock) {
        apply(a.x + first * layer.inputs, layer, a.out + first * layer.outputs, std::min(kBlock, a.rows - first),
              integers.data());
    }
    if (layer.activation > kRelu) activate(a.out, a.rows * layer.outputs, layer.activation);
}

void logit_delta(const LogitDelta& a) {
    const int64_t stride = padded(a.inputs);
    std::vector<int8_t> integers(a.beams * stride);
    std::vector<Row> quantized(a.beams);
    for (int64_t sentence = 0; sentence < a.batch; ++sentence) {
        const float* rows = a.x + sentence * a.beams * a.inputs;
        for (int64_t beam = 0; beam < a.beams; ++beam) {
            quantized[beam] = quantize(rows + beam * a.inputs, integers.data() + beam * stride, a.inputs, 127);
        }
        for (int64_t i = sentence * a.count; i < (sentence + 1) * a.count; ++i) {
            const int64_t beam = a.beams == 1 ? 0 : a.parents[i];
            a.deltas[i] = product_delta(rows + beam * a.inputs, a.exact_weight + a.ids[i] * a.inputs,
                                        &integers[beam * stride], quantized[beam], a.scales[a.columns[i]], a.inputs);
        }
    }
}

}  // namespace fairbeam

FAIRBEAM_EXPORT(apply_linear, ApplyLinear)
FAIRBEAM_EXPORT(logit_delta, LogitDelta)

#endif
