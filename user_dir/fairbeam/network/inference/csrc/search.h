// Plain beam search in one call: the candidates of a step, and several steps until a hypothesis ends.
#pragma once

#include <cstdint>

#include "int_gemm.h"
#include "layers.h"
#include "rowwise.h"

namespace fairbeam {

// An 8-bit output projection, and the weight that it was quantized from, with which the logits of the best candidates
// are corrected.
struct OutputProjection {
    const IntegerLinear* layer;
    const float* exact_weight;  // (token ids, inputs)
};

// An output projection's columns where they are a part of the vocabulary.
struct ShortlistColumns {
    const int64_t* token_ids;  // (columns); the last column stands for all tokens that have none
    const float* added;        // (batch, columns), added to the logits
    // Moments of the logits of tokens without a column: their mean, and numbers whose squares add up to their variance.
    const IntegerLinear* tail_moments;
};

// The best continuations of beams: logits, softmax, masked tokens, the highest sums, and their exact logits.
struct BestContinuations {
    const float* features;  // (batch, beams, dim): inputs of the output projection
    const OutputProjection* projection;
    const ShortlistColumns* shortlist;  // or null; tokens below are columns then
    const float* totals;                // (batch, beams): log probabilities of the hypotheses
    const int64_t* masked;              // (masked_count): tokens that may not follow
    float* best_totals;                 // (batch, count), written, the best first
    int64_t *parents, *tokens;          // (batch, count), written: beams and tokens
    int64_t batch, beams, count, masked_count;
};

// What comes before a decoder's layers.
struct TokenEmbedding {
    const float *vectors, *positions;       // (vocabulary, dim) and (positions, dim)
    int64_t first_position, last_position;  // of the step to be made; later steps' are larger up to the last
    float scale;
};

// Steps of beam search, until one of a sentence's first candidates ends or `max_steps` are made. Hypotheses are
// continued at all steps but the last, whose candidates are left to the caller.
struct BeamSearchSteps {
    const DecoderStep* step;  // of which x, slots, starts and start are not read; steps are those made before
    const TokenEmbedding* embedding;
    const Norm* final_norm;  // behind the layers; or null
    const OutputProjection* projection;
    const ShortlistColumns* shortlist;  // or null
    const int64_t* masked;              // (masked_count): tokens that may not follow
    int64_t* tokens;                    // (batch, beams, room), the first `filled` of which are there
    float *totals, *history;            // (batch, beams) and (batch, beams, room - 1)
    uint8_t* ignored;                   // (batch, beams): places left empty
    int32_t* slots;                     // (batch, beams, steps), with room for max_steps more
    float* best_totals;                 // (batch, 2 beams), written: the last step's candidates
    int64_t *parents, *chosen;          // (batch, 2 beams), written
    int64_t room, filled, masked_count, eos, max_steps;
    int64_t steps_made;  // written
};

#if FAIRBEAM_X86
void best_continuations(const BestContinuations& a);
void beam_search_steps(BeamSearchSteps& a);
#endif

}  // namespace fairbeam
