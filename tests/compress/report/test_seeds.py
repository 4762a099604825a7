from __future__ import annotations

import pytest

from compress.errors import CompressError
from compress.ledger import Row
from compress.report.seeds import seeds_table


def row(stage: str, seed: int, hmean: float) -> Row:
    return Row(
        experiment="x", stage=stage, kind="train", parent=None, key="k", seed=seed, params=500_000 + 1000 * seed,
        macs=10**9, bytes=2_400_000, task="detection", scores={"precision": 0.8, "recall": 0.8, "hmean": hmean}, main="hmean",
        delta=hmean - 0.9, split="test", images=150, settings={"short_side": 192},
        runtime="torch fp32", latency_ms={}, artefact=stage, seconds=1.0,
    )  # fmt: skip


def test_means_and_ranges_of_what_all_seeds_have():
    text = seeds_table([[row("a", 0, 0.9), row("b", 0, 0.5), row("only here", 0, 0.1)], [row("b", 2, 0.8), row("a", 2, 0.9)]])
    lines = text.splitlines()
    assert lines[0] == "| stage | seeds | params | MACs | Hmean % | lowest | highest | delta |"
    assert lines[2] == "| a | 2 | 0.501 M | 1.000 G | 90.00 | 90.00 | 90.00 | +0.00 |"
    assert lines[3] == "| b | 2 | 0.501 M | 1.000 G | 65.00 | 50.00 | 80.00 | -25.00 |"
    assert "only here" not in text
    assert "Hmean on 150 test images, short_side 192; seeds 0, 2" in text


def test_one_experiment_or_the_same_seed_twice_is_refused():
    with pytest.raises(CompressError, match="each of another seed"):
        seeds_table([[row("a", 0, 0.9)]])
    with pytest.raises(CompressError, match=r"the seeds \[1, 1\]"):
        seeds_table([[row("a", 1, 0.9)], [row("a", 1, 0.8)]])


def test_another_task_has_its_own_metric_and_two_tasks_are_refused(counted):
    text = seeds_table([[counted("a", 2.0, seed=0)], [counted("a", 3.0, seed=1)]])
    assert text.splitlines()[0].split(" | ")[4:] == ["error px", "lowest", "highest", "delta |"]
    assert text.splitlines()[2].split(" | ")[4:] == ["2.50", "2.00", "3.00", "-0.50 |"]
    with pytest.raises(CompressError, match="those of counting and detection"):
        seeds_table([[counted("a", 2.0, seed=0)], [row("a", 1, 0.9)]])


def test_a_pipeline_has_neither_parameters_nor_multiply_accumulates():
    first, second = (row("small", seed, 0.5).model_copy(update={"params": None, "macs": None}) for seed in (0, 1))
    assert seeds_table([[first], [second]]).splitlines()[2] == "| small | 2 |  |  | 50.00 | 50.00 | 50.00 | -40.00 |"
