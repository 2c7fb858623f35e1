"""Fails unless .ci/locked.txt pins all that pyproject.toml asks for, within its bounds, by hashes."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

EXTRAS = ("test", "dev", "docs", "stress")
root = Path(__file__).parents[1]
config = tomllib.loads((root / "pyproject.toml").read_text())
text = (root / ".ci" / "locked.txt").read_text()
if re.search(r"://|^-|@", re.sub(r"^ *#.*$", "", text, flags=re.M), flags=re.M):
    raise SystemExit("locked.txt: names a place to download from")
pinned: dict[str, list[Requirement]] = {}
for entry in re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.M).strip()):
    requirement = Requirement(entry.split("\\")[0].strip())
    if [x.operator for x in requirement.specifier] != ["=="] or not re.search(r"--hash=sha256:[0-9a-f]{64}", entry):
        raise SystemExit(f"locked.txt: {requirement.name}: expected one version and its hashes")
    pinned.setdefault(requirement.name, []).append(requirement)

wanted, project = list(config["build-system"]["requires"]), config["project"]
wanted += project["dependencies"]
extras, queue = project["optional-dependencies"], list(EXTRAS)
for extra in queue:
    for line in extras[extra]:
        if line.startswith("hebbax["):
            queue += [x for x in re.findall(r"[\w-]+", line)[1:] if x not in queue]
        else:
            wanted.append(line)
for line in wanted:
    requirement = Requirement(line)
    name = re.sub(r"[-_.]+", "-", requirement.name).lower()
    if name not in pinned:
        raise SystemExit(f"locked.txt: lacks {name}: make lock")
    for pin in pinned[name]:
        version = next(iter(pin.specifier)).version
        if not requirement.specifier.contains(version, prereleases=True):
            raise SystemExit(f"locked.txt: has {pin}, expected {requirement}: make lock")
print(f"locked.txt: {len(pinned)} packages, with hashes; all {len(wanted)} that pyproject.toml asks for")
