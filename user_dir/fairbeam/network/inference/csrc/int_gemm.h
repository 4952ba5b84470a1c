// Linear layers in 8- and 16-bit integers, for processors with AVX-512 VNNI.
#pragma once

#include <cstdint>

#include "cpu.h"

namespace fairbeam {

constexpr int64_t kPanel = 64;  // outputs whose weights lie side by side
constexpr int64_t kBlock = 48;  // rows that are quantized at a time

// activation(x W^T + bias) with a quantized weight, which has a scale for each output. A product takes four bytes of an
// input row, 4 integers or 2, with those of 64 outputs at a time. Arrays of outputs are padded to whole panels.
struct IntegerLinear {
    const char* weight;        // (panels, groups, 64 outputs, 4 bytes); 8-bit integers are stored plus 128, unsigned
    const float* scales;       // (outputs)
    const float* weight_sums;  // (outputs): scale times the sum of the integers
    const float* bias;         // (outputs)
    int64_t inputs, outputs;
    int64_t qmax;        // highest integer: 127 for 8 bits, up to 32767 for 16
    int64_t activation;  // an Activation of math.h

    bool is_wide() const { return qmax > 127; }
    int64_t groups() const { return is_wide() ? (inputs + 1) / 2 : (inputs + 3) / 4; }
};

// Application of a linear layer to rows. Each row is quantized by itself (dynamic, asymmetric), and sums are exact, so
// that a row's result depends on the row alone.
struct ApplyLinear {
    const float* x;  // (rows, inputs)
    float* out;      // (rows, outputs), written
    const IntegerLinear* layer;
    int64_t rows;
};

// Quantization errors of a few outputs of an 8-bit layer without activation: exact minus computed output.
struct LogitDelta {
    const float* x;             // (batch, beams, inputs)
    const float* exact_weight;  // (ids, inputs): weight before quantization
    const float* scales;        // (outputs): scales of the quantized weight
    const int64_t* parents;     // (batch, count): beam of each; not read if there is one beam
    const int64_t* columns;     // (batch, count): output of the layer
    const int64_t* ids;         // (batch, count): row of exact_weight of the output
    float* deltas;              // (batch, count), written
    int64_t batch, beams, count, inputs;
};

#if FAIRBEAM_X86
void apply_linear(const ApplyLinear& a);
void logit_delta(const LogitDelta& a);
#endif

}  // namespace fairbeam
