"""What the repository says of itself is true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHILDREN = ("trickle", "client", "runner", "devkit")


def project(child: str) -> dict[str, object]:
    content = tomllib.loads((ROOT / "packages" / f"livepeer-{child}" / "pyproject.toml").read_text())
    found: dict[str, object] = content["project"]
    return found


def requirements(child: str) -> list[str]:
    found = project(child)
    extras = found.get("optional-dependencies", {})
    assert isinstance(extras, dict)
    listed = [*found["dependencies"], *(name for names in extras.values() for name in names)]  # type: ignore[misc]
    return [str(name) for name in listed]


@pytest.mark.parametrize("child", CHILDREN)
def test_the_changelog_has_the_version(child: str) -> None:
    module = __import__(f"livepeer.{child}", fromlist=["__version__"])
    assert re.search(rf"^## {re.escape(module.__version__)} ", (ROOT / "CHANGELOG.md").read_text(), re.M)


@pytest.mark.parametrize("child", CHILDREN)
def test_siblings_are_pinned_with_a_floor_and_a_cap(child: str) -> None:
    for requirement in requirements(child):
        if not requirement.startswith("livepeer-"):
            continue
        name, floor, cap = re.fullmatch(
            r"livepeer-(\w+)(?:\[[\w,]+\])?>=([\d.]+),<([\d.]+)", requirement
        ).groups()  # type: ignore[union-attr]
        sibling = __import__(f"livepeer.{name}", fromlist=["__version__"]).__version__
        version = tuple(map(int, sibling.split(".")))
        assert tuple(map(int, floor.split("."))) <= version < tuple(map(int, cap.split(".")))


@pytest.mark.parametrize("child", CHILDREN)
def test_each_package_has_licence_readme_and_types(child: str) -> None:
    folder = ROOT / "packages" / f"livepeer-{child}"
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert len((folder / "README.md").read_text()) > 500
    module = __import__(f"livepeer.{child}", fromlist=["__file__"])
    assert module.__file__
    assert (Path(module.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize("child", CHILDREN)
def test_the_face_of_a_package_is_its_all(child: str) -> None:
    module = __import__(f"livepeer.{child}", fromlist=["__all__"])
    assert sorted(module.__all__) == list(module.__dir__())
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = module.nonsense


def test_the_readme_shows_commands_that_exist() -> None:
    launcher = (ROOT / "dev").read_text()
    for verb in re.findall(r"^\./dev (\w+)", (ROOT / "README.md").read_text(), re.M):
        assert f'"{verb}": ' in launcher


def test_links_between_documents_lead_somewhere() -> None:
    for document in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / document).read_text()):
            assert (ROOT / target).exists(), f"{document}: {target}"
