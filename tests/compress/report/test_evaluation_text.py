"""What `compress eval` prints."""

from __future__ import annotations

from compress.report.evaluation import evaluation_text

MEASURED = {"images": 500, "split": "test", "artefact": "x/model.onnx", "runtime": "onnxruntime fp32", "stored": None}


def test_fixed_and_tuned_settings_have_a_line_each():
    scores = {"precision": 0.9, "recall": 0.8, "hmean": 0.84706}
    tuned = {"scores": {**scores, "hmean": 0.9}, "settings": {"short_side": 736, "bin_threshold": 0.4}, "val_score": 0.5}
    found = {**MEASURED, "task": "detection", "scores": scores, "settings": {"short_side": 736, "bin_threshold": 0.5}, "tuned": tuned}
    assert evaluation_text(found).splitlines() == [
        "x/model.onnx (onnxruntime fp32), 500 test images",
        "  fixed settings: P 90.00 %, R 80.00 %, Hmean 84.71 %  (short_side 736, bin_threshold 0.5)",
        "  tuned on validation: P 90.00 %, R 80.00 %, Hmean 90.00 %  (short_side 736, bin_threshold 0.4)",
    ]


def test_what_a_task_has_beside_its_metrics_is_told_too():
    scores = {"accuracy": 0.95, "accuracy 180": 0.9, "accuracyless": 12.3456}
    found = {**MEASURED, "task": "classification", "scores": scores, "settings": {"size": [48, 192]}, "tuned": None}
    assert evaluation_text(found).splitlines()[1:] == [
        "  fixed settings: accuracy 95.00 %, accuracy 180 90.00 %, accuracyless 12.35  (size [48, 192])"
    ]


def test_another_task_has_its_own_unit(counting):
    found = {**MEASURED, "task": counting.name, "scores": {"error": 2.0, "found": 0.5}, "settings": {}, "tuned": None}
    assert "fixed settings: error px 2.00, found 50.00 %" in evaluation_text(found)
