"""What a checkpoint's configuration may do: nothing but set options of a known architecture.

A checkpoint read safely still carries strings, and stock fairseq passes some of them to ``eval``
(``encoder_layers`` of fconv, ``adaptive_softmax_cutoff`` and ``xformers_att_config`` of the Transformer, …).
"""

import ast
import importlib
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Callable, Iterator

from fairseq import checkpoint_utils, models
from omegaconf import OmegaConf

from fairbeam.errors import CheckpointError, ConfigError
from fairbeam.formats import fairseq_checkpoint as checkpoint
from fairbeam_plugin.patches.patching import mend

# Every stock module that calls eval on a string from a configuration or a data file.
EVALUATING_MODULES = (
    "fairseq.criterions.ctc",
    "fairseq.data.audio.raw_audio_dataset",
    "fairseq.data.codedataset",
    "fairseq.models.fconv",
    "fairseq.models.fconv_lm",
    "fairseq.models.fconv_self_att",
    "fairseq.models.hubert.hubert",
    "fairseq.models.lightconv_lm",
    "fairseq.models.speech_to_text.s2t_wav_transformer",
    "fairseq.models.transformer_lm",
    "fairseq.models.wav2vec.wav2vec",
    "fairseq.models.wav2vec.wav2vec2",
    "fairseq.optim.adafactor",
    "fairseq.optim.adam",
    "fairseq.optim.adamax",
    "fairseq.optim.cpu_adam",
    "fairseq.optim.fused_lamb",
    "fairseq.utils",
)

# Where the architectures live that a checkpoint may ask for: fairbeam's own and stock's text models. Stock's
# speech models open further files that their configuration names, and have not been read through.
ADMITTED_MODULES = (
    "fairbeam_plugin",
    "fairseq.models.bart",
    "fairseq.models.fconv",
    "fairseq.models.fconv_lm",
    "fairseq.models.fconv_self_att",
    "fairseq.models.lightconv",
    "fairseq.models.lightconv_lm",
    "fairseq.models.lstm",
    "fairseq.models.lstm_lm",
    "fairseq.models.masked_lm",
    "fairseq.models.multilingual_transformer",
    "fairseq.models.nat",
    "fairseq.models.roberta",
    "fairseq.models.transformer",
    "fairseq.models.transformer_align",
    "fairseq.models.transformer_lm",
    "fairseq.models.xmod",
)

_MAX_LENGTH = 100_000
_loading_checkpoint: ContextVar[bool] = ContextVar("loading_checkpoint", default=False)


def apply() -> None:
    """Put this page's mends in place."""
    for name in EVALUATING_MODULES:
        # A module's own name hides the builtin from the code in it.
        importlib.import_module(name).eval = evaluate_literal  # type: ignore[attr-defined]
    mend(checkpoint_utils, "load_model_ensemble_and_task", load_model_ensemble_and_task)
    mend(models, "build_model", build_model)


def evaluate_literal(expression: str) -> Any:
    """The value of a Python literal, in which lists and numbers may also be joined by ``+``, ``-`` and ``*``.

    That is all that fairseq's options need: ``(0.9, 0.98)``, ``[(512, 3)] * 20 + [(1024, 3)]``.

    Raises:
        TypeError: not a string, as ``eval`` does (`fairseq.utils.eval_bool` relies on it).
        ConfigError: anything else in it, a call or a name for instance, or a result that is too long.
    """
    if not isinstance(expression, str):
        raise TypeError(f"expected a string, got {type(expression).__name__}")
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ConfigError(
            f"the option value {expression[:200]!r} is not a literal; expected numbers, strings, lists"
        ) from None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, list | tuple | str) and len(sequence) * times > _MAX_LENGTH:
                raise ValueError("too long")
        return left * right
    if isinstance(node, ast.List | ast.Tuple):
        return (list if isinstance(node, ast.List) else tuple)(_value(item) for item in node.elts)
    return ast.literal_eval(node)


def load_model_ensemble_and_task(stock: Callable, *args: Any, **kwargs: Any) -> Any:
    """Mark that the models built in here are described by a checkpoint and not by the user's command line."""
    with _building_from_checkpoint():
        return stock(*args, **kwargs)


def build_model(stock: Callable, cfg: Any, task: Any, from_checkpoint: bool = False) -> Any:
    """Refuse to build what a checkpoint asks for unless the architecture is one of `ADMITTED_MODULES`.

    Stock builds whatever is registered, and what its constructors do with the options is their own affair.
    ``FAIRBEAM_TRUST_CHECKPOINTS=1`` admits every architecture.
    """
    if (from_checkpoint or _loading_checkpoint.get()) and not checkpoint.trusted():
        check_architecture(_architecture(cfg))
    return stock(cfg, task, from_checkpoint)


def check_architecture(name: Any) -> None:
    """Raise `CheckpointError` unless ``name`` is registered by one of `ADMITTED_MODULES`."""
    name = str(name)
    registered = models.ARCH_MODEL_REGISTRY.get(name) or models.MODEL_REGISTRY.get(name)
    module = f"{registered.__module__}." if registered else ""
    if not module.startswith(tuple(f"{admitted}." for admitted in ADMITTED_MODULES)):
        raise CheckpointError(
            f"the checkpoint asks for the architecture {name!r}, which is not among those known to be safe "
            f"to build from a file. If you trust whoever made it, set {checkpoint.TRUST_VARIABLE}=1"
        )


def _architecture(cfg: Any) -> Any:
    """The name that stock will look up: an option, or the one key of a configuration nested under it."""
    name = getattr(cfg, "_name", None) or getattr(cfg, "arch", None)
    if name is None and OmegaConf.is_dict(cfg) and len(cfg) == 1:
        return next(iter(cfg))
    return name


@contextmanager
def _building_from_checkpoint() -> Iterator[None]:
    token = _loading_checkpoint.set(True)
    try:
        yield
    finally:
        _loading_checkpoint.reset(token)
