"""What the training demonstration shows after each step, from what the commands answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gmic.config import CLASSES
from node.cli import output
from workers.readback import ReportRead

CAVEAT = (
    "Made-up breasts, demonstration weights: no score and no figure says anything about patients."
)


def models(rows: Sequence[Mapping[str, Any]]) -> None:
    """Every version and its state."""
    columns = ("version", "state", "trained", "created_by")
    _table(
        ("version", "state", "trained", "by"),
        [
            [str(row[name]).lower() if name == "state" else row[name] for name in columns]
            for row in rows
        ],
    )


def labels(report: Mapping[str, Any]) -> None:
    """How many rows came to which end, and those that need a person."""
    _table(("outcome", "rows"), [pair for pair in report["counts"].items() if pair[1]])
    for row in report["rows"]:
        if row["outcome"] not in ("matched", "unchanged"):
            output.say(f"row {row['row']}: {row['outcome']}; {row['reason']}; {row['todo']}")


def dataset(row: Mapping[str, Any]) -> None:
    """Counts a split, what was left out, the content's hash."""
    splits = row["counts"]["splits"]
    headings = list(next(iter(splits.values())))
    _table(
        ("split", *headings),
        [(split, *(part[name] for name in headings)) for split, part in splits.items()],
    )
    left_out = ", ".join(f"{count} {code}" for code, count in row["counts"]["excluded"].items())
    output.say(f"left out: {left_out or 'nothing'}; content {row['content_hash'][:16]}")


def why(answers: Sequence[Mapping[str, Any]]) -> None:
    """Why the images of a study are in a data set or not: each reason once."""
    for code, reason in sorted({(one["code"], one["reason"]) for one in answers}):
        output.say(f"{code}: {reason}")


def epochs(rows: Sequence[Mapping[str, Any]]) -> None:
    """The figures of each epoch."""
    names = sorted({name for row in rows for name in row["metrics"]} - {"epoch"})
    _table(
        ("epoch", *names, "seconds"),
        [(row["epoch"], *(row["metrics"].get(n) for n in names), row["seconds"]) for row in rows],
    )


def comparison(summary: Mapping[str, Any]) -> None:
    """AUC of both versions, and the paired difference."""
    _table(
        ("", "finding", "with", "without", "candidate", "active", "difference"),
        [
            (
                f"{level}-wise", name, cell["positives"], cell["negatives"],
                *(_interval(cell[what]) for what in ("auc", "against", "difference")),
            )
            for level in ("breast", "image")
            for name in reversed(CLASSES)
            for cell in (summary[level][name],)
        ],
    )  # fmt: skip
    output.say(
        f"AUC with 95 % intervals over the patients of the test split, who are {summary['patients']}: so few say little"
    )


def report(found: ReportRead, views: Mapping[str, Mapping[str, Any]]) -> None:
    """The scores in a report that arrived, beside what is in each image, and the version that it names."""
    rows = []
    for uid, scores in found.scores.items():
        entry = views[uid]
        lesion = ", ".join(lesion["label"] for lesion in entry["lesions"]) or "none"
        view = f"{entry['laterality']}-{entry['view']}"
        rows.append((view, scores["malignant"], scores["benign"], lesion, found.model_version))
    _table(("view", "malignant", "benign", "truth", "model named in the SR"), sorted(rows))
    output.scores_notice(found.caveat)


def story(summary: Mapping[str, Any]) -> None:
    """The whole in a few lines."""
    malignant = summary["evaluation"]["breast"]["malignant"]
    promotion = summary["promotion"]
    rows = [
        ("studies read", summary["studies"]),
        ("labels matched", summary["labels"]["matched"]),
        ("data set", f"{summary['dataset']['name']} {summary['dataset']['content_hash'][:16]}"),
        ("candidate", summary["training"]["model"]),
        ("malignant AUC, breast-wise", _interval(malignant["auc"])),
        ("of the active version", _interval(malignant["against"])),
        ("paired difference", _interval(malignant["difference"])),
        ("promoted by", promotion["by"]),
        *((f"SR {one['when']}", one["model_version"]) for one in summary["reports"]),
    ]
    _table(("what", ""), rows)


def seconds(stages: Mapping[str, float]) -> None:
    """Seconds a stage, and of all."""
    rows = [*stages.items(), ("all", sum(stages.values()))]
    _table(("stage", "seconds"), [(name, f"{value:.1f}") for name, value in rows])


def _table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    output.say()
    output.table(headings, rows, "nothing")


def _interval(estimate: Mapping[str, float] | None) -> str | None:
    if estimate is None:
        return None
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"
