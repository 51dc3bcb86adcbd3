"""Draw the subpackages of the three packages and their imports as the Mermaid block in docs/architecture.md.

    .venv/bin/python scripts/draw_architecture.py

mmupt_data counts as one subpackage. An arrow from A to B means that a module of A imports a module of B, directly or
through modules outside all subpackages. Arrows that follow from others are omitted. A subpackage is coloured if it
imports veRL, Ray, vLLM, torch or transformers itself.
"""

from pathlib import Path

import grimp

PAGE = Path(__file__).parent.parent / "docs" / "architecture.md"
START, END = "<!-- drawn by scripts/draw_architecture.py -->\n", "<!-- end of the drawing -->\n"
PACKAGES = ("mmupt", "mmupt_data", "verl_ext")
HEAVY = ("verl", "ray", "vllm", "torch", "transformers")


def subpackages(graph: grimp.ImportGraph) -> list[str]:
    """Return the subpackages of mmupt and verl_ext, and mmupt_data as a whole."""
    packages = {".".join(module.split(".")[:2]) for module in graph.modules if module.count(".") >= 2}
    return [*sorted(name for name in packages if name.startswith(("mmupt.", "verl_ext."))), "mmupt_data"]


def imports_between(graph: grimp.ImportGraph, names: list[str]) -> dict[str, set[str]]:
    """Return the subpackages that each subpackage imports, directly or through modules outside all subpackages."""

    def subpackage_of(module: str) -> str | None:
        return next((name for name in names if module == name or module.startswith(f"{name}.")), None)

    imports: dict[str, set[str]] = {}
    for name in names:
        targets: set[str] = set()
        seen: set[str] = set()
        queue = [module for module in graph.modules if subpackage_of(module) == name]
        while queue:
            for imported in graph.find_modules_directly_imported_by(queue.pop()):
                target = subpackage_of(imported)
                if target not in (None, name):
                    targets.add(target)
                elif target is None and imported.split(".")[0] in PACKAGES and imported not in seen:
                    seen.add(imported)
                    queue.append(imported)
        imports[name] = targets
    return imports


def without_shortcuts(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the transitive reduction of an acyclic graph."""

    def below(name: str) -> set[str]:
        return edges[name].union(*map(below, edges[name]))

    return {
        name: {to for to in direct if all(to not in below(other) for other in direct)} for name, direct in edges.items()
    }


def draw() -> str:
    """Return the Mermaid block."""
    graph = grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)
    names = subpackages(graph)
    heavy = [
        name
        for name in names
        if any(
            imported in HEAVY
            for module in graph.modules
            if module == name or module.startswith(f"{name}.")
            for imported in graph.find_modules_directly_imported_by(module)
        )
    ]
    ids = {name: name.replace(".", "_") for name in names}
    lines = ["```mermaid", "flowchart TB"]
    for package in PACKAGES:
        inside = [name for name in names if name.split(".")[0] == package]
        lines.append(f"  subgraph {package}_package [{package}]")
        lines += [f"    {ids[name]}[{name.split('.')[-1]}]" for name in inside]
        lines.append("  end")
    edges = without_shortcuts(imports_between(graph, names))
    lines += [f"  {ids[name]} --> {ids[to]}" for name in names for to in sorted(edges[name])]
    lines.append(f"  class {','.join(ids[name] for name in heavy)} heavy")
    lines += ["  classDef heavy fill:#f6d5a7,stroke:#b36b00,color:#000", "```"]
    return "\n".join(lines) + "\n"


def drawn(page: str) -> str:
    """Return the page with a new drawing."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return before + START + draw() + END + after


def main() -> None:
    PAGE.write_text(drawn(PAGE.read_text()))


if __name__ == "__main__":
    main()
