"""The status word in SQL, made from `lifecycle.status` itself, so that the two cannot disagree."""

from __future__ import annotations

from itertools import product
from typing import TypeVarTuple

from sqlalchemy import ColumnElement, Select, case, func, select
from sqlalchemy.orm import aliased

from node import lifecycle
from node.lifecycle import DeliveryState, RunState, StudyState
from node.models import Delivery, Run, Study

_Columns = TypeVarTuple("_Columns")

_OPEN = (DeliveryState.PENDING, DeliveryState.SENDING)
_GROUPS = (_OPEN, (DeliveryState.FAILED,), (DeliveryState.SENT,))

# Which groups a run's deliveries are in, for all runs at once: asked run by run, SQLite reads every delivery of a state
# for each run.
_deliveries = (
    select(
        Delivery.run_id,
        *(
            func.max(case((Delivery.state.in_(group), "1"), else_="0")).label(f"group_{index}")
            for index, group in enumerate(_GROUPS)
        ),
    )
    .group_by(Delivery.run_id)
    .subquery("by_run")
)


def with_newest_run(query: Select[*_Columns]) -> Select[*_Columns]:
    """Join each study's newest run, if it has one; runs in shadow do not count."""
    one = aliased(Run)
    newest = (
        select(one.id)
        .where(one.study_id == Study.id, one.shadow.is_(False))
        .order_by(one.created_at.desc())
        .limit(1)
        .correlate(Study)
        .scalar_subquery()
    )
    return query.outerjoin(Run, Run.id == newest)


def with_shape(query: Select[*_Columns]) -> Select[*_Columns]:
    """Join all that `shape` needs."""
    return with_newest_run(query).outerjoin(_deliveries, _deliveries.c.run_id == Run.id)


def shape() -> ColumnElement[str]:
    """All that `lifecycle.status` depends on, as one text, such as `COMPLETE|SUCCEEDED|100`."""
    text: ColumnElement[str] = Study.state + "|" + func.coalesce(Run.state, "") + "|"
    for index in range(len(_GROUPS)):
        text = text + func.coalesce(_deliveries.c[f"group_{index}"], "0")
    return text


def word_of_shapes() -> dict[str, str]:
    """The status word of every shape, asked of `lifecycle.status`."""
    words = {}
    for study, run in product(StudyState, (None, *RunState)):
        for flags in product((False, True), repeat=len(_GROUPS)):
            present = [group[0] for group, flag in zip(_GROUPS, flags, strict=True) if flag]
            text = "".join("1" if flag else "0" for flag in flags)
            words[f"{study}|{run or ''}|{text}"] = lifecycle.status(study, run, present)
    return words
