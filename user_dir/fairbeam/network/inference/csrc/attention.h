// Scaled dot-product attention (Vaswani et al., 2017) of decoding steps, to cache slots and to whole sequences.
#pragma once

#include <cstdint>

namespace fairbeam {

// Self-attention of one step: every beam attends to the cache slots of its own history. The keys and values of the
// latest tokens are stored first.
struct AttendToSlots {
    const float* projected;  // (batch, beams, 3, heads, head_dim): queries, keys and values of the latest tokens
    float* storage;          // (2, sentences, heads, capacity, head_dim): cached keys and values
    const int32_t* slots;    // (batch, beams, steps): slots of each history, after negative fillers if it is shorter
    const int64_t* rows;     // (batch): each sentence's row of the storage
    const int64_t* starts;   // (batch): first slot for each sentence's latest tokens; null if it is `start` for all
    float* context;          // (batch, beams, heads, head_dim), written
    int64_t batch, beams, heads, head_dim, sentences, capacity, steps, start;
    float scale;  // multiplies the scores
};
void attend_to_slots(const AttendToSlots& a);

// Attention of a sentence's queries to the same keys, with strides in floats.
struct Attend {
    const float* query;          // (batch, queries, query_stride); a row begins with (heads, head_dim)
    const float *keys, *values;  // head_dim floats at sentence, head and key strides
    const float* mask;           // added to the scores: `length` floats at mask_stride for each sentence; or null
    const int64_t* rows;         // (batch): each sentence's index into keys, values and mask
    float* context;              // (batch, queries, heads, head_dim), written
    int64_t batch, queries, heads, head_dim, length;
    int64_t query_stride, sentence_stride, head_stride, key_stride, mask_stride;
    float scale;
};
void attend(const Attend& a);

// Histories extended by the slots of one more step.
struct AppendSlots {
    const int32_t* history;  // (batch, beams, steps)
    int32_t* longer;         // (batch, beams, steps + 1), written; beam b's last slot is first + b
    int64_t batch, beams, steps, first;
};
void append_slots(const AppendSlots& a);

}  // namespace fairbeam
