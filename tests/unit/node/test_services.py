"""Which processes `up` starts for which settings and machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.services import device_names, gpus_to_use, node_services, parse_gpus
from tests.conftest import make_settings

TWO = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa-1)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb-2)
"""
DIVIDED = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa-1)
  MIG 1g.10gb     Device  0: (UUID: MIG-cccc-3)
  MIG 1g.10gb     Device  1: (UUID: MIG-dddd-4)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb-2)
"""


@pytest.mark.parametrize(
    ("listing", "uuids"),
    [
        ("", ()),
        ("No devices found.\n", ()),
        (TWO, ("GPU-aaaa-1", "GPU-bbbb-2")),
        (DIVIDED, ("MIG-cccc-3", "MIG-dddd-4", "GPU-bbbb-2")),
    ],
)
def test_gpus_are_read_from_the_drivers_list(listing: str, uuids: tuple[str, ...]) -> None:
    assert parse_gpus(listing) == uuids


@pytest.mark.parametrize(
    ("visible", "device", "gpus"),
    [
        ("2,5", "auto", ("2", "5")),
        ("2,5", "cuda", ("2", "5")),
        ("2,5", "cpu", ()),
        ("2,5", "cuda:1", ()),
        ("", "auto", ()),
    ],
)
def test_the_environment_says_which_gpus_may_be_used(
    visible: str,
    device: str,
    gpus: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert gpus_to_use(make_settings(tmp_path, device=device)) == gpus


@pytest.mark.parametrize(
    ("visible", "workers", "expected"),
    [
        ("", 0, {"inference": ""}),
        ("", 2, {"inference-0": "", "inference-1": ""}),
        ("3,4", 0, {"inference-0": "3", "inference-1": "4"}),
        ("3,4", 3, {"inference-0": "3", "inference-1": "4", "inference-2": "3"}),
        ("3", 0, {"inference": "3"}),
    ],
)
def test_one_inference_worker_a_gpu_or_as_many_as_wanted(
    visible: str,
    workers: int,
    expected: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    services = node_services(make_settings(tmp_path, inference_workers=workers))

    inference = {s.name: s for s in services if s.name.startswith("inference")}
    assert {n: s.environment["CUDA_VISIBLE_DEVICES"] for n, s in inference.items()} == expected
    others = {s.name for s in services if not s.name.startswith(("inference", "training"))}
    assert others == {"relay", "delivery", "web", "listener"}


@pytest.mark.parametrize(
    ("visible", "workers", "expected"),
    [
        ("", 0, {"training": ""}),
        ("3,4", 0, {"training-0": "3", "training-1": "4"}),
        ("3,4", 1, {"training": "3,4"}),
        ("3,4,5", 2, {"training-0": "3,5", "training-1": "4"}),
        ("3", 2, {"training-0": "3", "training-1": "3"}),
        ("3,4", -1, {}),
    ],
)
def test_training_workers_share_the_gpus_among_them(
    visible: str,
    workers: int,
    expected: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    services = node_services(make_settings(tmp_path, training_workers=workers))

    training = {s.name: s for s in services if s.name.startswith("training")}
    assert {n: s.environment["CUDA_VISIBLE_DEVICES"] for n, s in training.items()} == expected


@pytest.mark.parametrize(
    ("visible", "device", "names"),
    [
        ("2,5", "auto", ("2", "5")),
        ("", "auto", ("cpu",)),
        ("2,5", "cpu", ("cpu",)),
        ("2,5", "cuda:1", ("cuda:1",)),
    ],
)
def test_workers_on_one_device_know_it_by_the_same_name(
    visible: str,
    device: str,
    names: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert device_names(make_settings(tmp_path, device=device)) == names
