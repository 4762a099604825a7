"""A real browser, headless chromium, told what to do through its DevTools protocol over a pipe: no driver and no package is needed."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-background-networking"]


class Browser:
    """One page. Answers come in the order of the calls; what the page sends beside them is kept in `events`."""

    def __init__(self, process: subprocess.Popen, orders: int, answers: int) -> None:
        self.process = process
        self.orders, self.answers = os.fdopen(orders, "wb"), os.fdopen(answers, "rb")
        self.number, self.session, self.rest = 0, "", b""
        self.events: list[dict] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def message(self) -> dict:
        while b"\0" not in self.rest:
            read = self.answers.read1(1 << 16)
            if not read:
                pytest.skip(f"chromium does not start here: {self.process.stderr.read()[-300:].decode()}")
            self.rest += read
        first, _, self.rest = self.rest.partition(b"\0")
        return json.loads(first)

    def call(self, method: str, **values: Any) -> dict:
        self.number += 1
        order = {"id": self.number, "method": method, "params": values, **({"sessionId": self.session} if self.session else {})}
        self.orders.write(json.dumps(order).encode() + b"\0")
        self.orders.flush()
        while (found := self.message()).get("id") != self.number:
            self.events.append(found)
        assert "error" not in found, found["error"]
        return found["result"]

    def open(self, page: Path, width: int = 1280, height: int = 900, *, dark: bool = False, phone: bool = False) -> None:
        """Show a page of a width in CSS pixels, and wait for all of it."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.message())

    def tell(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def point_at(self, selector: str) -> None:
        """Move the mouse to the middle of an element, which is brought into view."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.tell(f"{place}.scrollIntoView({{block: 'center'}})")
        box = self.tell(f"(() => {{ const b = {place}.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()")
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])

    def press(self, key: str) -> None:
        """Press and release a key by its name, such as Tab."""
        codes = {"Tab": 9, "ArrowDown": 40, "End": 35}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key])

    def faults(self) -> list[str]:
        """Errors and warnings that the page has met, and all that it has asked the network for."""
        told = [event["params"]["exceptionDetails"]["text"] for event in self.events if event["method"] == "Runtime.exceptionThrown"]
        told += [event["params"]["entry"]["text"] for event in self.events if event["method"] == "Log.entryAdded"]
        asked = [event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return told + [url for url in asked if not url.startswith(("file:", "data:"))]

    def shot(self, path: Path) -> None:
        """All of the page as a PNG file."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a folder for its profile; skips the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the path")
    orders, answers = os.pipe(), os.pipe()

    def numbered() -> None:
        """Where chromium looks for its pipe: it reads from 3 and writes to 4."""
        held = os.dup(orders[0]), os.dup(answers[1])
        os.dup2(held[0], 3)
        os.dup2(held[1], 4)

    words = [CHROMIUM, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=numbered, close_fds=False
    )
    os.close(orders[0])
    os.close(answers[1])
    try:
        yield Browser(process, orders[1], answers[0])
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
