"""How a table names the machine: one name of a CPU stands for generations that run int8 at very different speeds."""

from __future__ import annotations

import platform

import pytest

from compress.runtimes import processor


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("fpu sse2 avx avx2 fma", "AMD EPYC, AVX2"),
        ("fpu avx2 avx512f avx512_vnni", "AMD EPYC, AVX-512 VNNI"),
        ("fpu avx2 avx512f avx512_vnni amx_int8", "AMD EPYC, AMX"),
        ("fpu avx2 avx_vnni", "AMD EPYC, AVX-VNNI"),
        ("fpu sse2", "AMD EPYC"),
    ],
)
def test_the_name_comes_with_the_best_instructions_for_integers(flags, told):
    core = f"processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: {flags}\n\n"
    assert processor.told(core + core) == told


def test_arm_has_features_and_often_no_name():
    assert processor.told("processor : 0\nFeatures : fp asimd asimddp i8mm\n").endswith(", i8mm")
    assert processor.told("Features : fp asimd\n") == (platform.processor() or platform.machine())


def test_where_the_kernel_tells_nothing_python_does(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "INFO", tmp_path / "none")
    assert processor.processor.__wrapped__() == (platform.processor() or platform.machine())
