"""Builds every wheel, looks into it, and tests each where nothing but its own requirements is installed.

Usage: check_wheels.py UV [PACKAGE …]

What each Python proves: the running one runs all tests from the sources (`./dev test`). Here each wheel,
alone, runs its package's tests on the second Python of the machine, and all wheels together run all tests,
those left out that only wait for the protocol's intervals, on each further one. So every version runs the
tests of every package once. Where there is no other Python, the wheels are tested on the running one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from check_namespace import offenders  # noqa: E402
from pythons import pythons  # noqa: E402

PACKAGES = ("livepeer-trickle", "livepeer-client", "livepeer-runner", "livepeer-devkit")
EXTRAS = {"livepeer-trickle": "[media]", "livepeer-client": "[media]", "livepeer-runner": "[images,media]"}
TEST_TOOLS = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["test"])
SHARED = ("--numprocesses=3",)  # as `./dev test` has it
COMPLETENESS = 99.0  # percent of a wheel's public symbols that have to have a known type


class Checker:
    """Runs commands, and gathers what failed."""

    def __init__(self, uv: str, work: Path) -> None:
        self.uv, self.work, self.dist = uv, work, work / "dist"
        self.failed: list[str] = []

    def run(self, what: str, *command: object, cwd: Path | None = None) -> bool:
        """Run a command, print its output when it fails; whether it passed."""
        environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
        environment["PYTHONPYCACHEPREFIX"] = str(self.work / "pycache")
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd or self.work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        tail = done.stdout.strip().splitlines()[-1:] or [""]
        print(f"{'ok    ' if done.returncode == 0 else 'FAILED'} {what}: {tail[0].strip('= ')}", flush=True)
        if done.returncode:
            print(done.stdout[-8000:], done.stderr[-4000:], sep="\n", flush=True)
            self.failed.append(what)
        return done.returncode == 0

    def environment(self, name: str, python: str, *requirements: str) -> Path:
        """A fresh environment with our wheels at hand; the path of its interpreter."""
        folder = self.work / name
        self.run(f"{name}: environment", self.uv, "venv", "--quiet", "--python", python, folder)
        interpreter = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        install = (self.uv, "pip", "install", "--quiet", "--python", interpreter, "--find-links", self.dist)
        self.run(f"{name}: install", *install, *requirements)
        return interpreter

    def test(self, name: str, interpreter: Path, *words: str) -> None:
        """Run tests from a copy of the repository without its sources, so that the wheels are tested."""
        copy = self.work / f"{name}-tests"
        shutil.copytree(
            ROOT,
            copy,
            ignore=shutil.ignore_patterns(
                ".git", ".venv*", "src", "dist", "__pycache__", ".*_cache", ".hypothesis"
            ),
        )
        self.run(
            f"{name}: tests",
            interpreter,
            "-m",
            "pytest",
            "-q",
            "-rfs",
            "-p",
            "no:cacheprovider",
            *SHARED,
            *words,
            cwd=copy,
        )


def wheel_of(dist: Path, package: str) -> Path:
    """The built wheel of a package."""
    return next(dist.glob(f"{package.replace('-', '_')}-*.whl"))


def look_inside(checker: Checker, package: str) -> None:
    """The wheel has its types, its licence and its readme, and doesn't claim the namespace."""
    wheel = wheel_of(checker.dist, package)
    child = package.removeprefix("livepeer-")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith(".dist-info/METADATA"))).decode()
    problems = [
        text
        for text, holds in {
            "no py.typed": f"livepeer/{child}/py.typed" in names,
            "no licence": any(n.endswith("licenses/LICENSE") for n in names),
            "no readme": len(metadata.partition("\n\n")[2]) > 200,
            "files outside of its child package": all(
                n.startswith((f"livepeer/{child}/", f"{package.replace('-', '_')}-")) for n in names
            ),
            "it claims the namespace": not offenders([wheel]),
        }.items()
        if not holds
    ]
    print(
        f"{'FAILED' if problems else 'ok    '} {wheel.name}: {', '.join(problems) or 'content'}", flush=True
    )
    checker.failed += [f"{wheel.name}: {problem}" for problem in problems]


def check_alone(checker: Checker, package: str, python: str) -> None:
    """Install one wheel with what it declares, and run its own tests and the types check."""
    extra = EXTRAS.get(package, "")
    name = f"{package}-alone-{version_of(python)}"
    interpreter = checker.environment(name, python, f"{package}{extra}", *TEST_TOOLS)
    checker.test(name, interpreter, f"packages/{package}/tests")
    child = f"livepeer.{package.removeprefix('livepeer-')}"
    # pyright finds an installed py.typed by the environment that is active, in a folder without sources.
    binaries = interpreter.parent
    active = {"VIRTUAL_ENV": str(binaries.parent), "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    empty = checker.work / f"{name}-empty"
    empty.mkdir()
    done = subprocess.run(
        ["pyright", "--ignoreexternal", "--verifytypes", child],
        capture_output=True,
        text=True,
        cwd=empty,
        env={**os.environ, **active},
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if "completeness score" in line]
    score = float(lines[0].rpartition(":")[2].strip(" %")) if lines else 0.0
    passed = score >= COMPLETENESS
    print(f"{'ok    ' if passed else 'FAILED'} {name}: {score} % of the public types are known", flush=True)
    if not passed:
        print(done.stdout[-6000:], done.stderr[-2000:], sep="\n")
        checker.failed.append(f"{name}: types")


def version_of(python: str) -> str:
    """The version of an interpreter, as in "3.12"."""
    command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def check_together(checker: Checker, python: str, *, tests: bool) -> None:
    """Install all wheels on one Python, beside the unrelated PyPI package `livepeer`; may run all tests."""
    name = f"together-{version_of(python)}"
    wanted = [f"{package}{EXTRAS.get(package, '')}" for package in PACKAGES]
    interpreter = checker.environment(name, python, *wanted, *TEST_TOOLS, "pillow", "numpy", "pydantic")
    if tests:
        checker.test(name, interpreter, "-m", "not slow", "packages", "tests")
    install = (checker.uv, "pip", "install", "--quiet", "--python", interpreter, "livepeer==0.3.0")
    checker.run(f"{name}: install livepeer 0.3.0", *install)
    imports = "import livepeer, livepeer.client, livepeer.runner, livepeer.trickle, livepeer.devkit"
    use = "assert livepeer.Livepeer and livepeer.client.Gateway; print('both import')"
    checker.run(f"{name}: beside livepeer 0.3.0", interpreter, "-c", f"{imports}; {use}")


def main() -> int:
    """Check what the arguments name, or everything; the exit status."""
    uv, *chosen = sys.argv[1:]
    packages = [package for package in PACKAGES if not chosen or package in chosen]
    with tempfile.TemporaryDirectory(prefix="livepeer-wheels-") as work:
        checker = Checker(uv, Path(work))
        build = (uv, "build", "--quiet", "--wheel", "--all-packages", "--out-dir", checker.dist)
        if not checker.run("build", *build, cwd=ROOT):
            return 1
        for package in packages:
            look_inside(checker, package)
        running, *others = pythons()
        alone, *further = others or [running]
        for package in packages:  # one by one: each suite keeps the machine busy as it is
            check_alone(checker, package, alone)
        if not chosen:
            for python in (running, *others):
                check_together(checker, python, tests=python in further)
        print(f"failed: {'; '.join(checker.failed)}" if checker.failed else "wheels: all checks passed")
        return 1 if checker.failed else 0


if __name__ == "__main__":
    sys.exit(main())
