"""The learning study: breasts, images and truth, baselines, variants, measures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from gmic.errors import ConfigError, DataError
from gmic.evaluate.scores import ImageScore
from gmic.evaluate.segmentation import SegmentationScore
from gmic.phantom import make_phantom
from gmic.study.against import HIGHER, LOWER, SAME, against_main
from gmic.study.baselines import baseline_scores
from gmic.study.build import Projected, SigmoidHead, build, images_for
from gmic.study.cohort import ImageSettings, PhantomSet, breast_plan
from gmic.study.measure import ImageFinding, examine, find, summarise
from gmic.study.run import BESIDE, start_narrow
from gmic.study.settings import (
    BINNING,
    FULL,
    MAIN,
    NETWORK,
    QUICK,
    Variant,
    shipped_config,
    study_settings,
)
from gmic.train.pretrain import PretrainConfig, Pretrainer
from tests.unit.gmic.small_study import IMAGES, SETTINGS


def test_splits_share_no_breast_and_labels_are_independent(tmp_path: Path) -> None:
    sets = {s: PhantomSet(IMAGES, s, 400, tmp_path) for s in ("train", "valid", "test")}
    breasts = {name: {e.breast_id for e in images.examples} for name, images in sets.items()}
    assert all(len(ids) == 400 for ids in breasts.values())
    assert not breasts["train"] & breasts["valid"]
    assert not breasts["train"] & breasts["test"]
    assert not breasts["valid"] & breasts["test"]
    labels = np.array([e.labels for images in sets.values() for e in images.examples][::2])
    assert np.abs(labels.mean(axis=0) - IMAGES.prevalence).max() < 0.05
    assert abs(np.corrcoef(labels.T)[0, 1]) < 0.08


def test_labels_say_which_lesions_are_there() -> None:
    seen = set()
    for seed in range(40):
        labels, specs = breast_plan(IMAGES, seed)
        assert len(specs) == 2
        for spec in specs:
            kinds = {lesion.kind for lesion in spec.lesions}
            assert kinds == {
                name for name, has in zip(("benign", "malignant"), labels, strict=True) if has
            }
        seen.add(labels)
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_a_stage_of_the_pre_training_has_contrasts_of_its_own(tmp_path: Path) -> None:
    stage = dataclasses.replace(SETTINGS.stages[0], lesion_factor=2.5, distractor_factor=1.5)
    harder = images_for(SETTINGS, MAIN, "train", tmp_path)
    easier = images_for(SETTINGS, MAIN, "train", tmp_path, stage)
    assert isinstance(harder, PhantomSet)
    assert isinstance(easier, PhantomSet)
    pairs = list(zip(harder.specs, easier.specs, strict=False))
    assert any(hard.lesions for hard, _ in pairs)
    for hard, easy in pairs:
        assert (hard.distractor_factor, easy.distractor_factor) == (1.0, 1.5)
        for one, other in zip(hard.lesions, easy.lesions, strict=True):
            assert other.place == one.place
            assert other.contrast == pytest.approx(2.5 * one.contrast)


def test_kernels_start_narrow() -> None:
    config = PretrainConfig(pooling="max", target="labels")
    usual, narrow = Pretrainer(SETTINGS.network, config), Pretrainer(SETTINGS.network, config)
    for net in (usual, narrow):
        net.initialise(3)
    start_narrow(narrow)
    shrunk = 0
    for (name, one), other in zip(usual.named_parameters(), narrow.parameters(), strict=True):
        if one.shape[2:] == (3, 3):
            shrunk += 1
            assert torch.equal(one[:, :, 1, 1], other[:, :, 1, 1]), name
            assert torch.equal(one[:, :, 0] * BESIDE, other[:, :, 0]), name
        else:
            assert torch.equal(one, other), name
    assert shrunk >= 6


def test_images_are_kept_and_made_again_the_same(tmp_path: Path) -> None:
    images = PhantomSet(IMAGES, "train", 1, tmp_path)
    first = images.volume(0)
    kept = list(tmp_path.rglob("*.npy"))
    assert len(kept) == 1
    kept[0].unlink()
    np.testing.assert_array_equal(images.volume(0), first)
    assert first.shape == (IMAGES.shape[0], *IMAGES.window_shape)
    assert first.dtype == np.float32
    assert first.mean() == pytest.approx(0, abs=0.01)
    assert first.std() == pytest.approx(1, abs=0.01)
    other = PhantomSet(dataclasses.replace(IMAGES, contrast=(2.0, 2.0)), "train", 1, tmp_path)
    other.volume(0)
    assert len(list(tmp_path.rglob("*.npy"))) == 2


@pytest.mark.parametrize("view", [0, 1])
def test_truth_lies_where_the_lesion_adds_most(tmp_path: Path, view: int) -> None:
    checked = set()
    images = PhantomSet(IMAGES, "train", 60, tmp_path)
    for index in range(view, 120, 2):
        labels, spec = images.examples[index].labels, images.specs[index]
        if labels != (0, 1) or spec.laterality in checked:
            continue
        bare = make_phantom(dataclasses.replace(spec, lesions=()))
        transform = images.transform(index)
        added = make_phantom(spec).volume_DHW.astype(float) - bare.volume_DHW
        rows, cols = np.indices(IMAGES.window_shape)
        source_rows, source_cols = transform.to_source(rows, cols)
        inside = (
            (source_rows >= 0)
            & (source_rows < spec.shape[1])
            & (source_cols >= 0)
            & (source_cols < spec.shape[2])
        )
        window = np.zeros((spec.shape[0], *IMAGES.window_shape))
        window[:, inside] = added[:, source_rows[inside], source_cols[inside]]
        mask = images.mask(index, "malignant")
        assert mask.any()
        assert not images.mask(index, "benign").any()
        assert window[mask].mean() > 10 * np.abs(window[~mask]).mean()
        checked.add(spec.laterality)
    assert checked == {"L", "R"}


def test_baselines_rise_with_a_bright_blob() -> None:
    rng = np.random.default_rng(0)
    volume = rng.standard_normal((3, 80, 60)).astype(np.float32) * 0.1 + 1
    plain = baseline_scores(volume, 4.0)
    volume[1, 30:38, 30:38] += 2
    assert all(np.subtract(baseline_scores(volume, 4.0), plain) > 0.5)


def test_projection_is_one_standardised_slice(tmp_path: Path) -> None:
    images = PhantomSet(IMAGES, "train", 1, tmp_path)
    flat = Projected(images)
    projection = flat.volume(0)
    assert flat.examples is images.examples
    assert projection.shape == (1, *IMAGES.window_shape)
    assert projection.std() == pytest.approx(1, abs=1e-3)
    mean = images.volume(0).mean(axis=0)
    assert np.corrcoef(projection.ravel(), mean.ravel())[0, 1] == pytest.approx(1)


def test_variants_differ_where_they_say() -> None:
    main = build(SETTINGS, MAIN, 0, 2)
    assert torch.equal(
        main.saliency_head.conv.weight,
        torch.full_like(main.saliency_head.conv.weight, SETTINGS.omega),
    )
    random = build(SETTINGS, Variant("r", "", constant=False), 0, 2)
    assert random.saliency_head.conv.weight.std() > 0.1
    assert torch.equal(random.global_network.stem.weight, main.global_network.stem.weight)
    sigmoid = build(SETTINGS, Variant("s", "", saliency="sigmoid"), 0, 2)
    assert isinstance(sigmoid.saliency_head, SigmoidHead)
    zero = torch.zeros(1, SETTINGS.network.stage_channels[-1], 1, 1)
    assert sigmoid.saliency_head(zero).flatten().tolist() == [0.5, 0.5]
    volume = Variant("v", "", top_t_of="volume")
    few, many = (build(SETTINGS, volume, 0, slices).config.top_t_fraction for slices in (4, 12))
    assert many == pytest.approx(3 * few)
    assert build(SETTINGS, Variant("k", "", {"num_patches": 9}), 0, 2).config.num_patches == 9
    with pytest.raises(ConfigError, match="saliency is 'softmax'"):
        build(SETTINGS, Variant("x", "", saliency="softmax"), 0, 2)


@pytest.mark.parametrize("right", [True, False])
def test_findings_tell_a_map_that_points_at_the_lesion(tmp_path: Path, right: bool) -> None:
    images = PhantomSet(IMAGES, "train", 60, tmp_path)
    index = next(i for i, e in enumerate(images.examples) if e.labels == (0, 1))
    mask = images.mask(index, "malignant")
    frame, row, col = (int(np.mean(places)) for places in np.nonzero(mask))
    model = build(SETTINGS, MAIN, 0, 2).eval()
    output = model(images.volume(index))
    field = model.receptive_field
    cells = [round((pixel - field.offset) / field.stride) for pixel in (row, col)]
    saliency = torch.zeros_like(output.saliency_CDHW)
    saliency[1, frame if right else (frame + 2) % 4, cells[0], cells[1]] = 0.9
    patch = torch.tensor([[row - 8, col - 8], [0, 0]])
    shown = dataclasses.replace(
        output,
        saliency_CDHW=saliency,
        patch_slices=torch.tensor([frame if right else (frame + 2) % 4, 0]),
        patch_corners=patch,
        patch_scores=torch.tensor([1.0, 0.1]),
    )
    found = find(model, shown, mask, 1, images.examples[index])
    assert (found.label, found.peak_hit, found.patch_hit) == ("malignant", right, right)
    assert found.peak_value == pytest.approx(0.9)
    assert found.segmentation is not None
    assert found.segmentation.pxap > 5 * mask.any(axis=0).mean()  # it points there in projection


def test_examining_gives_a_score_for_each_image_and_a_finding_for_each_label(
    tmp_path: Path,
) -> None:
    images = PhantomSet(IMAGES, "train", 4, tmp_path)
    model = build(SETTINGS, MAIN, 0, 2).eval()
    scores, findings = examine(model, images, images)
    assert [s.image_id for s in scores] == [e.image_id for e in images.examples]
    assert [s.labels for s in scores] == [e.labels for e in images.examples]
    assert len(findings) == sum(sum(e.labels) for e in images.examples) > 0


def test_summary_counts_breasts_by_their_higher_peak() -> None:
    scores = [
        ImageScore("a1", "a", "a", (0, 1), (0.1, 0.8)),
        ImageScore("a2", "a", "a", (0, 1), (0.3, 0.6)),
        ImageScore("b1", "b", "b", (1, 0), (0.7, 0.2)),
    ]
    findings = [
        ImageFinding("a", "malignant", 0.9, True, True, True, True, SegmentationScore(0.2, 0.1)),
        ImageFinding("a", "malignant", 0.5, True, False, False, True, SegmentationScore(0.4, 0.3)),
        ImageFinding("b", "benign", 0.4, False, False, True, True, None),
    ]
    summary = summarise(scores, findings)
    assert (summary["breasts"], summary["images"]) == (2, 3)
    malignant, benign = summary["malignant"], summary["benign"]
    assert malignant["auc"] == 1.0
    assert malignant["positives"] == 1
    assert malignant["peak_on_lesion"] == 1.0
    assert malignant["peak_on_lesion_images"] == 0.5
    assert malignant["dsc"] == pytest.approx(0.3)
    assert malignant["pxap"] == pytest.approx(0.2)
    assert benign["peak_on_lesion"] == 0.0
    assert benign["first_patch_on_lesion"] == 1.0
    assert malignant["first_patch_on_lesion_alone"] == 1.0
    assert benign["first_patch_on_lesion_alone"] is None
    assert benign["dsc"] is None


def _table(path: Path, scores: list[float]) -> Path:
    rows = [f"{n}-CC,{n},0,{n % 2},0.5,{score}" for n, score in enumerate(scores)]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize(
    ("variant", "finding"),
    [("good", SAME), ("poor", LOWER), ("good but compared with poor", HIGHER)],
)
def test_a_variant_is_told_from_the_main_run_by_the_interval(
    tmp_path: Path, variant: str, finding: str
) -> None:
    rng = np.random.default_rng(0)
    good = _table(tmp_path / "good.csv", [n % 2 + rng.uniform(0, 0.5) for n in range(60)])
    poor = _table(tmp_path / "poor.csv", rng.uniform(0, 1, 60).tolist())
    first, second = {"good": (good, good), "poor": (poor, good)}.get(variant, (good, poor))
    beside = against_main(first, second)
    assert beside.finding == finding
    assert beside.agrees((finding,)) == "yes"
    assert beside.agrees(tuple({LOWER, SAME, HIGHER} - {finding})) == "no"
    assert beside.agrees(()) == "not tried there"


def test_runs_on_other_breasts_are_not_compared(tmp_path: Path) -> None:
    runs = [_table(tmp_path / f"{n}.csv", [0.1] * n) for n in (4, 6)]
    with pytest.raises(DataError, match="other breasts"):
        against_main(*runs)


def test_shipped_weights_are_small_and_read_full_windows() -> None:
    model = build(FULL, MAIN, 0, 8)
    assert FULL.images.spacing_mm == pytest.approx(BINNING * 0.1)
    shipped = shipped_config(NETWORK)
    assert (shipped.window_shape, shipped.binning) == ((2116, 1339), BINNING)
    rows, cols = (n // BINNING for n in shipped.window_shape)
    assert (rows, cols) == ImageSettings().window_shape
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    assert weights < 8e6


def test_studies_have_names() -> None:
    assert study_settings("quick") is QUICK
    assert [f"{v.name}-{s}" for v, s in FULL.runs()][:3] == ["main-0", "main-1", "main-2"]
    assert FULL.breasts["test"] >= 200
    with pytest.raises(ConfigError, match="study 'huge'"):
        study_settings("huge")
