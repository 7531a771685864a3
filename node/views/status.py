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


def with_newest_run(query: Select[*_Columns]) -> Select[*_Columns]:
    """Join each study's newest run, if it has one."""
    one = aliased(Run)
    newest = (
        select(one.id)
        .where(one.study_id == Study.id)
        .order_by(one.created_at.desc())
        .limit(1)
        .correlate(Study)
        .scalar_subquery()
    )
    return query.outerjoin(Run, Run.id == newest)


_OPEN = (DeliveryState.PENDING, DeliveryState.SENDING)
_GROUPS = (_OPEN, (DeliveryState.FAILED,), (DeliveryState.SENT,))


def shape() -> ColumnElement[str]:
    """All that `lifecycle.status` depends on, as one text, such as `COMPLETE|SUCCEEDED|+--`."""
    flags = [
        case(
            (
                select(Delivery.id)
                .where(Delivery.run_id == Run.id, Delivery.state.in_(group))
                .exists(),
                "+",
            ),
            else_="-",
        )
        for group in _GROUPS
    ]
    text: ColumnElement[str] = Study.state + "|" + func.coalesce(Run.state, "") + "|"
    for flag in flags:
        text = text + flag
    return text


def word_of_shapes() -> dict[str, str]:
    """The status word of every shape, asked of `lifecycle.status`, so that SQL and Python cannot disagree."""
    words = {}
    for study, run in product(StudyState, (None, *RunState)):
        for flags in product((False, True), repeat=len(_GROUPS)):
            present = [group[0] for group, flag in zip(_GROUPS, flags, strict=True) if flag]
            text = "".join("+" if flag else "-" for flag in flags)
            words[f"{study}|{run or ''}|{text}"] = lifecycle.status(study, run, present)
    return words
