"""The one reader of image files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from compress.errors import CompressError


def read_image(path: Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB.

    Raises CompressError for a file that is missing, cut off, or of a kind that OpenCV does not read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CompressError(f"There is no image at {path}.") from None
    except OSError as error:
        raise CompressError(f"{path} cannot be read as an image ({error.strerror}).") from None
    # The JPEG decoder fills what is missing with grey and calls it a success: look for the end marker after the last scan.
    if data[:2] == b"\xff\xd8" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise CompressError(f"{path} is a JPEG file that is cut off; restore it.")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise CompressError(f"{path} does not decode as an image; it is damaged, or of a kind that OpenCV does not read.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
