"""What a check has found."""

from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["ok", "skipped", "warning", "problem"]
"""skipped: could not be looked at, or there is nothing to look at. warning: works, but not as well
or as safely as it could. problem: does not work, or will not after the next start."""


@dataclass(frozen=True)
class Finding:
    """One thing that is fine, or is not.

    Attributes:
        id: stable, CHECK or CHECK.CASE: for programs, and for looking it up in the documentation.
        found: what was seen.
        why: why it matters; empty if it is fine.
        mend: what to do: a command, or a sentence.
        details: for --verbose and --json, in English.
    """

    id: str
    severity: Severity
    found: str
    why: str = ""
    mend: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def check(self) -> str:
        """The check that found it."""
        return self.id.partition(".")[0]


def ok(check: str, found: str, **details: Any) -> Finding:
    """All is well."""
    return Finding(check, "ok", found, details=details)


def skipped(check: str, found: str, **details: Any) -> Finding:
    """There is nothing to look at, or it cannot be."""
    return Finding(check, "skipped", found, details=details)


def warning(id: str, found: str, why: str, mend: str, **details: Any) -> Finding:
    """It could be better."""
    return Finding(id, "warning", found, why, mend, details)


def problem(id: str, found: str, why: str, mend: str, **details: Any) -> Finding:
    """It does not work."""
    return Finding(id, "problem", found, why, mend, details)
