"""Phantoms: the truth says where the lesion is, for every side and view."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmic.errors import InputError
from gmic.phantom import VIEWS, LesionSpec, PhantomSpec, make_phantom, study_plan
from gmic.preprocess import preprocess
from tests.support.shared import ROOT

SHAPE = (8, 192, 144)
SPACING_MM = 1.0


def plan(seed: int, kind: str = "malignant", breast: str | None = "L") -> list[PhantomSpec]:
    return list(study_plan(seed, SHAPE, lesion_breast=breast, kind=kind, spacing_mm=SPACING_MM))


@pytest.mark.parametrize("kind", ["malignant", "benign"])
@pytest.mark.parametrize("breast", ["L", "R"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=6, deadline=None)
def test_truth_is_where_the_lesion_adds_most(breast: str, kind: str, seed: int) -> None:
    for spec in plan(seed, kind, breast):
        phantom = make_phantom(spec)
        if spec.laterality != breast:
            assert phantom.lesions == ()
            continue
        bare = make_phantom(replace(spec, lesion=None)).volume_DHW
        added = phantom.volume_DHW.astype(np.int64) - bare
        (lesion,) = phantom.lesions
        assert lesion.label == kind
        frame0, row0, col0, frame1, row1, col1 = lesion.box
        boxed = np.zeros(SHAPE, bool)
        boxed[frame0:frame1, row0:row1, col0:col1] = True
        body = np.stack([lesion.mask(frame, SHAPE[1:]) for frame in range(SHAPE[0])])
        assert body.any()
        assert not (body & ~boxed).any()
        assert added[body].mean() > 4 * np.abs(added[~boxed]).mean() + 50
        in_frame = added.sum(axis=(1, 2))
        assert frame0 <= int(in_frame.argmax()) < frame1
        assert lesion.centre_zyx[0] == pytest.approx(float(in_frame.argmax()), abs=1)
        weights = np.where(body, added, 0).clip(0)
        centre = [float((weights * grid).sum() / weights.sum()) for grid in np.indices(SHAPE)]
        assert centre == pytest.approx(list(lesion.centre_zyx), abs=1.5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("view", VIEWS)
def test_breast_touches_its_chest_wall_and_background_is_zero(view: str, seed: int) -> None:
    spec = next(s for s in plan(seed) if f"{s.laterality}-{s.view}" == view)
    volume = make_phantom(spec).volume_DHW
    assert volume.dtype == np.uint16
    assert volume.shape == SHAPE
    assert volume.max() < 2**12
    wall, front = (0, -1) if view[0] == "L" else (-1, 0)
    assert (volume[:, SHAPE[1] // 2, wall] > 100).all()
    assert (volume[:, :, front] == 0).all()
    assert volume[volume > 0].min() > 100
    assert 0.15 < (volume > 0).mean() < 0.7


def test_only_mlo_shows_the_pectoral_muscle() -> None:
    shares = {}
    for spec in plan(4, breast=None)[:2]:
        upper = make_phantom(spec).volume_DHW[SHAPE[0] // 2, :20, :20]
        shares[spec.view] = float((upper > 1400).mean())
    assert shares["MLO"] > 0.5
    assert shares["CC"] < 0.05


@pytest.mark.parametrize("view", VIEWS)
def test_preprocessing_keeps_the_lesion_in_the_window(view: str) -> None:
    spec = next(s for s in plan(7, breast=view[0]) if f"{s.laterality}-{s.view}" == view)
    phantom = make_phantom(spec)
    _, row, col = (int(value) for value in phantom.lesions[0].centre_zyx)
    _, transform = preprocess(phantom.volume_DHW, spec.laterality, spec.view)
    mask = np.zeros(transform.window_shape[1:], bool)
    mask[transform.to_window(row, col)] = True
    assert np.argwhere(transform.mask_to_source(mask)).tolist() == [[row, col]]


def test_lesion_fades_and_smears_out_of_focus() -> None:
    # One slice in focus of a thick breast, far from it the rest.
    lesion = LesionSpec("benign", 6.0, 1.5, (0.0, 0.0, 0.5))
    spec = PhantomSpec(3, "L", "CC", (31, 192, 144), SPACING_MM, slice_mm=2.0, lesion=lesion)
    phantom = make_phantom(spec)
    added = (
        phantom.volume_DHW.astype(np.int64) - make_phantom(replace(spec, lesion=None)).volume_DHW
    )
    frame, row, col = (int(value) for value in phantom.lesions[0].centre_zyx)
    profile = added[:, row - 1 : row + 2, col - 1 : col + 2].mean(axis=(1, 2))
    assert profile[frame] > 3 * profile[frame + 3] > 0
    assert profile[frame] > 20 * abs(profile[0])


def test_mirroring_keeps_the_body_where_it_is() -> None:
    lesion = make_phantom(plan(2)[0]).lesions[0]
    mirrored = lesion.mirror(SHAPE[2])
    frame = int(lesion.centre_zyx[0])
    np.testing.assert_array_equal(
        mirrored.mask(frame, SHAPE[1:]), lesion.mask(frame, SHAPE[1:])[:, ::-1]
    )
    assert mirrored.mirror(SHAPE[2]) == lesion


def test_one_place_of_the_breast_in_both_views() -> None:
    specs = plan(11)
    assert specs[0].lesion == specs[1].lesion is not None
    assert [spec.lesion for spec in specs[2:]] == [None, None]
    middle = (SHAPE[0] - 1) / 2
    upper_outer = LesionSpec("benign", 4.0, 1.0, (0.8, 0.8, 0.5))
    lower_outer = replace(upper_outer, place=(0.8, -0.8, 0.5))
    high, low = (
        [make_phantom(replace(spec, lesion=lesion)).lesions[0].centre_zyx for spec in specs[:2]]
        for lesion in (upper_outer, lower_outer)
    )
    assert high[0][0] < middle < low[0][0]  # CC: upper is nearer the first slice,
    assert high[0][1] == low[0][1]  # and in the same row;
    assert high[1][0] == low[1][0] < middle  # MLO: both are outer, so in the same slice,
    assert high[1][1] < low[1][1]  # and upper is higher.


def test_seeds_decide_everything() -> None:
    spec = plan(5)[0]
    first, again = make_phantom(spec), make_phantom(spec)
    np.testing.assert_array_equal(first.volume_DHW, again.volume_DHW)
    assert first.lesions == again.lesions
    other = make_phantom(replace(spec, seed=6))
    assert (other.volume_DHW != first.volume_DHW).mean() > 0.1
    assert plan(5) == plan(5) != plan(6)


def test_another_process_makes_the_same_voxels() -> None:
    code = (
        "import sys, hashlib; from gmic.phantom import *;"
        "v = make_phantom(study_plan(9, (3, 96, 72), spacing_mm=2.0)[0]).volume_DHW;"
        "assert 'torch' not in sys.modules and 'pydicom' not in sys.modules;"
        "print(hashlib.sha256(v.tobytes()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "77"},
    )
    volume = make_phantom(study_plan(9, (3, 96, 72), spacing_mm=2.0)[0]).volume_DHW
    assert done.stdout.strip() == hashlib.sha256(volume.tobytes()).hexdigest()


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_bits_scale_the_values(bits: int) -> None:
    volume = make_phantom(replace(plan(1)[0], bits=bits)).volume_DHW
    assert 2 ** (bits - 2) < volume.max() < 2**bits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"laterality": "B"}, "laterality of a phantom is 'B'"),
        ({"view": "XCCL"}, "view of a phantom is 'XCCL'"),
        ({"shape": (0, 192, 144)}, "shape of a phantom"),
        ({"spacing_mm": 0.0}, "spacing_mm of a phantom"),
        ({"bits": 8}, "bits of a phantom is 8"),
    ],
)
def test_specifications_that_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(plan(1)[0], **change)


def test_lesions_that_cannot_be() -> None:
    with pytest.raises(InputError, match="kind is 'cyst'"):
        plan(1, kind="cyst")
    with pytest.raises(InputError, match="lesion_breast is 'both'"):
        plan(1, breast="both")
    with pytest.raises(InputError, match="place"):
        LesionSpec("benign", 5.0, 1.0, (0.0, 0.0, 1.5))
    with pytest.raises(InputError, match="radius 0"):
        LesionSpec("benign", 0, 1.0, (0.0, 0.0, 0.5))
    large = LesionSpec("benign", 60.0, 1.0, (0.0, 0.0, 0.5))
    with pytest.raises(InputError, match="does not fit"):
        make_phantom(replace(plan(1)[0], lesion=large))
