"""Prometheus' text format, version 0.0.4: families of samples, each with its help and its type.

    # HELP assistant_requests_total Requests by type and outcome.
    # TYPE assistant_requests_total counter
    assistant_requests_total{type="chat",outcome="done"} 12

Written here and not by prometheus_client, which keeps a registry of the whole process and would be
one package more on every gateway. Help texts are English, as everything that programs read.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram"]


class Exposition:
    """A text that grows by one family after the other."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(
        self, name: str, kind: Kind, text: str, samples: Iterable[tuple[Mapping[str, str], float]]
    ) -> None:
        """Samples of one name; nothing if there are none.

        Args:
            samples: labels and value of each.
        """
        lines = [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
        if lines:
            self._head(name, kind, text)
            self._lines += lines

    def single(self, name: str, kind: Kind, text: str, value: float | None) -> None:
        """A family of one sample without labels; None leaves it out."""
        if value is not None:
            self.family(name, kind, text, [({}, value)])

    def histogram(
        self, name: str, text: str, bounds: Iterable[float], counts: Iterable[int], total: float
    ) -> None:
        """A histogram.

        Args:
            bounds: upper bounds of the buckets, rising.
            counts: of each bucket by itself, and one more of what is above all bounds.
            total: sum of what was observed.
        """
        self._head(name, "histogram", text)
        so_far = 0
        for bound, n in zip([*bounds, float("inf")], counts, strict=True):
            so_far += n
            self._lines.append(f"{name}_bucket{_labels({'le': _number(bound)})} {so_far}")
        self._lines += [f"{name}_sum {_number(total)}", f"{name}_count {so_far}"]

    def text(self) -> str:
        """All of it."""
        return "".join(f"{line}\n" for line in self._lines)

    def _head(self, name: str, kind: Kind, text: str) -> None:
        escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
        self._lines += [f"# HELP {name} {escaped}", f"# TYPE {name} {kind}"]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
