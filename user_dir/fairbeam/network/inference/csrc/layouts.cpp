// What Python compares before it uses the library: a hash of the sources, and where each struct's fields lie.

#include <cstddef>

#include "attention.h"
#include "beams.h"
#include "cpu.h"
#include "int_gemm.h"
#include "layers.h"
#include "rowwise.h"
#include "search.h"

#ifndef FAIRBEAM_SOURCE_HASH
#define FAIRBEAM_SOURCE_HASH ""
#endif
#define FAIRBEAM_QUERY extern "C" __attribute__((visibility("default")))

namespace fairbeam {
namespace {

struct Field {
    const char *structure, *name;
    int64_t structure_size, offset, size;
};

#define FIELD(S, name) \
    Field { #S, #name, sizeof(S), offsetof(S, name), sizeof(S::name) }

// FIELDS(S, a, b, ...) is FIELD(S, a), FIELD(S, b), ...: a macro that names itself is scanned again, up to 27 times.
#define FIELDS(...) SCAN_3(FIELDS_FROM(__VA_ARGS__))
#define FIELDS_FROM(S, name, ...) FIELD(S, name) __VA_OPT__(, FIELDS_AGAIN PARENTHESES(S, __VA_ARGS__))
#define FIELDS_AGAIN() FIELDS_FROM
#define PARENTHESES ()
#define SCAN_3(...) SCAN_2(SCAN_2(SCAN_2(__VA_ARGS__)))
#define SCAN_2(...) SCAN_1(SCAN_1(SCAN_1(__VA_ARGS__)))
#define SCAN_1(...) SCAN_0(SCAN_0(SCAN_0(__VA_ARGS__)))
#define SCAN_0(...) __VA_ARGS__

constexpr Field kFields[] = {

    FIELDS(AddNorm, x, block, weight, bias, out, rows, width, epsilon),
    FIELDS(LogSoftmax, scores, rows, width),
    FIELDS(Embed, tokens, vectors, position_ids, positions, out, count, different, width, scale),
    FIELDS(AttendToSlots, projected, storage, slots, rows, starts, context, batch, beams, heads, head_dim, sentences,
           capacity, steps, start, scale),
    FIELDS(Attend, query, keys, values, mask, rows, context, batch, queries, heads, head_dim, length, query_stride,
           sentence_stride, head_stride, key_stride, mask_stride, scale),
    FIELDS(AppendSlots, history, longer, batch, beams, steps, first),
    FIELDS(IntegerLinear, weight, scales, weight_sums, bias, inputs, outputs, qmax, activation),
    FIELDS(ApplyLinear, x, out, layer, rows),
    FIELDS(LogitDelta, x, exact_weight, scales, parents, columns, ids, deltas, batch, beams, count, inputs),
    FIELDS(Norm, weight, bias, epsilon),
    FIELDS(TransformerLayer, qkv, output, query, cross_output, up, down, self_norm, cross_norm, feed_forward_norm,
           heads, head_dim, norm_before, self_scale, cross_scale),
    FIELDS(DecoderStep, x, layers, storages, keys, values, mask, slots, rows, source_rows, starts, layer_count, batch,
           beams, sentences, capacity, steps, start, length),
    FIELDS(EncoderPass, x, layers, mask, layer_count, batch, length),
    FIELDS(TopOfSums, scores, shifts, added, sums, indices, batch, beams, vocabulary, count),
    FIELDS(Renormalise, log_probs, logit_deltas, parents, tokens, deltas, batch, beams, vocabulary, count),
    FIELDS(FindEnded, totals, tokens, ignored, ends, batch, beams, width, eos),
    FIELDS(ChooseSurvivors, ends, ignored, chosen, empty, batch, beams, width),
    FIELDS(ExtendBeams, tokens, history, parents, added, totals, batch, beams, capacity, room, filled),
    FIELDS(OutputProjection, layer, exact_weight),
    FIELDS(ShortlistColumns, token_ids, added, tail_moments),
    FIELDS(BestContinuations, features, projection, shortlist, totals, masked, best_totals, parents, tokens, batch,
           beams, count, masked_count),
    FIELDS(TokenEmbedding, vectors, positions, first_position, last_position, scale),
    FIELDS(BeamSearchSteps, step, embedding, final_norm, projection, shortlist, masked, tokens, totals, history,
           ignored, slots, best_totals, parents, chosen, room, filled, masked_count, eos, max_steps, steps_made),
};

}  // namespace
}  // namespace fairbeam

// Return the hash of the sources that the library was built from (source_hash.py).
FAIRBEAM_QUERY const char* fairbeam_source_hash() { return FAIRBEAM_SOURCE_HASH; }

// Return the field of this number, in the order of declaration; null behind the last.
FAIRBEAM_QUERY const fairbeam::Field* fairbeam_field(int64_t number) {
    constexpr int64_t count = sizeof fairbeam::kFields / sizeof *fairbeam::kFields;
    return number < count ? &fairbeam::kFields[number] : nullptr;
}

// Return whether linear layers in integers run natively here.
FAIRBEAM_QUERY int fairbeam_multiplies_integers() { return fairbeam::cpu_isa() >= fairbeam::Isa::kVnni; }
