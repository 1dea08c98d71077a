"""The workflows: what they run is in this checkout. actionlint checks the rest, in ``make lint``."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(workflow: Path) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load(workflow.read_text("utf-8"))["jobs"].values():
        yield from job.get("steps", [])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_scripts_and_targets_are_there(workflow: Path) -> None:
    targets = re.findall(r"^([\w-]+(?: [\w-]+)*):(?!=)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for command in (step["run"] for step in steps(workflow) if "run" in step):
        for script in re.findall(r"(?:\.github/scripts/|\.ci/)[\w.]+", command):
            assert os.access(ROOT / script, os.X_OK), script
        for target in re.findall(r"\bmake ([\w-]+)", command):
            assert target in " ".join(targets).split(), target


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_checkout_leaves_no_token_behind(workflow: Path) -> None:
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_actions_have_one_version_each() -> None:
    used = {step["uses"] for workflow in WORKFLOWS for step in steps(workflow) if "uses" in step}
    names = [action.split("@")[0] for action in used]
    assert sorted(names) == sorted(set(names))


def test_only_a_tag_publishes() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "wheels.yml").read_text("utf-8"))["jobs"]
    assert jobs["release"]["if"] == "startsWith(github.ref, 'refs/tags/v')"
    writing = {name for name, job in jobs.items() if "write" in job.get("permissions", {}).values()}
    assert writing == {"release", "pypi", "pages"}
    assert all(jobs[name]["needs"] == "release" for name in writing - {"release"})
