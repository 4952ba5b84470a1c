"""Weight maps: one table, read in both directions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairbeam.errors import CheckpointError
from fairbeam.families.weight_map import Row, expand, linear, read_weights, same, transposed, write_weights

ROWS = (
    same("embedding", "embed.weight"),
    *linear("layers.{i}.qkv", "stack.{i}.q", "stack.{i}.k", "stack.{i}.v"),
    *linear("layers.{i}.output", "stack.{i}.out"),
    same("absent.norm", "stack.norm"),
)


def ours(layers: int, dim: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embedding": (9, dim)}
    for layer in range(layers):
        shapes |= {f"layers.{layer}.qkv.weight": (3 * dim, dim), f"layers.{layer}.qkv.bias": (3 * dim,)}
        shapes |= {f"layers.{layer}.output.weight": (dim, dim), f"layers.{layer}.output.bias": (dim,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@given(layers=st.integers(0, 12), dim=st.integers(1, 5), seed=st.integers(0, 99))
def test_writing_and_reading_are_inverse(layers, dim, seed):
    state = ours(layers, dim, seed)
    theirs = write_weights(ROWS, state)
    assert len(theirs) == 1 + 8 * layers
    back = read_weights(ROWS, theirs, state, frozenset())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert write_weights(ROWS, back).keys() == theirs.keys()


def test_parts_are_joined_in_the_order_of_the_row():
    state = ours(2)
    theirs = write_weights(ROWS, state)
    joined = torch.cat([theirs[f"stack.1.{part}.weight"] for part in "qkv"])
    assert torch.equal(joined, state["layers.1.qkv.weight"])


def test_a_transposed_matrix_is_turned_both_ways():
    rows = transposed("layers.{i}.qkv", "h.{i}.c_attn")
    state = {name: tensor for name, tensor in ours(2).items() if "qkv" in name}
    theirs = write_weights(rows, state)
    assert torch.equal(theirs["h.1.c_attn.weight"], state["layers.1.qkv.weight"].T)
    assert theirs["h.1.c_attn.weight"].is_contiguous()  # as files want it
    back = read_weights(rows, theirs, state, frozenset())
    assert all(torch.equal(back[name], state[name]) for name in state)
    theirs["h.0.c_attn.weight"] = theirs["h.0.c_attn.weight"].T
    with pytest.raises(CheckpointError, match=r"h\.0\.c_attn\.weight has shape \(12, 4\), expected \(4, 12\)"):
        read_weights(rows, theirs, state, frozenset())


def test_written_parts_share_no_memory_with_the_network():
    state = ours(1)
    before = state["layers.0.qkv.bias"].clone()
    write_weights(ROWS, state)["stack.0.q.bias"].zero_()
    assert torch.equal(state["layers.0.qkv.bias"], before)


def test_rows_apply_to_the_layers_there_are():
    applied = [row.ours for row in expand(ROWS, ours(2))]
    assert sorted(applied) == sorted(ours(2))
    assert Row("a.{i}", ("b.{i}", "c")).for_layer(3) == Row("a.3", ("b.3", "c"))


def test_one_error_names_every_tensor_that_does_not_fit():
    theirs = write_weights(ROWS, ours(2))
    del theirs["embed.weight"], theirs["stack.0.k.bias"]
    theirs["stack.1.q.weight"] = torch.ones(4, 5)  # cannot even be joined with the others
    theirs["stack.0.out.bias"] = torch.ones(6)
    theirs["stack.0.v.weight"], theirs["stack.0.q.weight"] = (
        torch.ones(3, 4),
        torch.ones(5, 4),
    )  # the sum is right
    theirs["stack.2.out.bias"] = torch.ones(4)
    with pytest.raises(CheckpointError) as caught:
        read_weights(ROWS, theirs, ours(2), frozenset())
    for problem in (
        "missing embed.weight",
        "missing stack.0.k.bias",
        "stack.1.q.weight has shape (4, 5), expected (4, 4) for layers.1.qkv.weight",
        "stack.0.out.bias has shape (6,), expected (4,)",
        "stack.0.q.weight has shape (5, 4), expected (4, 4)",
        "stack.0.v.weight has shape (3, 4), expected (4, 4)",
        "unexpected stack.2.out.bias",
    ):
        assert problem in str(caught.value)
    assert str(caught.value).count(";") == 6


def test_names_without_weights_are_ignored_and_tensors_without_a_rule_are_not():
    state = ours(1)
    theirs = write_weights(ROWS, state)
    read_weights(ROWS, {**theirs, "version": torch.ones(1)}, state, frozenset({"version"}))
    with pytest.raises(CheckpointError, match="no rule for our surprise"):
        read_weights(ROWS, theirs, {**state, "surprise": torch.ones(1)}, frozenset())
