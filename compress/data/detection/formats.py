"""The formats of detection data."""

from __future__ import annotations

from compress.data.detection.cocotext import CocoText
from compress.data.detection.ctw1500 import Ctw1500
from compress.data.detection.icdar2015 import Icdar2015
from compress.data.detection.icdar2017 import Icdar2017
from compress.data.detection.msra_td500 import MsraTd500
from compress.data.detection.paddleocr import PaddleOcr
from compress.data.detection.synthetic import Synthetic
from compress.data.detection.totaltext import TotalText

DetectionData = Synthetic | Icdar2015 | Icdar2017 | TotalText | Ctw1500 | MsraTd500 | PaddleOcr | CocoText
