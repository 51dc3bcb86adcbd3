"""Draw the rooms of the three packages and what they import, as the Mermaid block in docs/architecture.md.

    .venv/bin/python scripts/draw_architecture.py

A room is a package inside verl_ext or mmupt; mmupt_data is one room. An arrow from A to B means that a module of A
imports one of B, directly or through modules outside of any room. Arrows that follow from others are omitted. A room is
coloured if it imports veRL, Ray, vLLM, torch or transformers itself.
"""

from pathlib import Path

import grimp

PAGE = Path(__file__).parent.parent / "docs" / "architecture.md"
START, END = "<!-- drawn by scripts/draw_architecture.py -->\n", "<!-- end of the drawing -->\n"
PACKAGES = ("mmupt", "mmupt_data", "verl_ext")
HEAVY = ("verl", "ray", "vllm", "torch", "transformers")


def rooms(graph: grimp.ImportGraph) -> list[str]:
    """Sub-packages of mmupt and verl_ext, and mmupt_data as a whole."""
    packages = {".".join(module.split(".")[:2]) for module in graph.modules if module.count(".") >= 2}
    return [*sorted(room for room in packages if room.startswith(("mmupt.", "verl_ext."))), "mmupt_data"]


def imports_between(graph: grimp.ImportGraph, names: list[str]) -> dict[str, set[str]]:
    """Which rooms each room imports, directly or through modules that are in none."""

    def room_of(module: str) -> str | None:
        return next((room for room in names if module == room or module.startswith(f"{room}.")), None)

    found: dict[str, set[str]] = {}
    for room in names:
        reached: set[str] = set()
        seen: set[str] = set()
        left = [module for module in graph.modules if room_of(module) == room]
        while left:
            for imported in graph.find_modules_directly_imported_by(left.pop()):
                target = room_of(imported)
                if target not in (None, room):
                    reached.add(target)
                elif target is None and imported.split(".")[0] in PACKAGES and imported not in seen:
                    seen.add(imported)
                    left.append(imported)
        found[room] = reached
    return found


def without_shortcuts(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """The transitive reduction of a graph without circles."""

    def below(room: str) -> set[str]:
        return edges[room].union(*map(below, edges[room]))

    return {
        room: {to for to in direct if all(to not in below(other) for other in direct)} for room, direct in edges.items()
    }


def draw() -> str:
    """The Mermaid block."""
    graph = grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)
    names = rooms(graph)
    heavy = [
        room
        for room in names
        if any(
            imported in HEAVY
            for module in graph.modules
            if module == room or module.startswith(f"{room}.")
            for imported in graph.find_modules_directly_imported_by(module)
        )
    ]
    ids = {room: room.replace(".", "_") for room in names}
    lines = ["```mermaid", "flowchart TB"]
    for package in PACKAGES:
        inside = [room for room in names if room.split(".")[0] == package]
        lines.append(f"  subgraph {package}_package [{package}]")
        lines += [f"    {ids[room]}[{room.split('.')[-1]}]" for room in inside]
        lines.append("  end")
    edges = without_shortcuts(imports_between(graph, names))
    lines += [f"  {ids[room]} --> {ids[to]}" for room in names for to in sorted(edges[room])]
    lines.append(f"  class {','.join(ids[room] for room in heavy)} heavy")
    lines += ["  classDef heavy fill:#f6d5a7,stroke:#b36b00,color:#000", "```"]
    return "\n".join(lines) + "\n"


def drawn(page: str) -> str:
    """The page with its drawing made anew."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return before + START + draw() + END + after


def main() -> None:
    PAGE.write_text(drawn(PAGE.read_text()))


if __name__ == "__main__":
    main()
