"""Shared fixtures: where the real data and the parity model are, and how to run the real commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import shards

# Before torch is imported. Test processes share the cores: threads of their own would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare ``--shard``."""
    parser.addoption("--shard", default="1/1", metavar="PART/PARTS", help="of the slow tests, run this part alone")


@pytest.hookimpl(tryfirst=True)  # before `-m` takes tests away, so that a test's part does not depend on that
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the slow tests of one part."""
    shards.deselect_other_parts(config, items)


def _folder(variable: str, default: str) -> Path:
    path = Path(os.environ.get(variable) or ROOT.parent / "shared" / default)
    if not path.is_dir():
        if os.environ.get("FAIRBEAM_REQUIRE_DATA"):
            pytest.fail(f"{path} is absent, and FAIRBEAM_REQUIRE_DATA says that it must be there")
        pytest.skip(f"{path} is absent; set {variable} to run this test")
    return path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real corpora, or a skip with the reason."""
    return _folder("FAIRBEAM_DATA", "data")


@pytest.fixture(scope="session")
def real_models() -> Path:
    """The folder of models for parity tests, or a skip with the reason."""
    return _folder("FAIRBEAM_MODELS", "models")


@pytest.fixture(scope="session")
def run():
    """Run an installed command as a user would; returns the finished process, output as text."""

    def run_command(*command: object, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
        name, *arguments = (str(part) for part in command)
        executable = Path(sys.executable).parent / name
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
        timeout = options.pop("timeout", 600)
        done = subprocess.run(
            [str(executable), *arguments],
            text=True,
            check=False,
            capture_output=True,
            env=environment,
            timeout=timeout,
            **options,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{' '.join([name, *arguments])} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    return run_command
