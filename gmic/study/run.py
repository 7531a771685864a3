"""One run of the study, a (variant, seed) pair, into a folder of its own; going on where it stood.

pretrain-0 ...     the stages of the pre-training (`gmic.train.loop`)
train              the training of the whole model
result.json        the figures; a run that has them is done
scores.csv         a row for each test image
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gmic.model import GMIC3D
from gmic.study.baselines import BASELINES, baseline_scores
from gmic.study.build import build, images_for
from gmic.study.cohort import PhantomSet
from gmic.study.measure import examine, summarise
from gmic.study.settings import StudySettings, Variant
from gmic.train.checkpoint import write_atomically
from gmic.train.pretrain import (
    PretrainConfig,
    Pretrainer,
    load_pretrained,
    pretrain,
    transfer,
)
from gmic.train.task import Progress
from gmic.train.trainer import train
from gmic.weights import load

Say = Callable[[str], None]
BESIDE = 0.75
"""Share of its drawn weights that a kernel starts with off its centre. With 0.5 one seed of three did not learn the
malignant lesions, whose spicules lie off the centre."""


def run(
    settings: StudySettings, variant: Variant, seed: int, out: Path, say: Say
) -> dict[str, Any]:
    """Pre-train, train and test; steps that are done already are read back.

    Args:
        settings: The study.
        variant: What is built and trained.
        seed: Of all chance in it.
        out: Folder of the study; the run takes `runs/<variant>-<seed>` in it, the pre-training
            `pretrained/<dbt or projection>-<seed>`, which runs share, and images `images`.
        say: Told what happens.

    Raises:
        GmicError: See `gmic.train`.
        OSError: The folder cannot be written.
    """
    folder = out / "runs" / f"{variant.name}-{seed}"
    done = folder / "result.json"
    if done.exists():
        result: dict[str, Any] = json.loads(done.read_text())
        return result
    started = time.monotonic()
    pretrained = _pretrain(settings, variant, seed, out, say)
    model = _train(settings, variant, seed, out, pretrained, say)
    say(f"{folder.name}: testing")
    truth = PhantomSet(settings.images, "test", settings.breasts["test"], out / "images")
    images = images_for(settings, variant, "test", out / "images")
    scores, findings = examine(model, images, truth)
    result = {
        "study": settings.name,
        "variant": variant.name,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **summarise(scores, findings),
    }
    rows = [[s.image_id, s.breast_id, *s.labels, *s.scores] for s in scores]
    table = "\n".join(",".join(map(str, row)) for row in rows) + "\n"
    write_atomically(folder / "scores.csv", table.encode())
    write_atomically(done, (json.dumps(result, indent=2) + "\n").encode())
    return result


def _pretrain(
    settings: StudySettings, variant: Variant, seed: int, out: Path, say: Say
) -> Pretrainer:
    """The global network, pre-trained stage by stage; variants that see the same images share it."""
    what = "projection" if variant.projection else "dbt"
    base = out / "pretrained" / f"{what}-{seed}"
    net = Pretrainer(settings.network, PretrainConfig(pooling="max", target="labels"))
    net.initialise(seed)
    start_narrow(net)
    _start_head(net, seed)
    for number, stage in enumerate(settings.stages):
        folder = base / f"stage-{number}"
        train_set, valid_set = (
            images_for(settings, variant, split, out / "images", stage)
            for split in ("train", "valid")
        )
        config = replace(stage.training, seed=seed, **_flat(variant))
        done = pretrain(
            net, train_set, valid_set, config, folder, resume=True, on_progress=_teller(say, folder)
        )
        net = load_pretrained(done.weights)
    return net


def start_narrow(net: Pretrainer) -> None:
    """Let every cell see mostly what it stands for, at first.

    Image labels and a maximum leave it open which of the cells that see a lesion answers, and the maps of some seeds
    came to lie a cell beside it. Kernels that start with `BESIDE` of their weights off the centre settle it early.
    """
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            with torch.no_grad():
                centre = module.weight[:, :, 1, 1].clone()
                module.weight *= BESIDE
                module.weight[:, :, 1, 1] = centre


def _start_head(net: Pretrainer, seed: int) -> None:
    """Draw the linear layer's first weights.

    From zeros, all it sees at first are maxima that every breast has, such as the skin's, and the
    network stays where it is: measured, after 100 steps the AUC was 0.5 in place of 0.99 (benign).
    """
    weight = net.classifier.weight
    most = weight.shape[1] ** -0.5
    drawn = np.random.default_rng([seed, 2]).uniform(-most, most, tuple(weight.shape))
    with torch.no_grad():
        weight.copy_(torch.from_numpy(drawn))


def _train(
    settings: StudySettings,
    variant: Variant,
    seed: int,
    out: Path,
    pretrained: Pretrainer,
    say: Say,
) -> GMIC3D:
    """The whole model, with the weights of its best epoch, in evaluation mode."""
    folder = out / "runs" / f"{variant.name}-{seed}" / "train"
    config = replace(settings.training, seed=seed, **_flat(variant))
    depth = 1 if variant.projection else settings.images.shape[0]
    model = build(settings, variant, seed, depth // config.slice_step)
    transfer(pretrained, model)
    train_set, valid_set = (
        images_for(settings, variant, split, out / "images") for split in ("train", "valid")
    )
    done = train(
        model, train_set, valid_set, config, folder, resume=True, on_progress=_teller(say, folder)
    )
    model.load_state_dict(load(done.weights)[0].state_dict())
    if variant.top_t_of == "volume":
        model.config = build(settings, variant, seed, depth).config
    return model.eval()


def _flat(variant: Variant) -> dict[str, Any]:
    """Settings of a training on single slices."""
    return {"slice_step": 1} if variant.projection else {}


def _teller(say: Say, folder: Path) -> Callable[[Progress], None]:
    """Tells of every 25th step and every epoch."""

    def tell(progress: Progress) -> None:
        where = f"{folder.parent.name}/{folder.name} epoch {progress.epoch}"
        if progress.metrics is not None:
            figures = ", ".join(f"{k} {v:.3f}" for k, v in progress.metrics.items())
            say(f"{where}: loss {progress.loss:.3f}, {figures} ({progress.seconds:.0f} s)")
        elif progress.step % 25 == 0:
            say(f"{where} step {progress.step}/{progress.steps}: loss {progress.loss:.3f}")

    return tell


def baselines(settings: StudySettings, out: Path) -> dict[str, Any]:
    """Breast-wise AUC of the trivial baselines on the test set; read back when measured already."""
    from gmic.config import CLASSES
    from gmic.evaluate.roc import bootstrap_auc

    done = out / "baselines.json"
    if done.exists():
        kept: dict[str, Any] = json.loads(done.read_text())
        return kept
    images = PhantomSet(settings.images, "test", settings.breasts["test"], out / "images")
    values = np.array(
        [
            baseline_scores(images.volume(i), settings.images.mean_radius_px)
            for i in range(len(images.examples))
        ]
    )
    breasts = sorted({e.breast_id for e in images.examples})
    members = {b: [i for i, e in enumerate(images.examples) if e.breast_id == b] for b in breasts}
    labels_N2 = np.array([images.examples[members[b][0]].labels for b in breasts])
    means_N2 = np.array([values[members[b]].mean(axis=0) for b in breasts])
    result: dict[str, Any] = {}
    for column, name in enumerate(BASELINES):
        result[name] = {}
        for place, label in enumerate(CLASSES):
            estimate = bootstrap_auc(labels_N2[:, place], means_N2[:, column])
            if estimate is not None:
                result[name][label] = [estimate.value, estimate.low, estimate.high]
    write_atomically(done, (json.dumps(result, indent=2) + "\n").encode())
    return result
