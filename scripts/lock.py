"""Write constraints.txt: the exact version of every package that `make install` installs, chosen by pip's resolver.

usage: scripts/lock.py            write it
       scripts/lock.py --check    compare it with what is installed and with what setup.cfg asks for
"""

import importlib.metadata
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PINS, LOCK = ROOT / "constraints.in", ROOT / "constraints.txt"
TOOLS = ("torch", "setuptools", "wheel", "cython", "numpy")
EXTRAS = ("fairseq-needs", "report", "hf", "dev")
# fairseq-fixed asks for it, and it cannot be imported beside a CPU build of torch; the extra fairseq-needs lists
# what fairseq does import.
LEFT_OUT = {("fairseq-fixed", "torchaudio")}
HEADER = """\
# Written by `make lock` from constraints.in and setup.cfg, for Python 3.11 on Linux: exact versions of all packages.
# No hashes, since the wheel of torch differs by machine.
"""


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        problems = [*unlocked(), *unsatisfied()]
        for problem in problems:
            print(problem, file=sys.stderr)
        sys.exit("run make lock, then make install" if problems else 0)
    pins = read(PINS)
    versions = resolve()
    cuda = sorted(name for name in versions if name.startswith(("nvidia-", "cuda-", "triton")))
    if cuda:
        sys.exit(f"pip chose a CUDA build of torch, which asks for {cuda[0]}; make lock TORCH_INDEX=... of CPU builds")
    lines = [f"{name}=={version}\n" for name, version in sorted({**versions, **pins}.items())]
    LOCK.write_text(HEADER + "".join(lines))
    print(f"{LOCK.name}: {len(lines)} packages")


def read(path: Path) -> dict[str, str]:
    """Return the versions of a constraints file by canonical name."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def resolve() -> dict[str, str]:
    """Return what pip would install into an empty environment, by canonical name."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report"]
        wanted = [*TOOLS, "--no-build-isolation", "--editable", f"{ROOT}[{','.join(EXTRAS)}]"]
        subprocess.run([*command, str(report), "--constraint", str(PINS), *wanted], check=True)
        packages = [package["metadata"] for package in json.loads(report.read_text())["install"]]
    found = {canonicalize_name(package["name"]): public(package["version"]) for package in packages}
    del found["fairbeam"]
    return found


def public(version: str) -> str:
    """Return a version without its local part: ``2.13.0+cpu`` is one machine's build of ``2.13.0``."""
    return version.partition("+")[0]


def unlocked() -> Iterator[str]:
    """Name the locked packages that are absent or present in another version."""
    for name, version in read(LOCK).items():
        try:
            found = public(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            found = "nothing"
        if found != version:
            yield f"{LOCK.name} has {name}=={version}; installed is {found}"


def unsatisfied() -> Iterator[str]:
    """Name the requirements, of fairbeam and all that it needs, which constraints.txt lacks or contradicts."""
    locked = read(LOCK)
    waiting, seen = [("fairbeam", extra) for extra in ("", *EXTRAS)] + [("fairseq-fixed", "")], set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for needed, extras in requirements(name, extra):
            wanted = canonicalize_name(needed.name)
            waiting += [(wanted, each) for each in extras]
            if wanted == "fairbeam" or (name, wanted) in LEFT_OUT:
                continue
            if wanted not in locked or not needed.specifier.contains(locked[wanted], prereleases=True):
                yield f"{name} requires {needed}; {LOCK.name} has {locked.get(wanted, 'no such package')}"


def requirements(name: str, extra: str) -> Iterator[tuple[Requirement, tuple[str, ...]]]:
    """Yield what an installed package requires for one of its extras, each with the extras asked for in turn."""
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return  # `unlocked` names it
    for needed in map(Requirement, lines):
        if needed.marker is None or needed.marker.evaluate({"extra": extra}):
            yield needed, ("", *needed.extras)


if __name__ == "__main__":
    main()
