"""The examples of docs/evaluation.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmic import weights
from gmic.evaluate.scores import ImageScore, write_scores
from gmic.inference import Predictor
from tests.unit.gmic.small import CONFIG, volume

PAGE = Path(__file__).parents[3] / "docs" / "evaluation.md"


def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("ours", "other")):
        rng = np.random.default_rng(seed)
        rows = [
            ImageScore(f"{n}", f"b{n // 2}", f"p{n // 4}", (n // 2 % 2, n // 4 % 2), (r, 1 - r))
            for n, r in enumerate(rng.random(40).tolist())
        ]
        write_scores(tmp_path / f"{name}.csv", rows)
    model, info = weights.seeded(CONFIG, 0)
    names: dict[str, Any] = {
        "predictor": Predictor(model, info, device="cpu"),
        "window": volume(),
    }
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    assert re.fullmatch(r"0\.\d{3} \(0\.\d{3}-[01]\.\d{3}\)\n", capsys.readouterr().out)
    made = {path.name for path in tmp_path.rglob("*")}
    assert {"report.html", "report.json", "saliency.png", "patches.png", "scroll.webp"} <= made
