"""One thing that is wrong: what, why it matters, and what mends it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What the database finds has the same four words (sql/098_doctor.sql)."""

    finding: str
    """One word to find it by."""
    what: str
    why: str
    mend: str
    """A command, or SQL for the owner of the database."""

    @property
    def is_sql(self) -> bool:
        """Whether the mend is for psql or the dashboard's SQL editor, and no command."""
        return self.mend.endswith(";")

    def as_json(self) -> dict[str, object]:
        """All of it, for programs."""
        return {
            "finding": self.finding,
            "what": self.what,
            "why": self.why,
            "mend": self.mend,
            "is_sql": self.is_sql,
        }
