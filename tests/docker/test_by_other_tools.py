"""The container files, judged by other people's tools: the Compose specification's schema, the
schemas of Kubernetes' API servers, and hadolint. Each tool is seen to refuse a file that is wrong.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCKER = Path(__file__).parents[2] / "docker"
KUBERNETES = [
    path for path in sorted((DOCKER / "kubernetes").glob("*.yaml")) if path.stem != "kustomization"
]
VERSIONS = ("1.30", "1.34")


def judged(tool: str, *words: str | Path) -> tuple[bool, str]:
    """Whether the tool is content, and what it said; skips where the tool is not here."""
    beside = Path(sys.executable).parent / tool
    found = str(beside) if beside.exists() else shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not here: it comes with the test extra")
    done = subprocess.run([found, *words], capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr


def broken(path: Path, word: str, instead: str, folder: Path) -> Path:
    text = path.read_text()
    assert word in text
    made = folder / path.name
    made.write_text(text.replace(word, instead, 1))
    return made


def test_the_compose_file_follows_the_specification(tmp_path: Path) -> None:
    def check(path: Path) -> tuple[bool, str]:
        return judged("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)

    compose = DOCKER / "compose.yaml"
    is_right, told = check(compose)
    assert is_right, told
    is_right, told = check(broken(compose, "cap_drop:", "cap_drops:", tmp_path))
    assert not is_right
    assert "cap_drops" in told


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_manifest_as_it_stands(version: str, tmp_path: Path) -> None:
    def check(*paths: Path) -> tuple[bool, str]:
        return judged("kubernetes-validate", "--strict", "-k", version, *paths)

    is_right, told = check(*KUBERNETES)
    assert is_right, told
    assert told.count(" passed ") >= 5
    scheduler = DOCKER / "kubernetes" / "scheduler.yaml"
    for word, instead in (("readOnly:", "readonly:"), ("replicas: ", "replicas: a")):
        assert not check(broken(scheduler, word, instead, tmp_path))[0]


def test_the_dockerfile_follows_the_rules_of_hadolint(tmp_path: Path) -> None:
    def check(path: Path) -> tuple[bool, str]:
        return judged("hadolint", "--no-color", path)

    is_right, told = check(DOCKER / "Dockerfile")
    assert is_right, told
    wrong = broken(DOCKER / "Dockerfile", "WORKDIR /src", "WORKDIR src", tmp_path)
    assert not check(wrong)[0]
