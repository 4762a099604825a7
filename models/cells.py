"""One step of recurrent layers, as torch's `nn.LSTMCell` and `nn.GRUCell` compute it.

Each gate has a linear layer of its own for the input and for the state, where torch stacks them in one weight: so hidden channels are
output channels like any other, and pruning follows them by itself.
"""

from __future__ import annotations

from torch import Tensor, nn

State = tuple[Tensor, Tensor]


class Gate(nn.Module):
    """The sum of a linear layer of the input and one of the state, (B, hidden)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, hidden)
        self.state = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return self.input(x) + self.state(state)


class LSTMCell(nn.Module):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    (B, inputs) and the state, hidden and cell of (B, hidden) each, to the next state.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.admit, self.forget, self.candidate, self.reveal = (Gate(inputs, hidden) for _ in range(4))

    def forward(self, x: Tensor, state: State) -> State:
        hidden, cell = state
        cell = self.forget(x, hidden).sigmoid() * cell + self.admit(x, hidden).sigmoid() * self.candidate(x, hidden).tanh()
        return self.reveal(x, hidden).sigmoid() * cell.tanh(), cell

    def start(self, x: Tensor) -> State:
        """The state before the first step, zeros, for as many rows as `x` has."""
        return zeros(x, self.reveal), zeros(x, self.reveal)


class GRUCell(nn.Module):
    """The gated recurrent unit (Cho et al. 2014), with the reset gate behind the product, as in torch.

    (B, inputs) and the state, (B, hidden), to the next state.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.reset, self.keep, self.candidate = (Gate(inputs, hidden) for _ in range(3))

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        reset, keep = self.reset(x, state).sigmoid(), self.keep(x, state).sigmoid()
        new = (self.candidate.input(x) + reset * self.candidate.state(state)).tanh()
        return (1 - keep) * new + keep * state

    def start(self, x: Tensor) -> Tensor:
        """The state before the first step, zeros, for as many rows as `x` has."""
        return zeros(x, self.keep)


def zeros(x: Tensor, gate: Gate) -> Tensor:
    """(B, hidden) zeros, however many hidden channels the gate has left."""
    return x.new_zeros(x.shape[0], gate.state.out_features)
