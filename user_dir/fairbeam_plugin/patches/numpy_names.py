"""Names that numpy has dropped and stock fairseq still uses."""

import importlib
import types

import numpy

DROPPED_NAMES = {"int": int, "float": float, "compat": types.SimpleNamespace(long=int)}

MODULES = (
    "fairseq.data.data_utils",
    "fairseq.data.language_pair_dataset",
    "fairseq.data.token_block_dataset",
    "fairseq.modules.dynamic_crf_layer",
)


def apply() -> None:
    """Give the modules that need them a numpy with the dropped names.

    Language modelling (`np.compat.long` in `TokenBlockDataset`) and ``--num-batch-buckets`` fail without
    them. numpy itself is left alone: others ask it what it has.
    """
    for name in MODULES:
        module = importlib.import_module(name)
        if module.np is numpy:
            module.np = types.ModuleType("numpy")  # type: ignore[attr-defined]
            module.np.__dict__.update(vars(numpy), **DROPPED_NAMES)
