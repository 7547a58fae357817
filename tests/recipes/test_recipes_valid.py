"""The program that knows its form accepts every manifest and script in the guides, and rejects a broken copy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benches.harness.guides import GUIDES, files_of
from tests.recipes import validators

ROOT = GUIDES.parents[1]
RECIPES = ("slurm", "kubernetes", "compose", "ci")
MANIFESTS = sorted(files_of("kubernetes"))
SCRIPTS = sorted(files_of("slurm"))


def scripts_of(document: Any) -> Iterator[str]:
    """Yield the scripts in a manifest: `run` of workflows, commands after a shell's `-c`, files in ConfigMaps."""
    match document:
        case dict():
            for name, value in document.items():
                if isinstance(value, str) and (name == "run" or name.endswith(".sh")):
                    yield value
                elif name == "command" and isinstance(value, list) and value[:1] == ["sh"] and len(value) == 3:
                    yield value[2]
                else:
                    yield from scripts_of(value)
        case list():
            for value in document:
                yield from scripts_of(value)


@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_takes_every_manifest_of_the_guide(name: str, tmp_path: Path) -> None:
    assert validators.kubernetes(files_of("kubernetes")[name], tmp_path) == ""


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("daemonset.yaml", "mountPath: /compile", "mountpath: /compile"),
        ("sidecar.yaml", "restartPolicy: Always", "restartPolicy: [Always]"),
        ("warm.yaml", "completions: 4", "completions: four"),
        ("settings.yaml", "kind: ConfigMap", "kind: ConfigMapp"),
        ("trainer.yaml", "containers:", "container:"),
    ],
)
def test_kubernetes_refuses_a_broken_copy(name: str, right: str, wrong: str, tmp_path: Path) -> None:
    text = files_of("kubernetes")[name]
    assert right in text

    assert validators.kubernetes(text.replace(right, wrong), tmp_path) != ""


def test_compose_takes_the_file_of_the_guide_and_refuses_a_broken_copy(tmp_path: Path) -> None:
    text = files_of("compose")["compose.yaml"]

    assert validators.compose(text, tmp_path) == ""
    assert "stop_grace_periods" in validators.compose(
        text.replace("stop_grace_period:", "stop_grace_periods:"), tmp_path
    )
    assert "nobody" in validators.compose(text.replace("      daemon:\n", "      nobody:\n"), tmp_path)


def test_github_takes_the_workflow_of_the_guide_and_refuses_a_broken_copy(tmp_path: Path) -> None:
    text = files_of("ci")["workflow.yaml"]

    assert validators.workflow(text, tmp_path) == ""
    assert validators.workflow(text.replace("runs-on:", "runs_on:"), tmp_path) != ""
    assert validators.workflow(text.replace("if: always()", "iff: always()"), tmp_path) != ""


def test_the_dockerfile_has_no_mistakes_that_are_known_and_a_broken_copy_has(tmp_path: Path) -> None:
    text = (ROOT / "Dockerfile").read_text()

    assert validators.dockerfile(text, tmp_path) == ""
    assert "DL3020" in validators.dockerfile(text.replace("COPY . .", "ADD . ."), tmp_path)
    assert "DL3008" in validators.dockerfile(text.replace("# hadolint ignore=DL3008", "#"), tmp_path)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_of_the_slurm_guide_is_read_by_bash_and_does_what_it_seems_to(name: str) -> None:
    assert validators.shell(files_of("slurm")[name]) == ""


@pytest.mark.parametrize(
    ("guide", "name"), [(guide, name) for guide in RECIPES[1:] for name in sorted(files_of(guide))]
)
def test_every_script_inside_of_a_manifest_is_sound(guide: str, name: str) -> None:
    # GitHub's steps are bash and the others sh; in Compose's files `$$` stands for a dollar.
    language = "bash" if guide == "ci" else "sh"
    for document in yaml.safe_load_all(files_of(guide)[name]):
        for script in scripts_of(document):
            text = script.replace("$$", "$") if guide == "compose" else script
            assert validators.shell(text, language) == "", script


@pytest.mark.parametrize("path", sorted([*ROOT.glob("tools/*.sh"), ROOT / ".ci/run"]), ids=lambda path: path.name)
def test_every_script_of_the_repository_is_sound(path: Path) -> None:
    assert validators.shell(path.read_text()) == ""


def test_scripts_are_found_where_there_are_some() -> None:
    documents = {
        name: list(yaml.safe_load_all(text)) for guide in RECIPES[1:] for name, text in files_of(guide).items()
    }

    found = {name for name, document in documents.items() if list(scripts_of(document))}

    assert found == {"settings.yaml", "warm.yaml", "workflow.yaml"}


def test_a_broken_script_is_refused() -> None:
    assert "syntax error" in validators.shell("for x in 1 2; do echo $x; dno\n")
    assert "SC2086" in validators.shell('#!/bin/bash\nname="a b"\nrm $name/x $1\n')


@pytest.mark.parametrize("guide", RECIPES)
def test_no_recipe_names_a_registry_or_a_machine(guide: str) -> None:
    text = (GUIDES / f"{guide}.md").read_text()

    images = re.findall(r"image: (\S+)", text)
    assert all("/" not in image and ":" not in image for image in images)
    assert not re.search(r"/root/|/home/\w|ghcr\.io|docker\.io", text)


@pytest.mark.parametrize("guide", RECIPES)
def test_every_file_that_a_guide_points_to_is_there(guide: str) -> None:
    text = (GUIDES / f"{guide}.md").read_text()

    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert (GUIDES / target).exists(), target
