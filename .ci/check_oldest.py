"""Fails unless .ci/oldest.txt pins exactly the lower bounds that pyproject.toml declares."""

import itertools
import pathlib
import tomllib

root = pathlib.Path(__file__).parent.parent
config = tomllib.loads((root / "pyproject.toml").read_text())
requirements = itertools.chain(
    config["build-system"]["requires"],
    config["project"]["dependencies"],
    *config["project"]["optional-dependencies"].values(),
)
bounds = {requirement.split(";")[0].replace(">=", "==") for requirement in requirements if ">=" in requirement}
pins = {line.split(";")[0] for line in (root / ".ci/oldest.txt").read_text().splitlines() if line[0] != "#"}
if bounds != pins:
    raise SystemExit(f"pyproject.toml and .ci/oldest.txt differ in: {', '.join(sorted(bounds ^ pins))}")
