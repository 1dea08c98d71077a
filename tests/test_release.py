"""The release script, in a repository of its own: a whole release, or nothing."""

import re
import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".github" / "scripts" / "release.py"
CHANGELOG = "# Changelog\n\n## [Unreleased]\n{new}\n## [0.0.1] - 2020-01-01\n\n- Old\n"


def git(repository: Path, *args: str) -> str:
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org")
    done = subprocess.run(["git", *identity, "-C", str(repository), *args], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the files that have the version, as this one has them."""
    for variable in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{variable}_NAME", "Tester")
        monkeypatch.setenv(f"{variable}_EMAIL", "tester@example.org")
    repository = tmp_path / "repository"
    repository.mkdir()
    for name in ("CITATION.cff", "pyproject.toml"):
        (repository / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    (repository / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n- New\n\n## [0.0.1] - 2020-01-01\n\n- Old\n"
    )
    git(repository, "init", "--quiet", "--initial-branch=main")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "All")
    return repository


@pytest.fixture
def release(repository: Path) -> Callable[..., str]:
    """Make a release with a build in place of that of make, and return what it ended with, "" for a release."""

    def release(version: str, build: Callable[[Path, Path], None] = lambda *_: None) -> str:
        function = runpy.run_path(str(SCRIPT))["release"]
        function.__globals__["build"] = build
        try:
            function(repository, version)
        except SystemExit as end:
            return str(end.code)
        return ""

    return release


def state(repository: Path) -> tuple[str, ...]:
    commands = (("rev-parse", "main"), ("status", "--porcelain"), ("tag", "--list"), ("worktree", "list"))
    return tuple(git(repository, *command) for command in commands)


@pytest.mark.thorough
def test_a_release_is_a_commit_and_a_tag(repository: Path, release: Callable[..., str]) -> None:
    built = []
    assert release("7.1.0", lambda _, tree: built.append((tree / "pyproject.toml").read_text("utf-8"))) == ""
    assert git(repository, "rev-parse", "v7.1.0^{commit}") == git(repository, "rev-parse", "main")
    assert git(repository, "log", "-1", "--format=%s") == "Release 7.1.0"
    assert git(repository, "status", "--porcelain") == ""
    pyproject = (repository / "pyproject.toml").read_text("utf-8")
    assert '\nversion = "7.1.0"\n' in pyproject
    assert built == [pyproject]
    assert re.search(r"^version: 7\.1\.0\ndate-released: \d{4}-\d\d-\d\d$", citation(repository), re.MULTILINE)
    changelog = (repository / "CHANGELOG.md").read_text("utf-8")
    assert re.search(r"^## \[Unreleased\]\n\n## \[7\.1\.0\] - \d{4}-\d\d-\d\d\n\n- New\n", changelog, re.MULTILINE)
    assert runpy.run_path(str(SCRIPT))["section"](changelog, "## [7.1.0]") == "\n- New\n\n"


@pytest.mark.thorough
def test_the_next_release_replaces_the_date(repository: Path, release: Callable[..., str]) -> None:
    assert release("7.1.0") == ""
    changelog = repository / "CHANGELOG.md"
    changelog.write_text(changelog.read_text("utf-8").replace("[Unreleased]\n", "[Unreleased]\n\n- Newer\n"))
    git(repository, "commit", "--all", "--quiet", "--message", "Newer")
    assert release("7.2.0") == ""
    assert citation(repository).count("date-released") == 1


def citation(repository: Path) -> str:
    return (repository / "CITATION.cff").read_text("utf-8")


def fail(_root: Path, _tree: Path) -> None:
    raise SystemExit("release: the build failed; nothing was changed")


def commit_meanwhile(root: Path, _tree: Path) -> None:
    git(root, "commit", "--quiet", "--allow-empty", "--message", "Meanwhile")


@pytest.mark.thorough
def test_a_build_that_fails_leaves_nothing(repository: Path, release: Callable[..., str]) -> None:
    before = state(repository)
    assert release("7.1.0", fail) == "release: the build failed; nothing was changed"
    assert state(repository) == before


@pytest.mark.thorough
def test_a_commit_in_the_meantime_is_kept(repository: Path, release: Callable[..., str]) -> None:
    assert "main has moved on" in release("7.1.0", commit_meanwhile)
    assert git(repository, "tag", "--list") == ""
    assert git(repository, "log", "-1", "--format=%s") == "Meanwhile"


def unclean(repository: Path) -> None:
    (repository / "new.txt").touch()


def elsewhere(repository: Path) -> None:
    git(repository, "switch", "--quiet", "--create", "other")


def tagged(repository: Path) -> None:
    git(repository, "tag", "v7.1.0")


def nothing_new(repository: Path) -> None:
    (repository / "CHANGELOG.md").write_text(CHANGELOG.format(new=""))
    git(repository, "commit", "--all", "--quiet", "--message", "Nothing")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("change", "version", "said"),
    [
        (None, "7.1", "the version must be X.Y.Z, got 7.1"),
        (None, "0.0.9", "0.0.9 is older than "),
        (unclean, "7.1.0", "commit or remove first:\n?? new.txt"),
        (elsewhere, "7.1.0", "a release is made on main, this is other"),
        (tagged, "7.1.0", "there is a tag v7.1.0 already"),
        (nothing_new, "7.1.0", "CHANGELOG.md has nothing under Unreleased"),
    ],
)
def test_what_cannot_become_a_release(
    repository: Path, release: Callable[..., str], change: Callable[[Path], None] | None, version: str, said: str
) -> None:
    if change is not None:
        change(repository)
    before = state(repository)
    assert said in release(version, pytest.fail)
    assert state(repository) == before


def test_one_version_everywhere() -> None:
    version = runpy.run_path(str(SCRIPT))["version_of"]((ROOT / "pyproject.toml").read_text("utf-8"))
    assert f"\nversion: {version}\n" in citation(ROOT)
