// Plain beam search in one call: the candidates of a step, and several steps until a hypothesis ends.
#pragma once

#include <cstdint>

#include "int_gemm.h"
#include "layers.h"

namespace fairbeam {

// An 8-bit output projection, and the weight that it was quantized from, with which the logits of the best candidates
// are corrected.
struct OutputProjection {
    const IntegerLinear* layer;
    const float* exact_weight;  // (token ids, inputs)
};

// Columns of an output projection that computes logits of a part of the vocabulary.
struct ShortlistColumns {
    const int64_t* token_ids;  // (columns); the last column stands for all tokens without a column
    const float* added;        // (batch, columns), added to the logits
    // Layer for the moments of the logits of tokens without a column: the mean, and numbers whose squares add up to the
    // variance.
    const IntegerLinear* tail_moments;
};

// The best continuations of beams: logits, softmax, masked tokens, highest totals, and corrections of their rounding.
struct BestContinuations {
    const float* features;  // (batch, beams, dim): inputs of the projection
    const OutputProjection* projection;
    const ShortlistColumns* shortlist;  // null without a shortlist; with one, tokens below are columns
    const float* totals;                // (batch, beams): log probabilities of the hypotheses
    const int64_t* masked;              // (masked_count): tokens that may not follow
    float* best_totals;                 // (batch, count), written; best first
    int64_t *parents, *tokens;          // (batch, count), written: beam and token of each
    int64_t batch, beams, count, masked_count;
};

// Embedding before a decoder's layers.
struct TokenEmbedding {
    const float *vectors, *positions;       // (vocabulary, dim) and (positions, dim)
    int64_t first_position, last_position;  // row of the next step's position, and highest row of later ones
    float scale;                            // multiplies the token vectors
};

// Steps of beam search, until one of a sentence's first candidates ends or `max_steps` are made. Hypotheses are
// continued at all steps but the last, whose candidates are left to the caller.
struct BeamSearchSteps {
    const DecoderStep* step;  // x, slots, starts and start are not read; `steps` counts earlier steps
    const TokenEmbedding* embedding;
    const Norm* final_norm;  // norm behind the layers; null if there is none
    const OutputProjection* projection;
    const ShortlistColumns* shortlist;  // null without a shortlist
    const int64_t* masked;              // (masked_count): tokens that may not follow
    int64_t* tokens;                    // (batch, beams, room), filled up to `filled`
    float *totals, *history;            // (batch, beams) and (batch, beams, room - 1)
    uint8_t* ignored;                   // (batch, beams): beams left empty
    int32_t* slots;                     // (batch, beams, steps), with room for max_steps more
    float* best_totals;                 // (batch, 2 beams), written: candidates of the last step
    int64_t *parents, *chosen;          // (batch, 2 beams), written
    int64_t room, filled, masked_count, eos, max_steps;
    int64_t steps_made;  // written
};

#if FAIRBEAM_X86
void best_continuations(const BestContinuations& a);
void beam_search_steps(BeamSearchSteps& a);
#endif

}  // namespace fairbeam
