"""May a version answer for the node? Pure rules over what an evaluation measured and who asks.

With an active version: the newest evaluation compared both on the same locked test images, under the labelling rule in
force, and the lower end of the paired 95 % interval of the malignant AUC's difference, breast-wise, is not below
-margin. Without one, nothing can be compared with: where the node answers with weights of its settings, these must
become a version first; where it has untrained ones, the candidate must be better than chance, the lower end of its own
interval above 0.5. A few malignant breasts prove nothing either way, so a number of them is asked for.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.config import Settings

_WHEN = frozenset({"since", "until"})
_CHANCE = 0.5


@dataclass(frozen=True)
class Terms:
    """What is asked of a promotion.

    Attributes:
        margin: Malignant AUC that may be lost.
        min_malignant: Malignant breasts in the test split.
        two_person: Whether somebody else must approve.
        configured: Weights of the settings answer where no version is active.
    """

    margin: float = 0.02
    min_malignant: int = 10
    two_person: bool = False
    configured: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Terms:
        """Those of the node."""
        return cls(
            settings.promotion_margin,
            settings.promotion_min_malignant,
            settings.two_person_promotion,
            settings.weights is not None,
        )


@dataclass(frozen=True)
class Signed:
    """Who wants a change, who approves of it, and why. `override` puts the reason in the evaluation's place."""

    by: str
    approved_by: str | None = None
    reason: str | None = None
    override: bool = False


@dataclass(frozen=True)
class Evidence:
    """What the newest evaluation of a candidate says, as far as the rule asks. AUCs are malignant and breast-wise.

    Attributes:
        against_id: The version it was compared with; None where it stood alone.
        rule_in_force: Whether its data set was frozen under the rule of the newest data set.
        malignant_breasts: In the test split, as evaluated.
        auc_low: Lower end of the candidate's own interval; None with one class only.
        difference_low: Lower end of the paired interval, candidate less the other; None without the other.
        failed_alone: Images that the candidate could not read and the other could.
    """

    against_id: uuid.UUID | None
    rule_in_force: bool
    malignant_breasts: int
    auc_low: float | None
    difference_low: float | None
    failed_alone: int = 0

    @classmethod
    def of(
        cls, against_id: uuid.UUID | None, summary: Mapping[str, Any], rule_in_force: bool
    ) -> Evidence:
        """From an evaluation's summary (`workers.comparison`)."""
        malignant = summary["breast"]["malignant"]
        auc, difference = malignant["auc"], malignant["difference"]
        return cls(
            against_id,
            rule_in_force,
            malignant["positives"],
            auc and auc["low"],
            difference and difference["low"],
            summary["failed_alone"],
        )


def same_rule(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two data sets were frozen under one rule; the dates they span may differ."""
    names = (set(one) | set(other)) - _WHEN
    return all(one.get(name) == other.get(name) for name in names)


def refusal(evidence: Evidence | None, active_id: uuid.UUID | None, terms: Terms) -> str | None:
    """Why the evidence does not carry a promotion, and None where it does."""
    if evidence is None:
        return "it has no evaluation on a locked test split; make one"
    if evidence.against_id != active_id:
        return (
            "its newest evaluation does not compare it with the version now active; make a new one"
        )
    if not evidence.rule_in_force:
        return "its newest evaluation is on a data set frozen under another rule than the newest; evaluate on that"
    if evidence.malignant_breasts < terms.min_malignant:
        return (
            f"its evaluation has {evidence.malignant_breasts} malignant breasts, at least {terms.min_malignant} are"
            " asked for (TOMONODE_PROMOTION_MIN_MALIGNANT); freeze a larger data set"
        )
    if evidence.failed_alone:
        return f"it failed on {evidence.failed_alone} test images that the active version could read; see why"
    return _figures(evidence, active_id, terms)


def _figures(evidence: Evidence, active_id: uuid.UUID | None, terms: Terms) -> str | None:
    if active_id is None:
        if terms.configured:
            return (
                "the weights of TOMONODE_WEIGHTS answer now, and it is compared with none; import and promote them"
                " first (tomonode model import), then compare"
            )
        if evidence.auc_low is None or evidence.auc_low <= _CHANCE:
            return f"its malignant AUC is not above chance: lower end {_figure(evidence.auc_low)}, wanted above 0.5"
        return None
    if evidence.difference_low is None or evidence.difference_low < -terms.margin:
        return (
            "it may be worse than the active version: lower end of the malignant AUC's paired difference"
            f" {_figure(evidence.difference_low)}, wanted at least {-terms.margin:g} (TOMONODE_PROMOTION_MARGIN)"
        )
    return None


def unsigned(signed: Signed, terms: Terms) -> str | None:
    """What is missing of names and reasons, and None where nothing is."""
    if not signed.by.strip():
        return "nobody is named who wants it; give --by"
    if signed.override and not (signed.reason or "").strip():
        return "an override needs its reason; give --reason"
    if terms.two_person:
        approver = (signed.approved_by or "").strip()
        if not approver:
            return (
                "a second person must approve (TOMONODE_TWO_PERSON_PROMOTION); give --approved-by"
            )
        if approver.casefold() == signed.by.strip().casefold():
            return f"{approver!r} cannot approve their own wish (TOMONODE_TWO_PERSON_PROMOTION); ask somebody else"
    return None


def _figure(value: float | None) -> str:
    return "none, for one class has no case" if value is None else f"{value:.3f}"
