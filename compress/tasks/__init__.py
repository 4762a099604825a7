"""The tasks, one file each; this is the only list of them."""

from __future__ import annotations

from compress.tasks.classification import CLASSIFICATION
from compress.tasks.detection import DETECTION
from compress.tasks.ocr import OCR
from compress.tasks.recognition import RECOGNITION
from compress.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (DETECTION, RECOGNITION, CLASSIFICATION, OCR)}
