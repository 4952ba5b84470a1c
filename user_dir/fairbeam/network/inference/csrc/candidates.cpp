#include <algorithm>
#include <vector>

#include "beams.h"
#include "export.h"
#include "rowwise.h"
#include "search.h"
#include "simd.h"

#if FAIRBEAM_X86

namespace fairbeam {
namespace {

constexpr int64_t kCacheBytes = 640 << 10;  // logits that are made at a time, so that they stay in the cache

// Candidates of a few sentences; twice as many as are wanted, because rounding may have changed their order.
struct Candidates {
    std::vector<float> totals, logit_deltas;                 // (sentences, count)
    std::vector<int64_t> indices, parents, columns, tokens;  // (sentences, count)

    explicit Candidates(int64_t size)
        : totals(size), logit_deltas(size), indices(size), parents(size), columns(size), tokens(size) {}
};

// Buffers for ranking one sentence's candidates by exact totals.
struct Ranking {
    std::vector<float> known, deltas;
    std::vector<int64_t> order;
    std::vector<double> sums;

    explicit Ranking(int64_t count) : known(count), deltas(count), order(count) {}
};

// Write the last column of some sentences' logits, an estimate of what tokens without a column would add to the
// softmax, and add the sentences' masks to all columns.
void complete_columns(const ShortlistColumns& shortlist, const float* features, float* logits, int64_t first_sentence,
                      int64_t sentences, int64_t beams, int64_t columns) {
    static thread_local std::vector<float> moments;
    const int64_t rows = sentences * beams, width = shortlist.tail_moments->outputs;
    moments.resize(std::max<size_t>(moments.size(), rows * width));
    apply_linear({.x = features, .out = moments.data(), .layer = shortlist.tail_moments, .rows = rows});
    for (int64_t row = 0; row < rows; ++row) {
        const float* own = &moments[row * width];
        const float* added = shortlist.added + (first_sentence + row / beams) * columns;
        float* scores = logits + row * columns;
        double variance = 0;
        for (int64_t i = 1; i < width; ++i) variance += own[i] * own[i];
        scores[columns - 1] = own[0] + 0.5f * static_cast<float>(variance);
        for (int64_t i = 0; i < columns; ++i) scores[i] += added[i];
    }
}

// Write the quantization errors of the candidates' logits.
void find_deltas(const BestContinuations& a, const float* features, Candidates& found, int64_t sentences,
                 int64_t count) {
    const IntegerLinear& layer = *a.projection->layer;
    for (int64_t i = 0; i < sentences * count; ++i) {
        found.parents[i] = found.indices[i] / layer.outputs;
        found.columns[i] = found.indices[i] % layer.outputs;
        found.tokens[i] = a.shortlist ? a.shortlist->token_ids[found.columns[i]] : found.columns[i];
    }
    logit_delta({.x = features,
                 .exact_weight = a.projection->exact_weight,
                 .scales = layer.scales,
                 .parents = found.parents.data(),
                 .columns = found.columns.data(),
                 .ids = found.tokens.data(),
                 .deltas = found.logit_deltas.data(),
                 .batch = sentences,
                 .beams = a.beams,
                 .count = count,
                 .inputs = layer.inputs});
}

// Rank the candidates of one sentence, which begin at `first`, by their exact totals, and write the best.
void rank(const BestContinuations& a, const float* logits, const float* shifts, Candidates& found, int64_t first,
          int64_t count, int64_t sentence, Ranking& ranking) {
    const int64_t outputs = a.projection->layer->outputs;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t beam = found.parents[first + i];
        ranking.known[i] = logits[beam * outputs + found.columns[first + i]] - shifts[beam];
        ranking.order[i] = i;
    }
    renormalise_one(ranking.known.data(), &found.logit_deltas[first], &found.parents[first], ranking.deltas.data(),
                    a.beams, count, ranking.sums);
    for (int64_t i = 0; i < count; ++i) found.totals[first + i] += ranking.deltas[i];
    std::stable_sort(ranking.order.begin(), ranking.order.end(),
                     [&](int64_t i, int64_t j) { return found.totals[first + i] > found.totals[first + j]; });
    for (int64_t i = 0; i < a.count; ++i) {
        const int64_t place = sentence * a.count + i, taken = i < count ? first + ranking.order[i] : 0;
        a.best_totals[place] = i < count ? found.totals[taken] : -kInfinity;
        a.parents[place] = i < count ? found.parents[taken] : 0;
        a.tokens[place] = i < count ? found.columns[taken] : 0;
    }
}

}  // namespace

void best_continuations(const BestContinuations& a) {
    const IntegerLinear& layer = *a.projection->layer;
    const int64_t outputs = layer.outputs, beams = a.beams, bytes = beams * outputs * sizeof(float);
    const int64_t group = std::max<int64_t>(1, kCacheBytes / bytes), count = std::min(2 * a.count, beams * outputs);
    static thread_local std::vector<float> logits;
    logits.resize(std::max<size_t>(logits.size(), group * beams * outputs));
    std::vector<float> shifts(group * beams);
    Candidates found(group * count);
    Ranking ranking(count);
    for (int64_t first = 0; first < a.batch; first += group) {
        const int64_t sentences = std::min(group, a.batch - first), rows = sentences * beams;
        const float* features = a.features + first * beams * layer.inputs;
        apply_linear({.x = features, .out = logits.data(), .layer = &layer, .rows = rows});
        if (a.shortlist) complete_columns(*a.shortlist, features, logits.data(), first, sentences, beams, outputs);
        log_sum_exps(logits.data(), shifts.data(), rows, outputs);
        for (int64_t row = 0; row < rows; ++row) {
            for (int64_t i = 0; i < a.masked_count; ++i) logits[row * outputs + a.masked[i]] = -kInfinity;
        }
        top_of_sums({.scores = logits.data(),
                     .shifts = shifts.data(),
                     .added = a.totals + first * beams,
                     .sums = found.totals.data(),
                     .indices = found.indices.data(),
                     .batch = sentences,
                     .beams = beams,
                     .vocabulary = outputs,
                     .count = count});
        find_deltas(a, features, found, sentences, count);
        for (int64_t i = 0; i < sentences; ++i) {
            rank(a, &logits[i * beams * outputs], &shifts[i * beams], found, i * count, count, first + i, ranking);
        }
    }
}

}  // namespace fairbeam

FAIRBEAM_EXPORT(best_continuations, BestContinuations)

#endif
