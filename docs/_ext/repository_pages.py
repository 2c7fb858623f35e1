"""Pages of the repository on the site: its links, its results and examples, and the help of the command line.

A link in a page is written as it works in the repository. What it leads to may have another place on the site; or be no
page of it: a file then is to be downloaded, and a folder has no link.
"""

import os
import posixpath
import re
import shutil
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"
EXPERIMENTS = "song2000", "cuba", "brunel10k", "hpc", "reward", "digits"
COMMANDS = ("", "info", "simulate", *(f"simulate {name}" for name in EXPERIMENTS), "sweep", "replay")
MAKERS = {  # of objects that programs do not make by their classes' names
    "hebbax.Backend": "hebbax.backends",
    "hebbax.Rewired": "hebbax.rewire_within",
    "hebbax.brainevent.Enabled": "hebbax.brainevent.enable",
    "hebbax.delays.DelayState": "hebbax.delays.DelayedSynapses",
    "hebbax.rules.ClopathTraces": "hebbax.ClopathSTDP",
    "hebbax.rules.HomeostaticTraces": "hebbax.HomeostaticTripletSTDP",
    "hebbax.rules.PairTraces": "hebbax.PairSTDP",
    "hebbax.rules.PreTrace": "hebbax.DiehlCookSTDP",
    "hebbax.rules.ScalingState": "hebbax.SynapticScaling",
    "hebbax.rules.ShortTermState": "hebbax.ShortTermPlasticity",
    "hebbax.rules.RewardTraces": "hebbax.RewardSTDP",
    "hebbax.rules.TripletTraces": "hebbax.TripletSTDP",
    "hebbax.sharding.Layout": "hebbax.sharding.split",
    "hebbax.sharding.ShardedSynapses": "hebbax.sharding.split",
}
GALLERY = re.compile(r"docs/(tutorials|experiments)/(?:(\w+)\.py|README\.rst)")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def copies() -> dict[str, str]:
    """Documents of the site that are files elsewhere in the repository."""
    found = {"generated/changelog": "CHANGELOG.md"}
    for path in sorted((REPOSITORY / "benchmarks/results").glob("*.md")):
        found[f"generated/results/{path.stem}"] = f"benchmarks/results/{path.name}"
    for path in sorted(EXAMPLES.rglob("README.md")):
        name = path.parent.relative_to(EXAMPLES).as_posix()
        found[f"generated/examples/{'index' if name == '.' else name}"] = path.relative_to(REPOSITORY).as_posix()
    return found


def link_on_site(target: str, origin: str, name: str) -> str | None:
    """What the link `target` of the file `origin` is in the document `name`; None where it leads to no file."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
    if not (REPOSITORY / path).is_file():
        return None
    place = {file: f"{document}.md" for document, file in copies().items()} | {"README.md": "index.md"}
    if found := GALLERY.fullmatch(path):
        place[path] = f"generated/{found[1]}/{found[2] or 'index'}.rst"
    return posixpath.relpath(place.get(path) or posixpath.relpath(path, "docs"), posixpath.dirname(name) or ".")


def on_site(text: str, origin: str, name: str) -> str:
    """The text of the file `origin` as that of the document `name`."""

    def moved(link: re.Match) -> str:
        image, words, target, anchor = link.groups(default="")
        if re.match(r"[a-z]+:", target):
            return link[0]
        target = link_on_site(target, origin, name)
        return words if target is None else f"{image}[{words}]({target}{anchor})"

    parts = FENCED.split(text)
    parts[::2] = [LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)


def read(app, name: str, source: list[str]) -> None:
    """Turn the links of a page; if it has no title, give it its file's name. The first page is the README."""
    if name == "index":
        readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
        source[0] = on_site(readme, "README.md", name) + source[0]
        return
    origin = copies().get(name, f"docs/{name}.md")
    if (REPOSITORY / origin).is_file():
        title = "" if origin.startswith("docs/") or source[0].startswith("# ") else f"# {Path(origin).stem}\n\n"
        source[0] = title + on_site(source[0], origin, name)


def uses() -> dict[str, list[str]]:
    """The documents whose examples use a name of hebbax, for the names' own pages."""
    origins = {f"docs/{path.name}": path.stem for path in (REPOSITORY / "docs").glob("*.md")}
    origins |= {path.relative_to(REPOSITORY).as_posix(): "generated/examples/index" for path in EXAMPLES.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for origin, document in sorted({"README.md": "index", **origins}.items()):
        text = (REPOSITORY / origin).read_text(encoding="utf-8")
        code = text if origin.endswith(".py") else "".join(re.findall(r"^```py(?:thon)?$.*?^```$", text, re.M | re.S))
        for name in re.findall(r"\bhebbax(?:\.\w+)+", code):
            parts = name.split(".")
            for length in range(2, len(parts) + 1):
                found.setdefault(".".join(parts[:length]), set()).add(document)
    found |= {name: found.get(name, set()) | found.get(maker, set()) for name, maker in MAKERS.items()}
    return {name: sorted(documents) for name, documents in sorted(found.items()) if documents}


def write(app) -> None:
    """Put what is to be on the site into the sources' folder."""
    folder = Path(app.srcdir)
    for name, origin in copies().items():
        path = folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / origin, path)
    (folder / "generated/command_line.md").write_text(command_line(), encoding="utf-8")


def command_line() -> str:
    """A page with the help of every command."""
    os.environ |= {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}  # as rich and typer read them
    from typer.testing import CliRunner

    from hebbax import cli

    lines = ["# Command line", "", "What `hebbax --help` says, and that of each command.", ""]
    for command in COMMANDS:
        result = CliRunner().invoke(cli.app, [*command.split(), "--help"], prog_name="hebbax")
        if result.exit_code:
            raise RuntimeError(f"hebbax {command} --help: {result.output}")
        lines += [f"## {f'hebbax {command}'.strip()}", "", "```text", result.output.strip("\n"), "```", ""]
    return "\n".join(lines)


def setup(app) -> dict[str, bool]:
    app.connect("builder-inited", write, priority=100)  # before other extensions look for pages
    app.connect("source-read", read)
    return {"parallel_read_safe": True}
