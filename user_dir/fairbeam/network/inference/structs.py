"""Structs of the native library that networks fill; the headers in ``csrc`` say what the fields mean."""

from fairbeam.network.inference.native import Arguments, Struct, counts, floats, pointers


class Norm(Struct):
    """A layer norm (layers.h)."""

    _fields_ = (*pointers("weight bias"), *floats("epsilon"))


class AddNorm(Arguments):
    """Layer normalisation of a residual sum (rowwise.h)."""

    _fields_ = (*pointers("x block weight bias out"), *counts("rows width"), *floats("epsilon"))


class LogSoftmax(Arguments):
    """Log-softmax of rows in place (rowwise.h)."""

    _fields_ = (*pointers("scores"), *counts("rows width"))


class Embed(Arguments):
    """Token vectors plus position vectors (rowwise.h)."""

    _fields_ = (
        *pointers("tokens vectors position_ids positions out"), *counts("count different width"), *floats("scale")
    )  # fmt: skip


class AttendToSlots(Arguments):
    """Self-attention of one step over the slots of the beams' histories (attention.h)."""

    _fields_ = (
        *pointers("projected storage slots rows starts context"),
        *counts("batch beams heads head_dim sentences capacity steps start"),
        *floats("scale"),
    )


class Attend(Arguments):
    """Attention of a sentence's queries to the same keys (attention.h)."""

    _fields_ = (
        *pointers("query keys values mask rows context"),
        *counts("batch queries heads head_dim length"),
        *counts("query_stride sentence_stride head_stride key_stride mask_stride"),
        *floats("scale"),
    )


class AppendSlots(Arguments):
    """Histories with the slots of one more step (attention.h)."""

    _fields_ = (*pointers("history longer"), *counts("batch beams steps first"))


class IntegerLinear(Struct):
    """A linear layer in integers (int_gemm.h)."""

    _fields_ = (*pointers("weight scales weight_sums bias"), *counts("inputs outputs qmax activation"))


class ApplyLinear(Arguments):
    """A linear layer in integers applied to rows (int_gemm.h)."""

    _fields_ = (*pointers("x out layer"), *counts("rows"))


class LogitDelta(Arguments):
    """What quantization took from a few outputs (int_gemm.h)."""

    _fields_ = (
        *pointers("x exact_weight scales parents columns ids deltas"), *counts("batch beams count inputs")
    )  # fmt: skip


class TransformerLayer(Struct):
    """A layer whose linear layers are in integers (layers.h)."""

    _fields_ = (
        *pointers("qkv output query cross_output up down"),
        *((name, Norm) for name in ("self_norm", "cross_norm", "feed_forward_norm")),
        *counts("heads head_dim norm_before"),
        *floats("self_scale cross_scale"),
    )


class DecoderStep(Arguments):
    """One decoding step of all beams through all layers (layers.h)."""

    _fields_ = (
        *pointers("x layers storages keys values mask slots rows source_rows starts"),
        *counts("layer_count batch beams sentences capacity steps start length"),
    )


class EncoderPass(Arguments):
    """Whole sequences through all layers of an encoder (layers.h)."""

    _fields_ = (*pointers("x layers mask"), *counts("layer_count batch length"))


class OutputProjection(Struct):
    """An 8-bit output projection and the weight that it was quantized from (search.h)."""

    _fields_ = pointers("layer exact_weight")


class ShortlistColumns(Struct):
    """An output projection's columns where they are a part of the vocabulary (search.h)."""

    _fields_ = pointers("token_ids added tail_moments")


class TokenEmbedding(Struct):
    """What comes before a decoder's layers (search.h)."""

    _fields_ = (*pointers("vectors positions"), *counts("first_position last_position"), *floats("scale"))
