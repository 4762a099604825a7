"""ncnn on the CPU (Tencent's runtime for phones), one image at a time: it knows no batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compress.errors import CompressError
from compress.runtimes.runtime import Runtime, as_floats, available_threads, read_description, telling

# The description is the line after the last layer, where ncnn no longer reads.
MARK = "# compress "


def open_ncnn(path: Path, threads: int | None, precision: str | None) -> Runtime:
    """See :func:`compress.runtimes.open_file`; `path` is the .param file, with the .bin beside it."""
    if precision not in (None, "f32"):
        raise CompressError(f"ncnn is run in float32 here, not in '{precision}'; leave the precision out.")
    try:
        import ncnn
    except ImportError:
        raise CompressError(f"{path} needs ncnn, which is not installed; run `pip install ncnn`.") from None
    weights = path.with_suffix(".bin")
    description = read_description(described(path), path)
    if not weights.exists():
        raise CompressError(f"{path} cannot be read as an ncnn model; its weights {weights.name} are missing: export it again.")
    net = ncnn.Net()
    net.opt.num_threads = threads = available_threads(threads)
    # Else its threads spin on after a call and slow down whatever is timed next.
    net.opt.openmp_blocktime = 0
    # 16 bits wherever a processor has them is its default; the table says fp32.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    if net.load_param(str(path)) != 0 or weights.stat().st_size != description.get("weight_bytes") or net.load_model(str(weights)) != 0:
        raise CompressError(f"{path} cannot be read as an ncnn model; it or its .bin is damaged: export it again.")
    names = net.output_names()
    if len(net.input_names()) != 1:
        raise CompressError(f"{path} has {len(net.input_names())} inputs instead of one image; it is damaged, or no model of images.")
    source = net.input_names()[0]

    def run_one(image: np.ndarray) -> list[np.ndarray]:
        extractor = net.create_extractor()
        extractor.input(source, ncnn.Mat(np.ascontiguousarray(image)))
        return [np.array(extractor.extract(name)[1]) for name in names]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with telling(f"{path} does not run on images of {' x '.join(map(str, images.shape))}; export the model again"):
            maps = zip(*(run_one(image) for image in images), strict=True)
            return as_floats({name: np.stack(values) for name, values in zip(names, maps, strict=True)})

    return Runtime("ncnn", description["precision"], threads, description, run)


def described(path: Path) -> str:
    """The description's JSON; empty where there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        lines = []
    if not lines or not lines[0].startswith("7767517"):
        raise CompressError(f"{path} cannot be read as an ncnn model; export it again.")
    return lines[-1].removeprefix(MARK)
