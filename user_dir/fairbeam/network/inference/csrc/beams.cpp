#include "beams.h"

#include <algorithm>
#include <cmath>

#include "export.h"
#include "simd.h"

namespace fairbeam {
namespace {

// The best sums so far, in order.
struct Best {
    float* sums;
    int64_t* indices;
    int64_t wanted, found;

    INLINE bool is_full() const { return found == wanted; }

    INLINE void offer(float sum, int64_t index) {
        if (is_full() && !(sum > sums[wanted - 1])) return;
        int64_t at = is_full() ? wanted - 1 : found++;
        for (; at > 0 && sum > sums[at - 1]; --at) {
            sums[at] = sums[at - 1];
            indices[at] = indices[at - 1];
        }
        sums[at] = sum;
        indices[at] = index;
    }
};

// Offer a row's sums; blocks of four vectors whose maximum is too low are skipped.
INLINE void offer_row(Best& best, const float* row, float shift, float added, int64_t first_index, int64_t vocabulary) {
    constexpr int64_t kBlock = 4 * kLanes;
    int64_t first = 0;
    for (; first + kBlock <= vocabulary; first += kBlock) {
        if (best.is_full()) {
            const Floats high = max(max(load(row + first), load(row + first + kLanes)),
                                    max(load(row + first + 2 * kLanes), load(row + first + 3 * kLanes)));
            if (!((max_of(high) - shift) + added > best.sums[best.wanted - 1])) continue;
        }
        for (int64_t i = first; i < first + kBlock; ++i) best.offer((row[i] - shift) + added, first_index + i);
    }
    for (int64_t i = first; i < vocabulary; ++i) best.offer((row[i] - shift) + added, first_index + i);
}

INLINE void top_of_sums_kernel(const TopOfSums& a) {
    for (int64_t sentence = 0; sentence < a.batch; ++sentence) {
        Best best{a.sums + sentence * a.count, a.indices + sentence * a.count, a.count, 0};
        for (int64_t beam = 0; beam < a.beams; ++beam) {
            const int64_t row = sentence * a.beams + beam;
            offer_row(best, a.scores + row * a.vocabulary, a.shifts ? a.shifts[row] : 0.0f, a.added[row],
                      beam * a.vocabulary, a.vocabulary);
        }
    }
}

}  // namespace

FAIRBEAM_DISPATCH(top_of_sums, (const TopOfSums& a), (a))

// The other tokens' logits are taken not to change: those that do are most of what a beam's probabilities add up to.
void renormalise_one(const float* known, const float* logit_deltas, const int64_t* parents, float* deltas,
                     int64_t beams, int64_t count, std::vector<double>& sums) {
    sums.assign(beams, 0.0);
    for (int64_t i = 0; i < count; ++i) {
        sums[parents[i]] += std::exp(static_cast<double>(known[i])) * std::expm1(static_cast<double>(logit_deltas[i]));
    }
    for (double& sum : sums) sum = std::log1p(sum);
    for (int64_t i = 0; i < count; ++i) deltas[i] = logit_deltas[i] - static_cast<float>(sums[parents[i]]);
}

void renormalise(const Renormalise& a) {
    std::vector<float> known(a.count);
    std::vector<double> sums;
    for (int64_t sentence = 0; sentence < a.batch; ++sentence) {
        const int64_t first = sentence * a.count;
        const float* log_probs = a.log_probs + sentence * a.beams * a.vocabulary;
        for (int64_t i = 0; i < a.count; ++i) {
            known[i] = log_probs[a.parents[first + i] * a.vocabulary + a.tokens[first + i]];
        }
        renormalise_one(known.data(), a.logit_deltas + first, a.parents + first, a.deltas + first, a.beams, a.count,
                        sums);
    }
}

void find_ended(const FindEnded& a) {
    for (int64_t row = 0; row < a.batch; ++row) {
        const float* totals = a.totals + row * a.width;
        const int64_t* tokens = a.tokens + row * a.width;
        const uint8_t* ignored = a.ignored + row * a.beams;
        uint8_t* ends = a.ends + row * a.width;
        for (int64_t i = 0; i < a.width; ++i) {
            ends[i] = tokens[i] == a.eos && totals[i] > -kInfinity && !(i < a.beams && ignored[i]);
        }
    }
}

void choose_survivors(const ChooseSurvivors& a) {
    for (int64_t row = 0; row < a.batch; ++row) {
        const uint8_t *ends = a.ends + row * a.width, *ignored = a.ignored + row * a.beams;
        int64_t* chosen = a.chosen + row * a.beams;
        uint8_t* empty = a.empty + row * a.beams;
        int64_t found = 0;
        for (const bool out : {false, true}) {
            for (int64_t i = 0; i < a.width && found < a.beams; ++i) {
                if ((ends[i] || (i < a.beams && ignored[i])) == out) {
                    chosen[found] = i;
                    empty[found++] = out;
                }
            }
        }
    }
}

void extend_beams(const ExtendBeams& a) {
    const int64_t filled = a.filled;
    std::vector<int64_t> before(a.beams * filled);
    std::vector<float> running(a.beams * filled);
    for (int64_t row = 0; row < a.batch; ++row) {
        int64_t* tokens = a.tokens + row * a.beams * a.capacity;
        float* history = a.history + row * a.beams * a.room;
        for (int64_t beam = 0; beam < a.beams; ++beam) {
            const int64_t parent = a.parents[row * a.beams + beam];
            std::copy_n(tokens + parent * a.capacity, filled, &before[beam * filled]);
            std::copy_n(history + parent * a.room, filled - 1, &running[beam * filled]);
        }
        for (int64_t beam = 0; beam < a.beams; ++beam) {
            std::copy_n(&before[beam * filled], filled, tokens + beam * a.capacity);
            tokens[beam * a.capacity + filled] = a.added[row * a.beams + beam];
            std::copy_n(&running[beam * filled], filled - 1, history + beam * a.room);
            history[beam * a.room + filled - 1] = a.totals[row * a.beams + beam];
        }
    }
}

}  // namespace fairbeam

FAIRBEAM_EXPORT(top_of_sums, TopOfSums)
FAIRBEAM_EXPORT(renormalise, Renormalise)
FAIRBEAM_EXPORT(find_ended, FindEnded)
FAIRBEAM_EXPORT(choose_survivors, ChooseSurvivors)
FAIRBEAM_EXPORT(extend_beams, ExtendBeams)
