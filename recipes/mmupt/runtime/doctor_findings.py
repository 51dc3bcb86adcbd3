"""What a check of `mmupt doctor` found, and how all of it is shown. Pure."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: what was looked at.
        status: `problem` is what keeps runs from working, `warning` what slows them down or may end them.
        found: what is there.
        fix: what to do about it, None where nothing needs to be done or `found` says it.
    """

    check: str
    status: Status
    found: str
    fix: str | None = None


def as_text(findings: Sequence[Finding]) -> str:
    """One line per finding, with its fix below it, and a summary."""
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
    """The findings as a list of objects, with the worst status of all."""
    return json.dumps({"status": worst(findings), "findings": [asdict(finding) for finding in findings]}, indent=2)


def worst(findings: Iterable[Finding]) -> Status:
    """The worst status among findings."""
    found = {finding.status for finding in findings}
    return "problem" if "problem" in found else "warning" if "warning" in found else "ok"
