// The loops of decoding that a library of matrix products has no call for, or only a slow one.
//
// Every result for a row depends on that row alone, never on how many there are: a text must not depend on its batch.
// Products of 8-bit integers need AVX-512 VNNI. The rest is written in vectors of 16 numbers, which the compiler breaks
// down for what a processor has.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
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
#define INLINE inline __attribute__((always_inline))

namespace {

constexpr int kLanes = 16;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
typedef float Vector __attribute__((vector_size(4 * kLanes)));
typedef int32_t Integers __attribute__((vector_size(4 * kLanes)));

INLINE Vector load(const float* x) {
    Vector v;
    std::memcpy(&v, x, sizeof v);
    return v;
}

INLINE void store(float* x, Vector v) { std::memcpy(x, &v, sizeof v); }

// The first numbers of a vector, the rest filled.
INLINE Vector load_some(const float* x, int64_t count, float filling) {
    Vector v = Vector{} + filling;
    std::memcpy(&v, x, count * sizeof(float));
    return v;
}

INLINE Vector larger(Vector a, Vector b) { return a > b ? a : b; }

// Halves of vectors, added or compared until one number is left.
typedef float Half __attribute__((vector_size(2 * kLanes)));
typedef float Quarter __attribute__((vector_size(kLanes)));

INLINE float sum_of(Vector v) {
    const Half half = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                      __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    Quarter sum = __builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7);
    sum += __builtin_shufflevector(sum, sum, 2, 3, 0, 1);
    return sum[0] + sum[1];
}

INLINE float largest_of(Vector v) {
    const Half low = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7);
    const Half top = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    const Half half = low > top ? low : top;
    const Quarter first = __builtin_shufflevector(half, half, 0, 1, 2, 3);
    const Quarter last = __builtin_shufflevector(half, half, 4, 5, 6, 7);
    Quarter high = first > last ? first : last;
    const Quarter other = __builtin_shufflevector(high, high, 2, 3, 0, 1);
    high = high > other ? high : other;
    return std::max(high[0], high[1]);
}

// e^x for x <= 0: a power of 2 times a polynomial on [-ln 2 / 2, ln 2 / 2]; e^-87 for what is smaller.
INLINE Vector exponential(Vector x) {
    x = larger(x, Vector{} - 87.0f);
    const Vector rounded = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the last bits of the mantissa are the integer
    const Vector n = rounded - 12582912.0f;
    const Vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vector p = Vector{} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return (Vector)((Integers)p + ((Integers)rounded << 23));
}

// 1 / (1 + e^-x)
INLINE Vector sigmoid(Vector x) {
    const Vector small = exponential(x < 0.0f ? x : -x);  // of what is below 0
    return (x < 0.0f ? small : Vector{} + 1.0f) / (1.0f + small);
}

// The error function, within 1.5e-7 (Abramowitz and Stegun, 1964, formula 7.1.26).
INLINE Vector error_function(Vector x) {
    const Vector size = x < 0.0f ? -x : x, t = 1.0f / (1.0f + 0.3275911f * size);
    Vector p = Vector{} + 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const Vector positive = 1.0f - p * t * exponential(-size * size);
    return x < 0.0f ? -positive : positive;
}

enum Activation { kNone, kRelu, kGelu, kGeluTanh, kSilu };

INLINE Vector activated(Vector x, int64_t kind) {
    switch (kind) {
        case kRelu: return larger(x, Vector{});
        case kGelu: return 0.5f * x * (1.0f + error_function(x * 0.70710678f));
        case kGeluTanh: return x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x));
        case kSilu: return x * sigmoid(x);
        default: return x;
    }
}

// Softmax of count weights, in place; there is room for whole vectors.
INLINE void normalise(float* weights, int64_t count) {
    const int64_t whole = (count + kLanes - 1) / kLanes * kLanes;
    for (int64_t i = count; i < whole; ++i) weights[i] = -kInfinity;
    Vector high = load(weights);
    for (int64_t i = kLanes; i < whole; i += kLanes) high = larger(high, load(weights + i));
    const float highest = largest_of(high);
    Vector total = {};
    for (int64_t i = 0; i < whole; i += kLanes) {
        const Vector x = load(weights + i);
        const Vector e = x == -kInfinity ? Vector{} : exponential(x - highest);
        total += e;
        store(weights + i, e);
    }
    const float rate = 1.0f / sum_of(total);
    for (int64_t i = 0; i < whole; i += kLanes) store(weights + i, load(weights + i) * rate);
}

// One query's mean of values. Key number i is at keys + place(i). kParts vectors make a head.
template <int kParts, typename Place>
INLINE void attend_in(const float* query, const float* keys, const float* values, const float* mask, Place place,
                      int64_t count, float scale, float* weights, float* mean) {
    Vector q[kParts];
#pragma GCC unroll 8
    for (int p = 0; p < kParts; ++p) q[p] = load(query + p * kLanes) * scale;
    for (int64_t i = 0; i < count; ++i) {
        const float* key = keys + place(i);
        Vector products = q[0] * load(key);
#pragma GCC unroll 8
        for (int p = 1; p < kParts; ++p) products += q[p] * load(key + p * kLanes);
        weights[i] = sum_of(products);
    }
    if (mask) {
        for (int64_t i = 0; i < count; ++i) weights[i] += mask[i];
    }
    normalise(weights, count);
    Vector sum[kParts] = {};
    for (int64_t i = 0; i < count; ++i) {
        const float* value = values + place(i);
#pragma GCC unroll 8
        for (int p = 0; p < kParts; ++p) sum[p] += weights[i] * load(value + p * kLanes);
    }
#pragma GCC unroll 8
    for (int p = 0; p < kParts; ++p) store(mean + p * kLanes, sum[p]);
}

// The same for heads of any width.
template <typename Place>
INLINE void attend_any(const float* query, const float* keys, const float* values, const float* mask, Place place,
                       int64_t count, float scale, float* weights, float* mean, int64_t width) {
    for (int64_t i = 0; i < count; ++i) {
        float score = 0;
        for (int64_t j = 0; j < width; ++j) score += query[j] * keys[place(i) + j];
        weights[i] = score * scale + (mask ? mask[i] : 0.0f);
    }
    normalise(weights, count);
    std::fill(mean, mean + width, 0.0f);
    for (int64_t i = 0; i < count; ++i) {
        for (int64_t j = 0; j < width; ++j) mean[j] += weights[i] * values[place(i) + j];
    }
}

template <typename Place>
INLINE void attend(const float* query, const float* keys, const float* values, const float* mask, Place place,
                   int64_t count, float scale, float* weights, float* mean, int64_t width) {
    switch (width) {
        case 16: return attend_in<1>(query, keys, values, mask, place, count, scale, weights, mean);
        case 32: return attend_in<2>(query, keys, values, mask, place, count, scale, weights, mean);
        case 64: return attend_in<4>(query, keys, values, mask, place, count, scale, weights, mean);
        case 80: return attend_in<5>(query, keys, values, mask, place, count, scale, weights, mean);
        case 96: return attend_in<6>(query, keys, values, mask, place, count, scale, weights, mean);
        case 128: return attend_in<8>(query, keys, values, mask, place, count, scale, weights, mean);
        default: return attend_any(query, keys, values, mask, place, count, scale, weights, mean, width);
    }
}

// The count highest of (score - shift) + added, a sentence's; every beam has its own shift, or none, and added.
INLINE void topk_of_sums(const float* scores, const float* shifts, const float* added, float* sums, int64_t* places,
                         int64_t beams, int64_t vocabulary, int64_t count) {
    constexpr int64_t kWide = 4 * kLanes;
    int64_t found = 0;
    const auto offer = [&](float sum, int64_t place) {
        if (found == count && !(sum > sums[count - 1])) return;
        int64_t at = found < count ? found++ : count - 1;
        for (; at > 0 && sum > sums[at - 1]; --at) {
            sums[at] = sums[at - 1];
            places[at] = places[at - 1];
        }
        sums[at] = sum;
        places[at] = place;
    };
    for (int64_t beam = 0; beam < beams; ++beam) {
        const float* row = scores + beam * vocabulary;
        const float shift = shifts ? shifts[beam] : 0.0f, more = added[beam];
        int64_t first = 0;
        for (; first + kWide <= vocabulary; first += kWide) {
            if (found == count) {
                const Vector high = larger(larger(load(row + first), load(row + first + kLanes)),
                                           larger(load(row + first + 2 * kLanes), load(row + first + 3 * kLanes)));
                if (!((largest_of(high) - shift) + more > sums[count - 1])) continue;
            }
            for (int64_t i = first; i < first + kWide; ++i) offer((row[i] - shift) + more, beam * vocabulary + i);
        }
        for (int64_t i = first; i < vocabulary; ++i) offer((row[i] - shift) + more, beam * vocabulary + i);
    }
}

// The logarithm of the sum of exponentials.
INLINE float log_sum(const float* x, int64_t width) {
    const int64_t whole = width / kLanes * kLanes;
    const Vector last = load_some(x + whole, width - whole, -kInfinity);
    Vector high = last;
    for (int64_t i = 0; i < whole; i += kLanes) high = larger(high, load(x + i));
    const float highest = largest_of(high);
    Vector total = last == -kInfinity ? Vector{} : exponential(last - highest);
    for (int64_t i = 0; i < whole; i += kLanes) total += exponential(load(x + i) - highest);
    return highest + std::log(sum_of(total));
}

// What is to be added to some log probabilities of a sentence, so that their scores before the softmax change as told.
// Only they, which mostly are the probable ones, change what a beam's probabilities add up to.
inline void renormalise(const float* known, const float* changes, const int64_t* owners, float* added, int64_t beams,
                        int64_t count, std::vector<double>& sums) {
    sums.assign(beams, 0.0);
    for (int64_t i = 0; i < count; ++i) {
        sums[owners[i]] += std::exp(static_cast<double>(known[i])) * std::expm1(static_cast<double>(changes[i]));
    }
    for (double& sum : sums) sum = std::log1p(sum);
    for (int64_t i = 0; i < count; ++i) added[i] = changes[i] - static_cast<float>(sums[owners[i]]);
}

}  // namespace

extern "C" {

// Attention of one step's beams, each over the slots of its own history; the latest keys and values are stored first.
//   projected (batch, beams, 3, heads, width); context (batch, beams, heads, width)
//   storage (2, sentences, heads, capacity, width); rows (batch): which sentence of the storage each is
//   slots (batch, beams, steps): below 0 before a history that is shorter than others begins
//   starts (batch): where each sentence's latest go, or null where it is start for all
FOR_EACH_PROCESSOR void fairbeam_attend_to_slots(const float* projected, float* storage, const int32_t* slots,
                                                 const int64_t* rows, const int64_t* starts, float* context,
                                                 int64_t batch, int64_t beams, int64_t heads, int64_t width,
                                                 int64_t sentences, int64_t capacity, int64_t steps, int64_t start,
                                                 float scale) {
    std::vector<float> weights(steps + kLanes);
    const int64_t model = heads * width;
    for (int64_t sentence = 0; sentence < batch; ++sentence) {
        const int64_t first = starts ? starts[sentence] : start;
        for (int64_t head = 0; head < heads; ++head) {
            float* keys = storage + (rows[sentence] * heads + head) * capacity * width;
            float* values = keys + sentences * heads * capacity * width;
            for (int64_t beam = 0; beam < beams; ++beam) {
                const float* latest = projected + (sentence * beams + beam) * 3 * model + head * width;
                std::memcpy(keys + (first + beam) * width, latest + model, width * sizeof(float));
                std::memcpy(values + (first + beam) * width, latest + 2 * model, width * sizeof(float));
            }
            for (int64_t beam = 0; beam < beams; ++beam) {
                const int64_t row = sentence * beams + beam;
                const int32_t* own = slots + row * steps;
                int64_t before = 0;
                while (own[before] < 0) ++before;
                own += before;
                attend(projected + row * 3 * model + head * width, keys, values, nullptr,
                       [=](int64_t i) { return own[i] * width; }, steps - before, scale, weights.data(),
                       context + row * model + head * width, width);
            }
        }
    }
}

// Attention to the same keys for all queries of a sentence.
//   query (batch, queries, ...) of query_stride numbers a row, in which a head's lie together
//   keys and values: strides of a sentence, of a head, and of a key; rows (batch): which sentence of theirs each is
//   mask, added to the scores, or null: its stride of a sentence; context (batch, queries, heads, width)
FOR_EACH_PROCESSOR void fairbeam_attend(const float* query, const float* keys, const float* values, const float* mask,
                                        const int64_t* rows, float* context, int64_t batch, int64_t queries,
                                        int64_t heads, int64_t width, int64_t length, int64_t query_stride,
                                        int64_t sentence_stride, int64_t head_stride, int64_t key_stride,
                                        int64_t mask_stride, float scale) {
    std::vector<float> weights(length + kLanes);
    for (int64_t sentence = 0; sentence < batch; ++sentence) {
        const float* added = mask ? mask + rows[sentence] * mask_stride : nullptr;
        for (int64_t head = 0; head < heads; ++head) {
            const int64_t first = rows[sentence] * sentence_stride + head * head_stride;
            for (int64_t number = 0; number < queries; ++number) {
                const int64_t row = sentence * queries + number;
                attend(query + row * query_stride + head * width, keys + first, values + first, added,
                       [=](int64_t i) { return i * key_stride; }, length, scale, weights.data(),
                       context + (row * heads + head) * width, width);
            }
        }
    }
}

// An activation of every number, in place.
FOR_EACH_PROCESSOR void fairbeam_activate(float* x, int64_t count, int64_t kind) {
    const int64_t whole = count / kLanes * kLanes;
    for (int64_t i = 0; i < whole; i += kLanes) store(x + i, activated(load(x + i), kind));
    if (whole < count) {
        const Vector rest = activated(load_some(x + whole, count - whole, 0.0f), kind);
        std::memcpy(x + whole, &rest, (count - whole) * sizeof(float));
    }
}

// Layer normalisation (Ba et al., 2016) of x + block, each (rows, width); block and bias may be null.
FOR_EACH_PROCESSOR void fairbeam_add_norm(const float* x, const float* block, const float* gain, const float* bias,
                                          float* out, int64_t rows, int64_t width, float epsilon) {
    const int64_t whole = width / kLanes * kLanes, rest = width - whole;
    for (int64_t row = 0; row < rows; ++row, x += width, block += block ? width : 0, out += width) {
        Vector total = {};
        for (int64_t i = 0; i < whole; i += kLanes) {
            const Vector sum = load(x + i) + (block ? load(block + i) : Vector{});
            total += sum;
            store(out + i, sum);
        }
        float tail = 0;
        for (int64_t i = whole; i < width; ++i) tail += out[i] = x[i] + (block ? block[i] : 0.0f);
        const float mean = (sum_of(total) + tail) / width;
        Vector squares = {};
        for (int64_t i = 0; i < whole; i += kLanes) {
            const Vector away = load(out + i) - mean;
            squares += away * away;
        }
        tail = 0;
        for (int64_t i = whole; i < width; ++i) tail += (out[i] - mean) * (out[i] - mean);
        const float rate = 1.0f / std::sqrt((sum_of(squares) + tail) / width + epsilon);
        for (int64_t i = 0; i < whole; i += kLanes) {
            const Vector shift = bias ? load(bias + i) : Vector{};
            store(out + i, (load(out + i) - mean) * rate * load(gain + i) + shift);
        }
        for (int64_t i = width - rest; i < width; ++i) {
            out[i] = (out[i] - mean) * rate * gain[i] + (bias ? bias[i] : 0.0f);
        }
    }
}

// What is to be added to a few log probabilities whose scores before the softmax change.
//   log_probabilities (batch, beams, vocabulary); changes, owners (beams), tokens, added (batch, count)
void fairbeam_renormalise(const float* log_probabilities, const float* changes, const int64_t* owners,
                          const int64_t* tokens, float* added, int64_t batch, int64_t beams, int64_t vocabulary,
                          int64_t count) {
    std::vector<float> known(count);
    std::vector<double> sums;
    for (int64_t first = 0; first < batch * count; first += count, log_probabilities += beams * vocabulary) {
        for (int64_t i = 0; i < count; ++i) {
            known[i] = log_probabilities[owners[first + i] * vocabulary + tokens[first + i]];
        }
        renormalise(known.data(), changes + first, owners + first, added + first, beams, count, sums);
    }
}

// Log-softmax of rows, in place.
FOR_EACH_PROCESSOR void fairbeam_log_softmax(float* scores, int64_t rows, int64_t width) {
    const int64_t whole = width / kLanes * kLanes;
    for (int64_t row = 0; row < rows; ++row, scores += width) {
        const float shift = log_sum(scores, width);
        for (int64_t i = 0; i < whole; i += kLanes) store(scores + i, load(scores + i) - shift);
        for (int64_t i = whole; i < width; ++i) scores[i] -= shift;
    }
}

// One number for each row: the logarithm of the sum of its exponentials.
FOR_EACH_PROCESSOR void fairbeam_log_sums(const float* scores, float* sums, int64_t rows, int64_t width) {
    for (int64_t row = 0; row < rows; ++row) sums[row] = log_sum(scores + row * width, width);
}

// fairbeam_topk_of_sums of log probabilities: scores less shifts, (batch, beams).
FOR_EACH_PROCESSOR void fairbeam_topk_of_logits(const float* scores, const float* shifts, const float* added,
                                                float* sums, int64_t* places, int64_t batch, int64_t beams,
                                                int64_t vocabulary, int64_t count) {
    for (int64_t i = 0; i < batch; ++i) {
        topk_of_sums(scores + i * beams * vocabulary, shifts + i * beams, added + i * beams, sums + i * count,
                     places + i * count, beams, vocabulary, count);
    }
}

// The highest sums of scores and their row's number, each sentence's the highest first; of equal ones the first first.
//   scores (batch, beams, vocabulary); added (batch, beams); sums and places (batch, count), places in beams * vocabulary
FOR_EACH_PROCESSOR void fairbeam_topk_of_sums(const float* scores, const float* added, float* sums, int64_t* places,
                                              int64_t batch, int64_t beams, int64_t vocabulary, int64_t count) {
    for (int64_t sentence = 0; sentence < batch; ++sentence, scores += beams * vocabulary, added += beams) {
        topk_of_sums(scores, nullptr, added, sums + sentence * count, places + sentence * count, beams, vocabulary, count);
    }
}

// Token vectors, scaled, plus position vectors: tokens (count), of which as many in a row have the same number as there
// are numbers fewer. No product is contracted with a sum, so that the numbers are torch's.
__attribute__((optimize("fp-contract=off"))) void fairbeam_embed(const int64_t* tokens, const float* vectors,
                                                                 const int64_t* numbers, const float* positions,
                                                                 float* out, int64_t count, int64_t different,
                                                                 int64_t width, float scale) {
    for (int64_t i = 0; i < count; ++i, out += width) {
        const float* vector = vectors + tokens[i] * width;
        const float* position = positions + numbers[i / (count / different)] * width;
        for (int64_t j = 0; j < width; ++j) out[j] = vector[j] * scale + position[j];
    }
}

// Histories, (batch, beams, steps), with the slots of one more step behind them, of which the first beam has the first.
void fairbeam_append_slots(const int32_t* history, int32_t* out, int64_t batch, int64_t beams, int64_t steps,
                           int64_t first) {
    for (int64_t row = 0; row < batch * beams; ++row, history += steps, out += steps + 1) {
        std::copy_n(history, steps, out);
        out[steps] = static_cast<int32_t>(first + row % beams);
    }
}

// Which candidates end their hypotheses: totals, tokens, and ends (batch, width); places of the first beams that were
// ignored end nothing.
void fairbeam_ended(const float* totals, const int64_t* tokens, const uint8_t* ignored, uint8_t* ends, int64_t batch,
                    int64_t beams, int64_t width, int64_t eos) {
    for (int64_t row = 0; row < batch; ++row, totals += width, tokens += width, ends += width, ignored += beams) {
        for (int64_t i = 0; i < width; ++i) {
            ends[i] = tokens[i] == eos && totals[i] > -kInfinity && !(i < beams && ignored[i]);
        }
    }
}

// The first beams of a sentence's candidates that go on, and, where too few do, others, which leave the place empty.
//   ends (batch, width); ignored, chosen, and empty (batch, beams)
void fairbeam_survivors(const uint8_t* ends, const uint8_t* ignored, int64_t* chosen, uint8_t* empty, int64_t batch,
                        int64_t beams, int64_t width) {
    for (int64_t row = 0; row < batch; ++row, ends += width, ignored += beams, chosen += beams, empty += beams) {
        int64_t found = 0;
        for (const bool out : {false, true}) {
            for (int64_t i = 0; i < width && found < beams; ++i) {
                if ((ends[i] || (i < beams && ignored[i])) == out) {
                    chosen[found] = i;
                    empty[found++] = out;
                }
            }
        }
    }
}

// Every hypothesis becomes its parent with one token more.
//   tokens (batch, beams, capacity), of which filled are there; history (batch, beams, room), of which one fewer is
//   parents, added, totals (batch, beams)
void fairbeam_extend(int64_t* tokens, float* history, const int64_t* parents, const int64_t* added,
                     const float* totals, int64_t batch, int64_t beams, int64_t capacity, int64_t room,
                     int64_t filled) {
    std::vector<int64_t> before(beams * filled);
    std::vector<float> running(beams * filled);
    for (int64_t row = 0; row < batch; ++row, parents += beams, added += beams, totals += beams) {
        int64_t* own = tokens + row * beams * capacity;
        float* past = history + row * beams * room;
        for (int64_t beam = 0; beam < beams; ++beam) {
            std::copy_n(own + parents[beam] * capacity, filled, &before[beam * filled]);
            std::copy_n(past + parents[beam] * room, filled - 1, &running[beam * filled]);
        }
        for (int64_t beam = 0; beam < beams; ++beam) {
            std::copy_n(&before[beam * filled], filled, own + beam * capacity);
            own[beam * capacity + filled] = added[beam];
            std::copy_n(&running[beam * filled], filled - 1, past + beam * room);
            past[beam * room + filled - 1] = totals[beam];
        }
    }
}

#ifdef FAIRBEAM_X86

int fairbeam_has_vnni() {
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

}  // extern "C"

namespace {

constexpr int64_t kPanel = 64;  // outputs whose weights lie side by side
constexpr int kTile = 6;        // rows whose sums are held in registers: 6 x 4 of 32
constexpr int64_t kBlock = 48;  // rows made whole numbers at a time
constexpr int64_t kTogether = 192;  // rows that pass all layers before others do, so that they stay in the cache

struct Row {
    float scale, middle;  // an input is about scale * integer + middle
    int32_t sum;          // of the integers
};

INLINE WITH_VNNI __mmask16 first_of(int64_t count) {
    return count >= 16 ? 0xFFFF : count > 0 ? (1u << count) - 1 : 0;
}

// A row as whole numbers of [-most, most], 8 bits wide or 16, and zeros behind them.
template <typename Whole>
WITH_VNNI Row quantise(const float* x, Whole* values, int64_t inputs, int64_t padded, int32_t most) {
    __m512 low = _mm512_set1_ps(kInfinity), high = _mm512_set1_ps(-kInfinity);
    for (int64_t i = 0; i < inputs; i += 16) {
        const __mmask16 some = first_of(inputs - i);
        const __m512 part = _mm512_maskz_loadu_ps(some, x + i);
        low = _mm512_mask_min_ps(low, some, low, part);
        high = _mm512_mask_max_ps(high, some, high, part);
    }
    const float least = _mm512_reduce_min_ps(low), largest = _mm512_reduce_max_ps(high);
    Row row{(largest - least) / static_cast<float>(2 * most), 0.5f * (largest + least), 0};
    const __m512 inverse = _mm512_set1_ps(row.scale > 0 ? 1.0f / row.scale : 0.0f), middle = _mm512_set1_ps(row.middle);
    __m512i total = _mm512_setzero_si512();
    for (int64_t i = 0; i < padded; i += 16) {
        const __mmask16 some = first_of(inputs - i);
        const __m512 part = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(some, x + i), middle), inverse);
        const __m512i whole = _mm512_maskz_cvtps_epi32(some, part);
        total = _mm512_add_epi32(total, whole);
        if constexpr (sizeof(Whole) == 1) {
            _mm_storeu_si128(reinterpret_cast<__m128i*>(values + i), _mm512_cvtsepi32_epi8(whole));
        } else {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + i), _mm512_cvtsepi32_epi16(whole));
        }
    }
    row.sum = _mm512_reduce_add_epi32(total);
    return row;
}

// A linear layer. Four bytes of an input row, 4 numbers or 2, meet 64 outputs' at a time.
struct Linear {
    const char* values;   // (panels, groups, 64 outputs, 4 bytes): bytes are 128 more than the integers, so not negative
    const float* scales;  // of each output, padded to whole panels
    const float* sums;    // scale times the sum of the output's integers
    const float* bias;
    int64_t inputs, outputs, most, activation;

    bool wide() const { return most > 127; }
    int64_t groups() const { return wide() ? (inputs + 1) / 2 : (inputs + 3) / 4; }
};

// sums + w x. Some compilers wrap the intrinsics in copies that halve their speed.
template <bool kWide>
INLINE WITH_VNNI __m512i multiply_add(__m512i sums, __m512i w, __m512i x) {
    if constexpr (kWide) {
        __asm__("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(w), "v"(x));
    } else {
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(w), "v"(x));
    }
    return sums;
}

template <bool kWide, int kRows>
INLINE WITH_VNNI void tile(const char* rows, int64_t stride, const Row* facts, const Linear& layer, int64_t panel,
                           float* out) {
    __m512i sums[kRows][4];
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) sums[r][j] = _mm512_set1_epi32(kWide ? 0 : -128 * facts[r].sum);
    }
    const int64_t groups = layer.groups();
    const char* values = layer.values + panel * groups * 4 * kPanel;
    for (int64_t group = 0; group < groups; ++group, values += 4 * kPanel) {
        __m512i w[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) w[j] = _mm512_loadu_si512(values + 64 * j);
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
            int32_t four;
            std::memcpy(&four, rows + r * stride + 4 * group, 4);
            const __m512i x = _mm512_set1_epi32(four);
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) sums[r][j] = multiply_add<kWide>(sums[r][j], w[j], x);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const int64_t first = panel * kPanel + 16 * j;
        const __mmask16 some = first_of(layer.outputs - first);
        const __m512 scales = _mm512_loadu_ps(layer.scales + first), shifts = _mm512_loadu_ps(layer.sums + first);
        const __m512 bias = _mm512_loadu_ps(layer.bias + first);
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
            const __m512 base = _mm512_fmadd_ps(shifts, _mm512_set1_ps(facts[r].middle), bias);
            const __m512 factor = _mm512_mul_ps(scales, _mm512_set1_ps(facts[r].scale));
            __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][j]), factor, base);
            if (layer.activation == kRelu) y = _mm512_max_ps(y, _mm512_setzero_ps());
            _mm512_mask_storeu_ps(out + r * layer.outputs + first, some, y);
        }
    }
}

// At most kBlock rows.
template <bool kWide>
WITH_VNNI void block_product(const float* x, const Linear& layer, float* out, int64_t rows, char* values) {
    using Whole = std::conditional_t<kWide, int16_t, int8_t>;
    const int64_t padded = (layer.inputs + 15) / 16 * 16, stride = padded * sizeof(Whole);
    Row facts[kBlock];
    for (int64_t r = 0; r < rows; ++r) {
        facts[r] = quantise(x + r * layer.inputs, reinterpret_cast<Whole*>(values + r * stride), layer.inputs, padded,
                            static_cast<int32_t>(layer.most));
    }
    const int64_t panels = (layer.outputs + kPanel - 1) / kPanel;
    for (int64_t panel = 0; panel < panels; ++panel) {
        for (int64_t first = 0; first < rows; first += kTile) {
            const char* a = values + first * stride;
            float* y = out + first * layer.outputs;
            switch (std::min<int64_t>(kTile, rows - first)) {
                case 1: tile<kWide, 1>(a, stride, facts + first, layer, panel, y); break;
                case 2: tile<kWide, 2>(a, stride, facts + first, layer, panel, y); break;
                case 3: tile<kWide, 3>(a, stride, facts + first, layer, panel, y); break;
                case 4: tile<kWide, 4>(a, stride, facts + first, layer, panel, y); break;
                case 5: tile<kWide, 5>(a, stride, facts + first, layer, panel, y); break;
                default: tile<kWide, 6>(a, stride, facts + first, layer, panel, y); break;
            }
        }
    }
}

}  // namespace

extern "C" {

// activation(x W^T + b): x (rows, inputs), out (rows, outputs).
WITH_VNNI void fairbeam_integer_product(const float* x, float* out, const Linear* layer, int64_t rows) {
    static thread_local std::vector<char> values;
    values.resize(kBlock * ((layer->inputs + 15) / 16 * 16) * 2);
    for (int64_t first = 0; first < rows; first += kBlock) {
        const int64_t some = std::min(kBlock, rows - first);
        const auto product = layer->wide() ? block_product<true> : block_product<false>;
        product(x + first * layer->inputs, *layer, out + first * layer->outputs, some, values.data());
    }
    if (layer->activation > kRelu) fairbeam_activate(out, rows * layer->outputs, layer->activation);
}

struct Norm {
    const float *gain, *bias;
    float epsilon;
};

// A layer of a Transformer. The norms stand before the blocks or behind the sums; an encoder has no cross-attention.
struct Layer {
    const Linear *qkv, *output, *query, *cross_output, *inner, *outer;
    Norm self_norm, cross_norm, feed_forward_norm;
    int64_t heads, width, norm_before;
    float self_scale, cross_scale;
};

// What the layers of a step read and add to, each its own, and in what they are alike: see fairbeam_attend_to_slots and
// fairbeam_attend. Keys and values of the source are (sentences, heads, length, width), the mask (sentences, heads, length).
struct Step {
    float* const* storages;
    const float *const *keys, *const *values;
    const int32_t* slots;
    const int64_t *rows, *source_rows, *starts;
    const float* mask;
    int64_t layers, batch, beams, sentences, capacity, steps, start, length;
};

}  // extern "C"

namespace {

// Buffers of a thread that grow and stay.
struct Scratch {
    std::vector<float> seen, projected, context, block;

    void resize(int64_t rows, int64_t model, int64_t widest) {
        seen.resize(std::max<size_t>(seen.size(), rows * model));
        projected.resize(std::max<size_t>(projected.size(), rows * widest));
        context.resize(std::max<size_t>(context.size(), rows * widest));
        block.resize(std::max<size_t>(block.size(), rows * model));
    }
};

Scratch& scratch(const Layer& layer, int64_t rows, int64_t model) {
    static thread_local Scratch buffers;
    buffers.resize(rows, model, std::max(layer.qkv->outputs, layer.inner->outputs));
    return buffers;
}

// What a block sees of the residual stream.
const float* enter(const Layer& layer, const Norm& norm, const float* x, int64_t rows, int64_t model, float* seen) {
    if (!layer.norm_before) return x;
    fairbeam_add_norm(x, nullptr, norm.gain, norm.bias, seen, rows, model, norm.epsilon);
    return seen;
}

// The residual stream after a block.
void leave(const Layer& layer, const Norm& norm, const float* x, const float* block, float* out, int64_t rows,
           int64_t model) {
    if (layer.norm_before) {
        for (int64_t i = 0; i < rows * model; ++i) out[i] = x[i] + block[i];
    } else {
        fairbeam_add_norm(x, block, norm.gain, norm.bias, out, rows, model, norm.epsilon);
    }
}

void feed_forward(const Layer& layer, float* stream, int64_t rows, int64_t model, Scratch& buffers) {
    for (int64_t first = 0; first < rows; first += kBlock) {  // what is between stays in the cache
        const int64_t some = std::min(kBlock, rows - first);
        float* x = stream + first * model;
        const float* seen = enter(layer, layer.feed_forward_norm, x, some, model, buffers.seen.data());
        fairbeam_integer_product(seen, buffers.projected.data(), layer.inner, some);
        fairbeam_integer_product(buffers.projected.data(), buffers.block.data(), layer.outer, some);
        leave(layer, layer.feed_forward_norm, x, buffers.block.data(), x, some, model);
    }
}

}  // namespace

extern "C" {

// A decoding step of some sentences through all layers.
static void decoder_layers(float* x, const Layer* const* layers, const Step* step) {
    const int64_t rows = step->batch * step->beams;
    for (int64_t number = 0; number < step->layers; ++number) {
        const Layer& layer = *layers[number];
        const int64_t model = layer.qkv->inputs;
        Scratch& buffers = scratch(layer, rows, model);
        float *projected = buffers.projected.data(), *context = buffers.context.data(), *block = buffers.block.data();
        const float* seen = enter(layer, layer.self_norm, x, rows, model, buffers.seen.data());
        fairbeam_integer_product(seen, projected, layer.qkv, rows);
        fairbeam_attend_to_slots(projected, step->storages[number], step->slots, step->rows, step->starts, context,
                                 step->batch, step->beams, layer.heads, layer.width, step->sentences, step->capacity,
                                 step->steps, step->start, layer.self_scale);
        fairbeam_integer_product(context, block, layer.output, rows);
        leave(layer, layer.self_norm, x, block, x, rows, model);

        seen = enter(layer, layer.cross_norm, x, rows, model, buffers.seen.data());
        fairbeam_integer_product(seen, projected, layer.query, rows);
        const int64_t head_stride = step->length * layer.width;
        fairbeam_attend(projected, step->keys[number], step->values[number], step->mask, step->source_rows, context,
                        step->batch, step->beams, layer.heads, layer.width, step->length, layer.query->outputs,
                        layer.heads * head_stride, head_stride, layer.width, layer.heads * step->length,
                        layer.cross_scale);
        fairbeam_integer_product(context, block, layer.cross_output, rows);
        leave(layer, layer.cross_norm, x, block, x, rows, model);
        feed_forward(layer, x, rows, model, buffers);
    }
}

// One decoding step through all layers: x (batch, beams, model), in place.
void fairbeam_decoder_layers(float* x, const Layer* const* layers, const Step* step) {
    const int64_t group = std::max<int64_t>(1, kTogether / step->beams);
    for (int64_t first = 0; first < step->batch; first += group) {
        Step part = *step;
        part.batch = std::min(group, step->batch - first);
        part.slots += first * step->beams * step->steps;
        part.rows += first;
        part.source_rows += first;
        if (part.starts) part.starts += first;
        decoder_layers(x + first * step->beams * layers[0]->qkv->inputs, layers, &part);
    }
}

// Some sequences through all layers of an encoder.
static void encoder_layers(float* x, const Layer* const* layers, const float* mask, const int64_t* numbers,
                             int64_t count, int64_t batch, int64_t length) {
    const int64_t rows = batch * length;
    for (int64_t number = 0; number < count; ++number) {
        const Layer& layer = *layers[number];
        const int64_t model = layer.qkv->inputs, inner = layer.heads * layer.width;
        Scratch& buffers = scratch(layer, rows, model);
        float *projected = buffers.projected.data(), *context = buffers.context.data(), *block = buffers.block.data();
        const float* seen = enter(layer, layer.self_norm, x, rows, model, buffers.seen.data());
        fairbeam_integer_product(seen, projected, layer.qkv, rows);
        fairbeam_attend(projected, projected + inner, projected + 2 * inner, mask, numbers, context, batch, length,
                        layer.heads, layer.width, length, 3 * inner, length * 3 * inner, layer.width, 3 * inner,
                        layer.heads * length, layer.self_scale);
        fairbeam_integer_product(context, block, layer.output, rows);
        leave(layer, layer.self_norm, x, block, x, rows, model);
        feed_forward(layer, x, rows, model, buffers);
    }
}

// Whole sequences through all layers of an encoder: x (batch, length, model), in place; mask (batch, heads, length) or
// null; numbers 0 to batch.
void fairbeam_encoder_layers(float* x, const Layer* const* layers, const float* mask, const int64_t* numbers,
                             int64_t count, int64_t batch, int64_t length) {
    const int64_t group = std::max<int64_t>(1, kTogether / length);
    for (int64_t first = 0; first < batch; first += group) {
        encoder_layers(x + first * length * layers[0]->qkv->inputs, layers,
                       mask ? mask + first * layers[0]->heads * length : nullptr, numbers, count,
                       std::min(group, batch - first), length);
    }
}

// What rounding to integers took from some scores that fairbeam_integer_product made of bytes: exact minus rounded, without bias.
//   x (batch, beams, inputs); exact (symbols, inputs) and the scales that its columns were rounded with
//   owners, columns, ids (batch, count): of which beam, of which column of the product, and which row of exact that is
WITH_VNNI void fairbeam_int8_rounding(const float* x, const float* exact, const float* scales, const int64_t* owners,
                                      const int64_t* columns, const int64_t* ids, float* taken, int64_t batch,
                                      int64_t beams, int64_t count, int64_t inputs) {
    const int64_t stride = (inputs + 15) / 16 * 16;
    std::vector<int8_t> values(beams * stride);
    std::vector<Row> facts(beams);
    for (int64_t sentence = 0; sentence < batch; ++sentence) {
        const float* rows = x + sentence * beams * inputs;
        for (int64_t beam = 0; beam < beams; ++beam) {
            facts[beam] = quantise(rows + beam * inputs, values.data() + beam * stride, inputs, stride, 127);
        }
        for (int64_t i = sentence * count; i < (sentence + 1) * count; ++i) {
            const int64_t beam = beams == 1 ? 0 : owners[i];
            const float *row = rows + beam * inputs, *weight = exact + ids[i] * inputs;
            const __m512 scale = _mm512_set1_ps(scales[columns[i]]);
            __m512 right = _mm512_setzero_ps(), rounded = right;
            for (int64_t j = 0; j < inputs; j += 16) {
                const __mmask16 some = first_of(inputs - j);
                const __m512 w = _mm512_maskz_loadu_ps(some, weight + j);
                const __m512 nearest = _mm512_mul_ps(_mm512_roundscale_ps(_mm512_div_ps(w, scale), 0), scale);
                const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(&values[beam * stride + j]));
                const __m512 q = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)),
                                                 _mm512_set1_ps(facts[beam].scale), _mm512_set1_ps(facts[beam].middle));
                right = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(some, row + j), w, right);
                rounded = _mm512_fmadd_ps(q, nearest, rounded);
            }
            taken[i] = _mm512_reduce_add_ps(_mm512_sub_ps(right, rounded));
        }
    }
}

// Columns of scores that are a part of all symbols.
struct Narrowed {
    const int64_t* symbols;  // of each column; the last one stands for all that have none
    const float* added;      // (batch, columns), to their scores
    const Linear* moments;   // of the scores of symbols without a column: their mean, and what squared makes the variance
};

// Scores of all columns of some sentences, the last of which is what symbols without one would add to the softmax.
static void narrow(const float* features, float* logits, const Narrowed& narrowed, int64_t first, int64_t batch,
                   int64_t beams, int64_t columns) {
    static thread_local std::vector<float> moments;
    const int64_t rows = batch * beams, width = narrowed.moments->outputs;
    moments.resize(std::max<size_t>(moments.size(), rows * width));
    fairbeam_integer_product(features, moments.data(), narrowed.moments, rows);
    for (int64_t row = 0; row < rows; ++row) {
        const float *own = &moments[row * width], *added = narrowed.added + (first + row / beams) * columns;
        float* scores = logits + row * columns;
        double variance = 0;
        for (int64_t i = 1; i < width; ++i) variance += own[i] * own[i];
        scores[columns - 1] = own[0] + 0.5f * static_cast<float>(variance);
        for (int64_t i = 0; i < columns; ++i) scores[i] += added[i];
    }
}

// The best continuations of beams, from the features that bytes make scores of: scores, softmax, what is closed to all,
// the highest, and what rounding took from them, for a few sentences at a time, whose scores stay in the cache.
//   narrowed: null where each symbol has its column
//   x (batch, beams, inputs); exact (outputs, inputs) that the layer was rounded from; totals (batch, beams)
//   closed: outputs that no beam may take; sums, parents (beams) and chosen (outputs) (batch, count), the best first
void fairbeam_best_continuations(const float* x, const Linear* layer, const float* exact, const float* totals,
                                 const int64_t* closed, const Narrowed* narrowed, float* sums, int64_t* parents,
                                 int64_t* chosen, int64_t batch, int64_t beams, int64_t count, int64_t closed_count) {
    constexpr int64_t kCache = 640 << 10;
    const int64_t outputs = layer->outputs, inputs = layer->inputs;
    const int64_t group = std::max<int64_t>(1, kCache / static_cast<int64_t>(beams * outputs * sizeof(float)));
    const int64_t wanted = std::min(2 * count, beams * outputs);  // rounding may have changed their order
    static thread_local std::vector<float> logits;
    logits.resize(std::max<size_t>(logits.size(), group * beams * outputs));
    std::vector<float> shifts(group * beams), found(group * wanted), known(wanted), changes(group * wanted), added(wanted);
    std::vector<int64_t> where(group * wanted), owners(group * wanted), tokens(group * wanted), order(wanted);
    std::vector<int64_t> symbols(group * wanted);
    std::vector<double> scratch;
    for (int64_t first = 0; first < batch; first += group) {
        const int64_t some = std::min(group, batch - first), rows = some * beams;
        const float* features = x + first * beams * inputs;
        fairbeam_integer_product(features, logits.data(), layer, rows);
        if (narrowed) narrow(features, logits.data(), *narrowed, first, some, beams, outputs);
        fairbeam_log_sums(logits.data(), shifts.data(), rows, outputs);
        for (int64_t row = 0; row < rows; ++row) {
            for (int64_t i = 0; i < closed_count; ++i) logits[row * outputs + closed[i]] = -kInfinity;
        }
        fairbeam_topk_of_logits(logits.data(), shifts.data(), totals + first * beams, found.data(), where.data(), some,
                                beams, outputs, wanted);
        for (int64_t i = 0; i < some * wanted; ++i) {
            owners[i] = where[i] / outputs;
            tokens[i] = where[i] % outputs;
            symbols[i] = narrowed ? narrowed->symbols[tokens[i]] : tokens[i];
        }
        fairbeam_int8_rounding(features, exact, layer->scales, owners.data(), tokens.data(), symbols.data(),
                               changes.data(), some, beams, wanted, inputs);
        for (int64_t sentence = 0; sentence < some; ++sentence) {
            const int64_t at = sentence * wanted;
            for (int64_t i = 0; i < wanted; ++i) {
                const int64_t row = sentence * beams + owners[at + i];
                known[i] = logits[row * outputs + tokens[at + i]] - shifts[row];
                order[i] = i;
            }
            renormalise(known.data(), &changes[at], &owners[at], added.data(), beams, wanted, scratch);
            for (int64_t i = 0; i < wanted; ++i) found[at + i] += added[i];
            std::stable_sort(order.begin(), order.end(),
                             [&](int64_t a, int64_t b) { return found[at + a] > found[at + b]; });
            for (int64_t i = 0; i < count; ++i) {
                const int64_t place = (first + sentence) * count + i, taken = i < wanted ? at + order[i] : 0;
                sums[place] = i < wanted ? found[taken] : -kInfinity;
                parents[place] = i < wanted ? owners[taken] : 0;
                chosen[place] = i < wanted ? tokens[taken] : 0;
            }
        }
    }
}

// A search that goes on by itself until something is to be looked at: the hypotheses it continues, and what scores them.
struct Search {
    const float *vectors, *positions, *exact;  // of symbols and of places; what the head was rounded from
    const Norm* final_norm;                    // or null
    const Linear* head;
    const Narrowed* narrowed;  // or null; tokens are columns then
    int64_t* tokens;  // (batch, beams, room), of which filled are there
    float *totals, *history;  // (batch, beams) and (batch, beams, room - 1), of which one fewer is
    uint8_t* ignored;         // see fairbeam_survivors
    int32_t* slots;           // (batch, beams, steps), with room for as many steps more as may be made
    const int64_t* closed;
    float* sums;               // candidates of the last step, (batch, 2 beams)
    int64_t *parents, *chosen;
    int64_t room, filled, closed_count, eos, most, position, last_position;
    float scale;
};

// Steps of beam search, until one of a sentence's first candidates ends or most are made; how many were made. The last
// one's candidates are left to who called; before it, hypotheses are continued with the best that do not end.
//   step: of its beams all are one at the first of all steps; its slots and start are not read
int64_t fairbeam_search(const Layer* const* layers, const Step* begun, const Search* search) {
    Step step = *begun;
    const int64_t batch = step.batch, beams = step.beams, width = 2 * beams, model = layers[0]->qkv->inputs;
    const int64_t room = search->room;
    std::vector<int32_t> slots(search->slots, search->slots + batch * beams * step.steps), longer;
    std::vector<float> x(batch * beams * model), before(batch * beams), totals(batch * beams);
    std::vector<int64_t> latest(batch * beams), picked(batch * beams), parents(batch * beams), added(batch * beams);
    std::vector<uint8_t> ends(batch * width), empty(batch * beams);
    for (int64_t made = 0, filled = search->filled;; ++filled) {
        const int64_t number = begun->steps + made, few = number ? beams : 1;
        for (int64_t row = 0; row < batch * few; ++row) {
            const int64_t token = search->tokens[row * (beams / few) * room + filled - 1];
            latest[row] = search->narrowed ? search->narrowed->symbols[token] : token;
            before[row] = search->totals[row * (beams / few)];
        }
        const int64_t position = std::min(search->position + made, search->last_position);
        fairbeam_embed(latest.data(), search->vectors, &position, search->positions, x.data(), batch * few, 1, model,
                       search->scale);
        step.start = number ? 1 + (number - 1) * beams : 0;
        step.steps = number + 1;
        step.beams = few;
        longer.resize(batch * few * step.steps);
        fairbeam_append_slots(slots.data(), longer.data(), batch, few, number, step.start);
        step.slots = longer.data();
        fairbeam_decoder_layers(x.data(), layers, &step);
        if (const Norm* norm = search->final_norm) {
            fairbeam_add_norm(x.data(), nullptr, norm->gain, norm->bias, x.data(), batch * few, model, norm->epsilon);
        }
        fairbeam_best_continuations(x.data(), search->head, search->exact, before.data(), search->closed,
                                    search->narrowed, search->sums, search->parents, search->chosen, batch, few, width,
                                    search->closed_count);
        fairbeam_ended(search->sums, search->chosen, search->ignored, ends.data(), batch, beams, width, search->eos);
        bool stops = ++made == search->most;
        for (int64_t row = 0; row < batch; ++row) {
            for (int64_t i = 0; i < beams; ++i) stops |= ends[row * width + i] != 0;
        }
        if (few < beams) longer.assign(batch * beams, 0);  // all beams hold slot 0
        if (stops) {
            std::copy(longer.begin(), longer.end(), search->slots);
            return made;
        }
        fairbeam_survivors(ends.data(), search->ignored, picked.data(), empty.data(), batch, beams, width);
        std::copy(empty.begin(), empty.end(), search->ignored);
        slots.resize(longer.size());
        for (int64_t row = 0; row < batch * beams; ++row) {
            const int64_t first = row / beams * beams, candidate = row / beams * width + picked[row];
            parents[row] = search->parents[candidate];
            added[row] = search->chosen[candidate];
            totals[row] = search->sums[candidate];
            std::copy_n(&longer[(first + parents[row]) * step.steps], step.steps, &slots[row * step.steps]);
        }
        fairbeam_extend(search->tokens, search->history, parents.data(), added.data(), totals.data(), batch, beams, room,
                        room - 1, filled);
        std::copy(totals.begin(), totals.end(), search->totals);
    }
}

#else

int fairbeam_has_vnni() { return 0; }

#endif

}  // extern "C"
