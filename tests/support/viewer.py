"""OHIF in headless Chromium, used as a person uses it, and what is seen there, measured in pixels.

The viewer's files come once from its package, by `make viewer`, into `build/`. Chromium runs in a network of its own
that has one loopback interface and nothing else.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.loopback import Loopback
from tests.support.services import PATIENCE
from tests.support.shared import ROOT

Picture = NDArray[np.uint8]
"""(H, W, 3), RGB, of the part of the page where the image is and no text."""

_SIZE: Final = {"width": 1280, "height": 900}
_MARGIN: Final = (100, 60, 70, 40)  # of the viewport, top to left: its texts, slider and arrows
_FLAGS: Final = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
)
_TRIES: Final = 60
_PAUSE_MS: Final = 100


def files() -> Path:
    """The viewer's files; skips the test where they cannot be had."""
    makefile = (ROOT / "Makefile").read_text()
    found = re.search(r"^OHIF := (\S+)$", makefile, re.MULTILINE)
    assert found, "the Makefile names no version of the viewer"
    home = ROOT / "build" / f"viewer-{found[1]}"
    if not (home / "viewer" / "index.html").is_file():
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed; apt-get install npm")
        command = ["make", "viewer", f"TOMONODE_HOME={home}", f"PYTHON={sys.executable}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"`make viewer` did not work: {done.stderr.strip()[-300:]}")
    return home / "viewer"


@contextmanager
def chromium(network: Loopback, folder: Path) -> Iterator[Any]:
    """A running Chromium inside a network, as playwright's Browser; skips the test where there is none."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed; apt-get install chromium")
    api = pytest.importorskip(
        "playwright.sync_api", reason="pip install -r requirements-interop.lock"
    )
    start = folder / "chromium"
    start.write_text(f'#!/bin/sh\nexec {shlex.join([*network.command, program])} "$@"\n')
    start.chmod(0o755)
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(start), args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Ohif:
    """The viewer with one study open.

    `hosts` are those that were asked for anything, `complaints` what the browser's console says of forbidden code and
    of failures of the program.
    """

    def __init__(self, browser: Any, base: str) -> None:
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        self.page = browser.new_page(viewport=_SIZE)
        self.page.set_default_timeout(60_000 * PATIENCE)
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("console", lambda message: self._said(message.text))
        self._base = base

    def open(self, study_uid: str, series: int) -> None:
        """Open a study and wait until so many series are listed; close what greets a newcomer."""
        self.page.goto(f"{self._base}/viewer?StudyInstanceUIDs={study_uid}")
        self._series("").nth(series - 1).wait_for()
        for button in ("Skip all", "Confirm and hide"):
            self.page.get_by_text(button).click()

    def show(self, title: str) -> None:
        """Show an image series, named by the beginning of its description, in the viewport."""
        self._series(title).dblclick()
        self._overlay("top-left").get_by_text(title).wait_for()

    def segment(self, title: str) -> None:
        """Open a segmentation over its images."""
        self._series(title).dblclick()
        self.page.get_by_text("Yes", exact=True).click()

    def report(self, title: str) -> None:
        """Open a report."""
        self._series(title).dblclick()

    def frame(self) -> int:
        """Which frame the viewport says it shows, counted from 1; 0 for none."""
        text = self._overlay("bottom-right").inner_text()
        found = re.search(r"\((\d+)/\d+\)", text)
        return int(found[1]) if found else 0

    def step_to(self, number: int) -> None:
        """Go to a frame, counted from 1, with the arrow keys."""
        self.page.locator("canvas.cornerstone-canvas").hover()
        self._until(lambda: self.frame() > 0, "a frame")
        while (before := self.frame()) != number:
            self.page.keyboard.press("ArrowDown" if before < number else "ArrowUp")
            self._until(partial(self._left, before), "another frame")

    def picture(self, wanted: Callable[[Picture], bool]) -> Picture:
        """What is seen, once it is as wanted and twice the same; after a while what is seen then, wanted or not."""
        last = self._seen()
        for _ in range(_TRIES):
            self.page.wait_for_timeout(_PAUSE_MS)
            now = self._seen()
            if np.array_equal(now, last) and wanted(now):
                break
            last = now
        return last

    def close(self) -> None:
        self.page.close()

    def _series(self, title: str) -> Any:
        return self.page.locator("[data-cy^=study-browser-thumbnail]", has_text=title)

    def _overlay(self, corner: str) -> Any:
        return self.page.locator(f"[data-cy=viewport-overlay-{corner}]")

    def _left(self, frame: int) -> bool:
        return self.frame() != frame

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        for _ in range(_TRIES * PATIENCE):
            if holds():
                return
            self.page.wait_for_timeout(_PAUSE_MS)
        raise AssertionError(f"the viewer did not show {what}")

    def _seen(self) -> Picture:
        box = self.page.locator("canvas.cornerstone-canvas").bounding_box()
        top, right, bottom, left = _MARGIN
        clip = {
            "x": box["x"] + left,
            "y": box["y"] + top,
            "width": box["width"] - left - right,
            "height": box["height"] - top - bottom,
        }
        png = self.page.screenshot(clip=clip)
        return np.asarray(Image.open(BytesIO(png)).convert("RGB"))

    def _asked(self, url: str) -> None:
        if (parts := urlsplit(url)).scheme in ("http", "https", "ws", "wss"):
            self.hosts.add(parts.netloc)

    def _said(self, text: str) -> None:
        if "Content Security Policy" in text or "Error Boundary" in text:
            self.complaints.append(text[:300])


def bright(picture: Picture) -> NDArray[np.bool_]:
    """White pixels."""
    found: NDArray[np.bool_] = picture.min(axis=2) > 200
    return found


def changed(one: Picture, other: Picture) -> NDArray[np.bool_]:
    """Pixels that clearly differ between two pictures of the same size."""
    difference = np.abs(one.astype(np.int16) - other.astype(np.int16))
    found: NDArray[np.bool_] = difference.max(axis=2) > 40
    return found


def largest(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], int]:
    """Centroid (row, column) of the largest connected part of a mask, and its area in pixels; 0 where there is none."""
    count, _, stats, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return np.zeros(2), 0
    best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return centres[best][::-1].astype(np.float64), int(stats[best, cv2.CC_STAT_AREA])
