"""Stock fairseq's models of given options, with random weights everywhere, and ours beside them."""

import warnings
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from fairbeam.families.fairseq.registry import completed, family_of, task_symbols
from fairbeam.formats import fairseq_checkpoint as checkpoint
from fairbeam.text import Dictionary


def build(options: dict, vocabulary: int = 37):
    """Stock's model of the architecture ``options["arch"]``, float32, in evaluation mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("fairseq")
        from fairseq.data import Dictionary as StockDictionary
        from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY

        dictionary = StockDictionary()
        for number in range(vocabulary - len(dictionary)):
            dictionary.add_symbol(f"w{number}")
        args = Namespace(**options)
        ARCH_CONFIG_REGISTRY[args.arch](args)
        task = Namespace(source_dictionary=dictionary, target_dictionary=dictionary)
        model = ARCH_MODEL_REGISTRY[args.arch].build_model(args, task).eval()
    randomise(model)
    return model


@torch.no_grad()
def randomise(model: torch.nn.Module) -> None:
    """fairseq starts biases at 0 and norms at 1, which hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def load_network(options: dict, weights: dict):
    """Ours of a checkpoint that says no more than these options."""
    return family_of(options["arch"]).load_network(completed(options["arch"], options), weights)


def gradients(options: dict, theirs):
    """A network of our names that has fairseq's gradients as its own."""
    names = dict(theirs.named_parameters(remove_duplicate=False))
    weights = {name: names[name].grad if name in names else tensor for name, tensor in theirs.state_dict().items()}
    network = load_network(options, weights)
    for parameter in network.parameters():
        parameter.grad = parameter.detach().clone()
    return network


def assert_same_gradients(ours, options: dict, theirs) -> None:
    """Of every parameter of ours."""
    expected = {name: parameter.grad for name, parameter in gradients(options, theirs).named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[name], rtol=1e-4, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def write_checkpoint(folder: Path, model: torch.nn.Module, options: dict, task: dict, *files: str) -> Path:
    """What ``fairseq-train`` leaves of a model from ``build``, with its dictionaries, named ``files``, beside it."""
    folder.mkdir()
    table = next(weight for name, weight in model.state_dict().items() if name.endswith("embed_tokens.weight"))
    words = len(table) - len(Dictionary()) - len(task_symbols(task))
    for file in files:
        Dictionary((f"w{number}", 1) for number in range(words)).save(folder / file)
    cfg = {"model": Namespace(**{"_name": options["arch"], **options}), "task": {"data": str(folder), **task}}
    history = [{"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 1}]
    state = {"args": None, "cfg": cfg, "model": model.state_dict(), "optimizer_history": history}
    state |= {"extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}}, "last_optimizer_state": None}
    checkpoint.write(folder / "checkpoint_best.pt", state)
    return folder / "checkpoint_best.pt"
