"""A decoder whose steps run in one native call, from token ids to the output projection's input and beyond."""

from typing import Self

from torch import Tensor

from fairbeam.network.embedding import Embedding
from fairbeam.network.inference import structs
from fairbeam.network.inference.fused_stack import FusedStack, norm_struct
from fairbeam.network.inference.heads import NativeHead
from fairbeam.network.norm import LayerNorm


class FusedDecoder:
    """Parts of a decoder that one native call runs: embedding, layers, final norm and output projection."""

    def __init__(
        self,
        embedding: Embedding,
        stack: FusedStack,
        norm: LayerNorm | None,
        head: NativeHead,
        *,
        offset: int,
        max_positions: int,
    ) -> None:
        """Collect a decoder's parts.

        Args:
            embedding: token vectors and a table of positions (``plain_table``).
            stack: the layers.
            norm: behind the layers.
            head: the output projection.
            offset: row of the first position in the table.
            max_positions: how many there are; later tokens get the last one's vector.
        """
        table = embedding.plain_table
        assert table is not None
        self.stack, self.head = stack, head
        self.final_norm = None if norm is None else norm_struct(norm)
        self._kept: tuple[Tensor, Tensor, LayerNorm | None] = embedding.weight, table, norm
        self._first, self._last, self._scale = offset, offset + max_positions - 1, embedding.scale

    def token_embedding(self, steps: int) -> structs.TokenEmbedding:
        """Return the embedding of the tokens that are run at the step behind ``steps`` others, and at later ones."""
        vectors, positions, _ = self._kept
        return structs.TokenEmbedding(
            vectors=vectors.data_ptr(),
            positions=positions.data_ptr(),
            first_position=self._first + steps,
            last_position=self._last,
            scale=self._scale,
        )

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # it never changes, and holds addresses
