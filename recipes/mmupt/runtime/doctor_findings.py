"""Findings of `mmupt doctor`, and their output as text or JSON. Pure."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: the subject of the check.
        status: a `problem` keeps runs from working; a `warning` slows them down or may end them.
        found: the state that the check found.
        fix: how to fix it; None if nothing needs fixing or `found` already says how.
    """

    check: str
    status: Status
    found: str
    fix: str | None = None


def as_text(findings: Sequence[Finding]) -> str:
    """Format findings as text: one line per finding, its fix below it, and a summary at the end."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        status = "OK" if finding.status == "ok" else finding.status
        lines.append(f"{status:9}{finding.check:{width}}  {finding.found}")
        if finding.fix:
            lines.append(f"{'':9}{'':{width}}  -> {finding.fix}")
    counts = {status: sum(finding.status == status for finding in findings) for status in ("problem", "warning")}
    lines += ["", ", ".join(f"{count or 'no'} {status}{'' if count == 1 else 's'}" for status, count in counts.items())]
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    """Format findings as JSON, with the worst status of all."""
    return json.dumps({"status": worst(findings), "findings": [asdict(finding) for finding in findings]}, indent=2)


def worst(findings: Iterable[Finding]) -> Status:
    """Return the worst status among findings."""
    found = {finding.status for finding in findings}
    return "problem" if "problem" in found else "warning" if "warning" in found else "ok"
