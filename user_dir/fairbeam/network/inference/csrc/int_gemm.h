// Linear layers in 8- and 16-bit integers, for processors with AVX-512 VNNI.
#pragma once

#include <cstdint>

#include "cpu.h"

namespace fairbeam {

constexpr int64_t kPanel = 64;  // outputs whose weights lie side by side
constexpr int64_t kBlock = 48;  // rows that are quantized at a time

// activation(x W^T + bias) with a weight of integers: each output has a scale. Four bytes of an input row, 4 integers
// or 2, meet those of 64 outputs at a time. Arrays of outputs are padded to whole panels.
struct IntegerLinear {
    const char* weight;   // (panels, groups, 64 outputs, 4 bytes); bytes are 128 more than the integers, so unsigned
    const float* scales;  // of each output
    const float* weight_sums;  // scale times the sum of the output's integers
    const float* bias;
    int64_t inputs, outputs;
    int64_t qmax;        // the highest integer: 127 for bytes, up to 32767 for 16 bits
    int64_t activation;  // of math.h

    bool is_wide() const { return qmax > 127; }
    int64_t groups() const { return is_wide() ? (inputs + 1) / 2 : (inputs + 3) / 4; }
};

// A linear layer applied to rows. Each row is quantized by itself (dynamic, asymmetric), and sums are exact, so that a
// row's result depends on nothing but the row.
struct ApplyLinear {
    const float* x;  // (rows, inputs)
    float* out;      // (rows, outputs), written
    const IntegerLinear* layer;
    int64_t rows;
};

// What quantization took from a few outputs of an 8-bit layer without activation: exact minus computed.
struct LogitDelta {
    const float* x;             // (batch, beams, inputs)
    const float* exact_weight;  // (ids, inputs): the weight before quantization
    const float* scales;        // of the layer's outputs
    const int64_t* parents;     // (batch, count): the row of each; not read if there is one beam
    const int64_t* columns;     // (batch, count): the layer's output
    const int64_t* ids;         // (batch, count): the output's row of exact_weight
    float* deltas;              // (batch, count), written
    int64_t batch, beams, count, inputs;
};

#if FAIRBEAM_X86
void apply_linear(const ApplyLinear& a);
void logit_delta(const LogitDelta& a);
#endif

}  // namespace fairbeam
