"""A node with routing rules in a file: a database, two peers, and what became of its studies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from node import schema, studies
from node.config import Settings
from node.db import Database, now
from node.model_version import UNTRAINED
from node.models import Run, TimelineEvent
from node.rules import apply
from tests.conftest import make_settings
from tests.support.factory import Factory

RULES = """
[[rule]]
name = "test patients"
when = { calling_ae = "TEST*" }
then = { model = "none" }

[[rule]]
name = "left"
when = { views = ["L-CC"] }
then = { destinations = ["pacs"], results = { pacs = ["SR", "CAD_SR"] } }
"""


@dataclass(frozen=True)
class RuledNode:
    """A database with rules, and the file that holds them."""

    factory: Factory
    file: Path

    @property
    def settings(self) -> Settings:
        """Of the node."""
        return self.factory.settings

    def write(self, text: str) -> None:
        """Save the file anew."""
        self.file.write_text(text)

    def close(self, study_uid: str) -> None:
        """The study is complete."""
        with self.factory.db.transaction() as session:
            studies.force_complete(session, study_uid, self.settings, UNTRAINED, now(session))

    def run(self, study_uid: str) -> Run | None:
        """Its newest run."""
        run_id = self.factory.newest_run(study_uid)
        with self.factory.db.reading() as session:
            return None if run_id is None else session.get_one(Run, run_id)

    def history(self, study_uid: str) -> list[str]:
        """Its lines."""
        with self.factory.db.reading() as session:
            study = studies.find(session, study_uid)
            query = select(TimelineEvent).where(TimelineEvent.study_id == study.id)
            rows = session.execute(query.order_by(TimelineEvent.id)).scalars()
            return [f"{row.kind}: {row.message}" for row in rows]

    def rule_names(self) -> list[str]:
        """Of the rules in force."""
        with self.factory.db.reading() as session:
            return [rule.name for rule in apply.in_force(session, self.settings)]


@contextmanager
def ruled_node(folder: Path) -> Iterator[RuledNode]:
    """A node with the peers `pacs` and `archive`, and the rules above."""
    file = folder / "rules.toml"
    file.write_text(RULES)
    settings = make_settings(folder / "home", rules=file)
    schema.upgrade(settings.db_url)
    db = Database(settings.db_url)
    made = RuledNode(Factory(db, settings), file)
    for name in ("pacs", "archive"):
        made.factory.peer(name)
    try:
        yield made
    finally:
        db.dispose()
