// Layer norms, softmax, activations and embeddings: operations on the rows of a matrix, one by one.
#pragma once

#include <cstdint>

namespace fairbeam {

// Layer normalisation (Ba et al., 2016) of a residual sum.
struct AddNorm {
    const float *x, *block;      // (rows, width); the norm is of x + block, or of x if block is null
    const float *weight, *bias;  // (width); the bias may be null
    float* out;                  // (rows, width), written; may be x
    int64_t rows, width;
    float epsilon;
};
void add_norm(const AddNorm& a);

// Log-softmax of rows in place.
struct LogSoftmax {
    float* scores;  // (rows, width)
    int64_t rows, width;
};
void log_softmax(const LogSoftmax& a);

// Write the logarithm of the sum of each row's exponentials to `sums`, (rows).
void log_sum_exps(const float* scores, float* sums, int64_t rows, int64_t width);

// Apply an activation to `count` numbers in place.
void activate(float* x, int64_t count, int64_t activation);

// Scaled token vectors plus position vectors.
struct Embed {
    const int64_t* tokens;        // (count) ids
    const float* vectors;         // (vocabulary, width)
    const int64_t* position_ids;  // (different): token i uses position_ids[i / (count / different)]
    const float* positions;       // (position ids, width)
    float* out;                   // (count, width), written
    int64_t count, different, width;
    float scale;  // multiplies the token vectors
};
void embed(const Embed& a);

}  // namespace fairbeam
