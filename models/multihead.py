"""Attention with several heads (Vaswani et al. 2017, "Attention Is All You Need", section 3.2.2)."""

from __future__ import annotations

from torch import Tensor, nn


class MultiHead(nn.Module):
    """What all kinds have in common: linear layers before and behind heads of a fixed size.

    The size of a head, and with it the scale of the softmax, is that of the unpruned network. How many heads there are the weights say, so
    that whole heads may be removed.

    proj: reads the heads side by side, (B, T, heads * size).
    """

    def __init__(self, inner: int, outputs: int, heads: int) -> None:
        super().__init__()
        self.size = inner // heads
        self.proj = nn.Linear(inner, outputs)

    @property
    def heads(self) -> int:
        """How many are left."""
        return self.proj.in_features // self.size

    def packed(self) -> tuple[tuple[nn.Linear, int], ...]:
        """The layers that give queries, keys and values, each with how many of these lie one after another in its outputs."""
        raise NotImplementedError

    def split(self, packed: Tensor, parts: int) -> tuple[Tensor, ...]:
        """The outputs of one such layer, (B, T, parts * heads * size), as `parts` tensors of (B, heads, T, size)."""
        batch, steps, _ = packed.shape
        return tuple(part.reshape(batch, steps, self.heads, self.size).transpose(1, 2) for part in packed.chunk(parts, 2))

    def mixed(self, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None = None) -> Tensor:
        """What each query finds: (B, T, outputs). hidden: what is added to the (T, keys) scores, such as -inf for keys not to be seen."""
        scores = query * self.size**-0.5 @ key.transpose(2, 3)
        weights = (scores if hidden is None else scores + hidden).softmax(3)
        return self.proj((weights @ value).transpose(1, 2).flatten(2))


class Attention(MultiHead):
    """Self-attention over all steps: (B, T, C) to (B, T, C)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, channels, heads)
        self.qkv = nn.Linear(channels, 3 * channels)

    def packed(self) -> tuple[tuple[nn.Linear, int], ...]:
        """One layer gives all three."""
        return ((self.qkv, 3),)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        query, key, value = self.split(self.qkv(x), 3)
        return self.mixed(query, key, value, hidden)


class CrossAttention(MultiHead):
    """Attention of (B, T, C) steps to (B, N, M) places of something else: (B, T, C)."""

    def __init__(self, channels: int, places: int, heads: int) -> None:
        super().__init__(channels, channels, heads)
        self.query = nn.Linear(channels, channels)
        self.kv = nn.Linear(places, 2 * channels)

    def packed(self) -> tuple[tuple[nn.Linear, int], ...]:
        """One layer gives the queries, and one both keys and values."""
        return (self.query, 1), (self.kv, 2)

    def looked_up(self, places: Tensor) -> tuple[Tensor, ...]:
        """Keys and values of the places, which are the same for every step."""
        return self.split(self.kv(places), 2)

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        (query,) = self.split(self.query(x), 1)
        return self.mixed(query, key, value)
