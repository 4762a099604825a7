from __future__ import annotations

import torch

from compress.training.devices import subnormals_as_zeros


def test_subnormals_are_zeros_inside_and_as_before_afterwards():
    small = torch.tensor(1e-40)
    assert float(small * 1) > 0
    with subnormals_as_zeros():
        assert float(small * 1) == 0
        with subnormals_as_zeros():
            pass
        assert float(small * 1) == 0
    assert float(small * 1) > 0
