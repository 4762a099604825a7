from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def image_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("COMPRESS_CACHE", str(folder))
    return folder
