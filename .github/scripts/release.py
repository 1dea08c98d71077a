"""Make the commit and the tag of a release: ``make release VERSION=0.2.0``.

The changelog's section "Unreleased" becomes that of the version, pyproject.toml and CITATION.cff get the version, and
the wheel and the sdist are built of that and checked. All this is done in a work tree of its own, and the branch and
the tag are set when it has succeeded: until then the repository is as it was. Pushing the tag is left to you: it starts
the workflow that publishes.
"""

import argparse
import datetime
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNRELEASED = "## [Unreleased]\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Make a release, or print what the changelog says of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", metavar="X.Y.Z")
    parser.add_argument("--notes", action="store_true", help="print the changelog's section of this version instead")
    args = parser.parse_args(argv)
    if args.notes:
        print(section((ROOT / "CHANGELOG.md").read_text("utf-8"), f"## [{args.version}]"), end="")
    else:
        release(ROOT, args.version)


def release(root: Path, version: str) -> None:
    """Make the commit and the tag in the repository at ``root``."""
    check(root, version)
    before = git(root, "rev-parse", "HEAD")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        git(root, "worktree", "add", "--detach", str(tree), before)
        try:
            write(tree, version)
            build(root, tree)
            git(tree, "commit", "--all", "--message", f"Release {version}")
            commit = git(tree, "rev-parse", "HEAD")
        finally:
            git(root, "worktree", "remove", "--force", str(tree))
    set_refs(root, version, before, commit)
    print(f"main and v{version} are set. To publish: git push --atomic origin main v{version}")


def check(root: Path, version: str) -> None:
    """Stop if this repository cannot become that version."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        sys.exit(f"release: the version must be X.Y.Z, got {version}")
    if (branch := git(root, "branch", "--show-current")) != "main":
        sys.exit(f"release: a release is made on main, this is {branch or 'no branch'}")
    if changed := git(root, "status", "--porcelain"):
        sys.exit(f"release: commit or remove first:\n{changed}")
    if git(root, "tag", "--list", f"v{version}"):
        sys.exit(f"release: there is a tag v{version} already")
    current = version_of((root / "pyproject.toml").read_text("utf-8"))
    if numbers(version) < numbers(current):
        sys.exit(f"release: {version} is older than {current}, which pyproject.toml has")
    if not section((root / "CHANGELOG.md").read_text("utf-8"), UNRELEASED.strip()).strip():
        sys.exit("release: CHANGELOG.md has nothing under Unreleased")


def write(tree: Path, version: str) -> None:
    """Write the version and today's date into the files that have them."""
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    replace(tree / "CHANGELOG.md", re.escape(UNRELEASED), f"{UNRELEASED}\n## [{version}] - {today}\n")
    replace(tree / "pyproject.toml", r'^version = ".*"$', f'version = "{version}"')
    replace(
        tree / "CITATION.cff", r"^version: .*\n(date-released: .*\n)?", f"version: {version}\ndate-released: {today}\n"
    )


def build(root: Path, tree: Path) -> None:
    """Build and check the wheel and the sdist of a work tree, with the tools that ``root`` has installed."""
    if subprocess.run(["make", "-C", str(tree), f"VENV={root / '.venv'}", "wheel", "sdist"], check=False).returncode:
        sys.exit("release: the build failed; nothing was changed")


def set_refs(root: Path, version: str, before: str, commit: str) -> None:
    """Set main and the tag to a commit, both or none."""
    message = f"elsa-ext {version}"
    git(root, "tag", "--annotate", "--message", message, f"v{version}", commit)
    try:
        if git(root, "rev-parse", "HEAD") != before:
            sys.exit("release: main has moved on while the release was built; nothing was changed")
        git(root, "merge", "--ff-only", commit)
    except SystemExit:
        git(root, "tag", "--delete", f"v{version}")
        raise


def section(changelog: str, heading: str) -> str:
    """Return what the changelog has below a heading that begins like this."""
    found = re.search(rf"^{re.escape(heading)}[^\n]*\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit(f"release: CHANGELOG.md has no section {heading}")
    return found[1]


def version_of(pyproject: str) -> str:
    """Return the version in pyproject.toml, which other places have from it."""
    found = re.search(r'^version = "(.*)"$', pyproject, re.MULTILINE)
    if found is None:
        sys.exit("release: pyproject.toml has no version")
    return found[1]


def numbers(version: str) -> tuple[int, ...]:
    """Return a version as numbers, which compare as versions do."""
    return tuple(int(number) for number in version.split("."))


def replace(path: Path, pattern: str, by: str) -> None:
    """Replace the one place in a file that matches."""
    text, count = re.subn(pattern, by, path.read_text("utf-8"), flags=re.MULTILINE)
    if count != 1:
        sys.exit(f"release: {path.name} has {count} places for the version, not one")
    path.write_text(text, "utf-8")


def git(root: Path, *args: str) -> str:
    """Run git and return what it says; stop with its own words if it fails."""
    done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"release: git {args[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    main()
