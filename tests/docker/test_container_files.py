"""The container files without a container engine: what they say is read and judged, and what they
start is started as an ordinary user who can write nowhere but in the temporary directory.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sqlbak.policy.loading import load_configuration
from tests.vault.s3_servers import free_port

HOUSE = Path(__file__).parents[2]
DOCKER = HOUSE / "docker"
KUBERNETES = DOCKER / "kubernetes"
PATIENCE_SECONDS = 60.0


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    text = (DOCKER / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def argument(name: str) -> str:
    return [rest for word, rest in instructions() if word == name][-1]


def documents(path: Path) -> list[dict[str, Any]]:
    with path.open() as file:
        return [one for one in YAML(typ="safe", pure=True).load_all(file) if one is not None]


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(KUBERNETES.glob("*.yaml")):
        for one in documents(path):
            yield path.name, one


def test_the_image_runs_as_a_number_that_is_not_root_and_from_a_pinned_base() -> None:
    assert argument("USER") == "10001:10001"
    froms = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert len(set(froms)) == 1  # what was built runs on what it was built on
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", froms[0])
    words = [word for word, _ in instructions()]
    assert "ADD" not in words
    assert words.index("USER") < words.index("ENTRYPOINT")
    # Without a shell in between, signals reach sqlbak itself.
    assert json.loads(argument("ENTRYPOINT")) == ["sqlbak"]
    assert json.loads(argument("CMD"))[0] == "run"
    assert argument("STOPSIGNAL") == "SIGTERM"
    assert "--no-cache-dir" in (DOCKER / "Dockerfile").read_text()


def test_everything_that_is_copied_into_the_image_is_let_through_and_nothing_else() -> None:
    ignored = (HOUSE / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    copied = {
        path
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for path in rest.split()[:-1]
    }
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied
    assert all((HOUSE / path).exists() for path in copied)


def test_the_compose_file_shows_two_schedulers_that_write_nowhere() -> None:
    (compose,) = documents(DOCKER / "compose.yaml")
    services = compose["services"]
    sqlbak = services["sqlbak"]
    assert sqlbak["deploy"]["replicas"] == 2
    assert sqlbak["read_only"] is True
    assert sqlbak["tmpfs"] == ["/tmp"]
    assert sqlbak["cap_drop"] == ["ALL"]
    assert {"postgres", "s3", "prometheus"} <= services.keys()
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith("./") or (DOCKER / source).exists(), volume
        for other in service.get("depends_on", []):
            assert other in services
    configuration = load_configuration(DOCKER / "policies").configuration
    references = {str(configuration.instances["orders"].dsn)}  # type: ignore[union-attr]
    s3 = configuration.vaults["main"].s3
    assert s3 is not None
    references |= {str(s3.access_key), str(s3.secret_key)}
    assert references == {f"env:{name}" for name in sqlbak["environment"]}
    (scrape,) = documents(DOCKER / "prometheus" / "prometheus.yaml")[0]["scrape_configs"]
    assert scrape["dns_sd_configs"][0]["names"] == ["sqlbak"]


def test_every_pod_is_restricted_and_ends_in_time() -> None:
    deployments = [one for _, one in manifests() if one["kind"] == "Deployment"]
    assert len(deployments) == 2
    for deployment in deployments:
        spec = deployment["spec"]
        pod = spec["template"]["spec"]
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        arguments = container["args"]
        grace = int(arguments[arguments.index("--grace") + 1])
        assert grace + 10 <= pod["terminationGracePeriodSeconds"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert mounts.keys() == volumes
        assert mounts["scratch"]["mountPath"] == "/tmp"
        assert mounts["policies"]["readOnly"] is True
        assert container["resources"]["limits"]["memory"]


def test_every_option_in_the_files_is_one_that_the_command_knows() -> None:
    commands = [json.loads(argument("CMD"))]
    for _, one in manifests():
        if one["kind"] == "Deployment":
            commands.append(one["spec"]["template"]["spec"]["containers"][0]["args"])
    helps: dict[str, str] = {}
    for command in commands:
        if command[0] not in helps:
            done = subprocess.run(
                [sys.executable, "-m", "sqlbak", command[0], "--help"],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "COLUMNS": "200"},
            )
            helps[command[0]] = done.stdout
        for word in command[1:]:
            assert not word.startswith("--") or f"{word} " in helps[command[0]], word


def test_services_and_budgets_select_the_schedulers_and_probes_name_their_port() -> None:
    found = {(one["kind"], one["metadata"].get("name", "")): one for _, one in manifests()
             if one["kind"] != "Kustomization"}  # fmt: skip
    deployment = found["Deployment", "sqlbak"]["spec"]["template"]
    labels = deployment["metadata"]["labels"]
    assert found["Service", "sqlbak"]["spec"]["selector"].items() <= labels.items()
    budget = found["PodDisruptionBudget", "sqlbak"]["spec"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    (container,) = deployment["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert f"0.0.0.0:{ports['metrics']}" in container["args"]
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}


def test_the_kustomization_names_files_that_are_there_and_valid_policies() -> None:
    (kustomization,) = documents(KUBERNETES / "kustomization.yaml")
    for name in kustomization["resources"]:
        assert (KUBERNETES / name).exists()
    (generated,) = kustomization["configMapGenerator"]
    for name in generated["files"]:
        load_configuration(KUBERNETES / name)
    assert [image["name"] for image in kustomization["images"]] == ["sqlbak"]


def without_rights() -> list[str]:
    """What to put before a command so that file permissions hold for it as for everybody: nothing
    for an ordinary user; root gives up its capabilities, as containers do with cap_drop: ALL."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root cannot give up its rights without setpriv (util-linux)")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]


def test_entry_point_and_health_check_work_as_an_ordinary_user_in_a_read_only_tree(
    tmp_path: Path,
) -> None:
    tree, scratch = tmp_path / "tree", tmp_path / "tmp"
    shutil.copytree(HOUSE / "sqlbak", tree / "sqlbak", ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "policies").mkdir()
    (tree / "policies" / "p.yaml").write_text(
        f'vaults: {{main: {{url: "file://{scratch}/vault", redundancy: local}}}}\n'
        'instances: {orders: {engine: postgres, dsn: "host=127.0.0.1 port=1"}}\n'
    )
    scratch.mkdir(mode=0o777)
    scratch.chmod(0o777)
    for path in (tree, *tree.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "TZ": "Asia/Kathmandu",  # schedules and logs do not follow it
        "SQLBAK_CONFIG": str(tree / "policies"),
    }
    as_ordinary = without_rights()
    listen = argument("CMD").replace("0.0.0.0:9187", f"127.0.0.1:{port}")
    command = [*as_ordinary, sys.executable, "-m", "sqlbak", *json.loads(listen)]
    asked = json.loads(re.sub(r"^.*?CMD ", "", argument("HEALTHCHECK")))
    health = [*as_ordinary, sys.executable, *asked[1:-1], asked[-1].replace("9187", str(port))]
    before = sorted(tree.rglob("*"))
    forbidden = [*as_ordinary, sys.executable, "-c", f"open({str(tree / 'x')!r}, 'w')"]
    assert subprocess.run(forbidden, stderr=subprocess.DEVNULL).returncode == 1
    process = subprocess.Popen(
        command, env=environment, cwd=scratch, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while subprocess.run(health, env=environment, stderr=subprocess.DEVNULL).returncode:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
        process.wait()
        for path in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
            path.chmod(0o755)
    assert process.returncode == 0
    events = [json.loads(line) for line in told.splitlines()]
    assert events[-1]["event"] == "stopped"
    assert all(event["timestamp"].endswith("Z") for event in events)
    assert sorted(tree.rglob("*")) == before
    assert subprocess.run(health, env=environment, stderr=subprocess.DEVNULL).returncode != 0
