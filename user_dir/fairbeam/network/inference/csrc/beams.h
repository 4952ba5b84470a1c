// Bookkeeping of beam search: candidates, which of them end or survive, and their histories.
#pragma once

#include <cstdint>
#include <vector>

namespace fairbeam {

// The highest sums of a sentence's scores and their row's number, the highest first; of equal ones the first first.
struct TopOfSums {
    const float* scores;  // (batch, beams, vocabulary)
    const float* shifts;  // (batch, beams), subtracted from the scores first; null for nothing
    const float* added;   // (batch, beams)
    float* sums;          // (batch, count), written
    int64_t* indices;     // (batch, count), written: indices into (beams * vocabulary)
    int64_t batch, beams, vocabulary, count;
};
void top_of_sums(const TopOfSums& a);

// Changes of a few log probabilities whose logits change.
struct Renormalise {
    const float* log_probs;           // (batch, beams, vocabulary)
    const float* logit_deltas;        // (batch, count)
    const int64_t *parents, *tokens;  // (batch, count): beams and tokens of the logits
    float* deltas;                    // (batch, count), written: changes of the log probabilities
    int64_t batch, beams, vocabulary, count;
};
void renormalise(const Renormalise& a);

// Do the same for one sentence, whose log probabilities of those tokens are `known`; `sums` is scratch memory.
void renormalise_one(const float* known, const float* logit_deltas, const int64_t* parents, float* deltas,
                     int64_t beams, int64_t count, std::vector<double>& sums);

// Candidates that end their hypotheses.
struct FindEnded {
    const float* totals;     // (batch, width)
    const int64_t* tokens;   // (batch, width)
    const uint8_t* ignored;  // (batch, beams): candidates, of the first `beams`, that end nothing
    uint8_t* ends;           // (batch, width), written
    int64_t batch, beams, width, eos;
};
void find_ended(const FindEnded& a);

// The first `beams` candidates of a sentence that go on, and, where too few do, others, which leave their place empty.
struct ChooseSurvivors {
    const uint8_t *ends, *ignored;  // (batch, width) and (batch, beams), as for FindEnded
    int64_t* chosen;                // (batch, beams), written: indices into the candidates
    uint8_t* empty;                 // (batch, beams), written
    int64_t batch, beams, width;
};
void choose_survivors(const ChooseSurvivors& a);

// Replacement of every hypothesis by its parent with one token more, in place.
struct ExtendBeams {
    int64_t* tokens;                 // (batch, beams, capacity), filled up to `filled`
    float* history;                  // (batch, beams, room), filled up to `filled` - 1
    const int64_t *parents, *added;  // (batch, beams)
    const float* totals;             // (batch, beams)
    int64_t batch, beams, capacity, room, filled;
};
void extend_beams(const ExtendBeams& a);

}  // namespace fairbeam
