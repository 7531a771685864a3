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
from gmic.phantom import (
    VIEWS,
    LesionSpec,
    PhantomSpec,
    locate_lesions,
    make_phantom,
    study_plan,
)
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
        bare = make_phantom(replace(spec, lesions=())).volume_DHW
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
    spec = PhantomSpec(3, "L", "CC", (31, 192, 144), SPACING_MM, slice_mm=2.0, lesions=(lesion,))
    phantom = make_phantom(spec)
    added = phantom.volume_DHW.astype(np.int64) - make_phantom(replace(spec, lesions=())).volume_DHW
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
    assert specs[0].lesions == specs[1].lesions != ()
    assert [spec.lesions for spec in specs[2:]] == [(), ()]
    middle = (SHAPE[0] - 1) / 2
    upper_outer = LesionSpec("benign", 4.0, 1.0, (0.8, 0.8, 0.5))
    lower_outer = replace(upper_outer, place=(0.8, -0.8, 0.5))
    high, low = (
        [make_phantom(replace(spec, lesions=(lesion,))).lesions[0].centre_zyx for spec in specs[:2]]
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
        make_phantom(replace(plan(1)[0], lesions=(large,)))


def test_fine_pixels_averaged_look_like_coarse_ones() -> None:
    coarse_spec = study_plan(3, (3, 240, 180), ["L-CC"], lesion_breast="L", spacing_mm=0.8)[0]
    fine_spec = study_plan(3, (3, 960, 720), ["L-CC"], lesion_breast="L", spacing_mm=0.2)[0]
    coarse, fine = make_phantom(coarse_spec), make_phantom(fine_spec)
    binned = fine.volume_DHW.reshape(3, 240, 4, 180, 4).mean(axis=(2, 4))
    inside = (binned > 500) & (coarse.volume_DHW > 500)
    difference = binned[inside] - coarse.volume_DHW[inside]
    assert np.corrcoef(binned[inside], coarse.volume_DHW[inside])[0, 1] > 0.8
    assert abs(difference.mean()) < 0.05 * binned[inside].mean()
    assert np.divide(fine.lesions[0].centre_zyx, coarse.lesions[0].centre_zyx)[1:] == pytest.approx(
        [4, 4], rel=0.1
    )


def test_a_projection_hides_what_a_slice_shows() -> None:
    hidden, shown = [], []
    for seed in range(4):
        spec = study_plan(
            seed, (24, 240, 180), ["L-CC"], lesion_breast="L", spacing_mm=1.0, slice_mm=2.0
        )[0]
        phantom = make_phantom(spec)
        (lesion,) = phantom.lesions
        frame = int(lesion.centre_zyx[0])
        body = lesion.mask(frame, spec.shape[1:])
        row0, col0, row1, col1 = lesion.box[1], lesion.box[2], lesion.box[4], lesion.box[5]
        around = np.zeros_like(body)
        around[max(row0 - 6, 0) : row1 + 6, max(col0 - 6, 0) : col1 + 6] = True
        around &= ~body
        images = (phantom.volume_DHW.mean(axis=0), phantom.volume_DHW[frame].astype(float))
        for image, kept in zip(images, (hidden, shown), strict=True):
            kept.append((image[body].mean() - image[around].mean()) / image.mean())
    assert np.mean(shown) > 4 * np.mean(hidden)


def test_distractors_are_there_and_no_part_of_the_truth() -> None:
    spec = plan(8, breast=None)[0]
    phantom = make_phantom(spec)
    kinds = {thing.label for thing in phantom.distractors}
    assert phantom.lesions == ()
    assert kinds == {"island", "knot", "speck"}
    bare = make_phantom(replace(spec, distractor_factor=0.0))
    assert bare.distractors == ()
    doubled = make_phantom(replace(spec, distractor_factor=2.0))
    for thing, twice in zip(phantom.distractors, doubled.distractors, strict=True):
        assert twice == replace(thing, contrast=2 * thing.contrast)
    brighter = phantom.volume_DHW.astype(np.int64) - bare.volume_DHW
    islands = [thing for thing in phantom.distractors if thing.label == "island"]
    assert all(
        brighter[round(island.centre_zyx[0])][island.mask(round(island.centre_zyx[0]), SHAPE[1:])]
        .mean() > 100
        for island in islands
    )  # fmt: skip


def test_both_kinds_in_one_breast_lie_apart() -> None:
    for spec in plan(6, kind="both")[:2]:
        found = make_phantom(spec).lesions
        assert {lesion.label for lesion in found} == {"malignant", "benign"}
        rows = [lesion.centre_zyx[1] for lesion in found]
        assert abs(rows[0] - rows[1]) > 10


@pytest.mark.parametrize("breast", ["L", "R"])
def test_lesions_are_located_without_voxels(breast: str) -> None:
    for spec in plan(3, breast=breast):
        assert locate_lesions(spec) == make_phantom(spec).lesions
