"""`/openapi.json` is truthful: a stranger's tool reads it, asks what it describes, and checks the answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from starlette.routing import Route

from tests.e2e.schemathesis_hooks import REGISTRATION_TOKEN, prepare
from tests.harness import ServerProcess, clean_environment
from windlass import settings
from windlass.server import (
    catalogue_api,
    job_api,
    judge_api,
    metrics_api,
    queue_admin,
    runner_api,
    status_api,
)
from windlass.server.app import Windlass

SEED = int(os.environ.get("WINDLASS_SEED", "20261121"))
EXAMPLES = int(os.environ.get("WINDLASS_EXAMPLES", "15"))
OUT_OF_REACH = {
    "POST /runners/register",
    "PUT /runners/{runner_id}/jobs/{job_id}/complete",
    "PUT /runners/{runner_id}/jobs/{job_id}/abort",
    "GET /jobs/{job_id}/code",
    "DELETE /jobs/{job_id}",
    "PUT /problems/{problem_id}",
    "POST /problems",
    "POST /products",
    "POST /products:import",
    "PUT /products/{product_id}",
}
"""What they need no schema can say: a registration token, a lease, a signature, a job that nobody
has cancelled, data that fits, a price of six decimal places (`multipleOf` is for floats in many tools)."""
HIDDEN = {"/docs", "/docs/{name}", "/openapi.json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(
        tmp_path_factory.mktemp("openapi") / "data",
        environment={"WINDLASS_SYNCHRONOUS": "off", "WINDLASS_REGISTRATION_TOKEN": REGISTRATION_TOKEN},
    ) as running:
        print(f"seed {SEED}; WINDLASS_SEED repeats another, WINDLASS_EXAMPLES asks more")
        yield running


@pytest.fixture(scope="module")
def document(server: ServerProcess) -> dict[str, Any]:
    fetched: dict[str, Any] = httpx.get(server.url + "/openapi.json").json()
    return fetched


@pytest.mark.timeout(1300)
def test_what_is_described_is_what_is_served(server: ServerProcess, tmp_path: Path) -> None:
    """Planted defects: a status that is not described; a field of another type; a 5xx for anything."""
    ran = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")), "run", server.url + "/openapi.json",
            "--seed", str(SEED), "--max-examples", str(EXAMPLES), "--phases", "examples,coverage,fuzzing",
            # No schema knows which queues there are; and test_runners.py looks at the tokens.
            "--exclude-checks", "positive_data_acceptance,ignored_auth,missing_required_header",
            "--request-timeout", "60", "--suppress-health-check", "too_slow,data_too_large",
            "--continue-on-failure", "--no-color",
        ],
        cwd=tmp_path,
        env=clean_environment({"SCHEMATHESIS_HOOKS": "tests.e2e.schemathesis_hooks", "PYTHONPATH": path()}),
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"Tested: {len(operations(httpx.get(server.url + '/openapi.json').json()))}" in ran.stdout, (
        ran.stdout
    )
    warned = re.findall(r"^  ?- (\w+ /\S+)$", ran.stdout.partition("WARNINGS")[2], re.MULTILINE)
    assert set(warned) <= OUT_OF_REACH, ran.stdout


def path() -> str:
    """Where the tests are found, before whatever else is searched."""
    return os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))


async def nothing(_: str) -> bytes:
    """No source."""
    return b""


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, ops in document["paths"].items()
        for method, operation in ops.items()
    ]


def test_the_document_names_the_routes_that_are_served_and_no_others(
    document: dict[str, Any], tmp_path: Path
) -> None:
    """Planted defects: a route of the lean lane that is not described; one described that is not there."""
    app = Windlass(settings.read(data_dir=tmp_path / "data", synchronous="off"))
    app.open()
    routers = (
        queue_admin.router(app.queues),
        status_api.router(app.queues, app.catalogue, app.judge, bool),
        metrics_api.router(app.catalogue),
        catalogue_api.router(app.catalogue),
        judge_api.router(app.judge, lambda _: False, app.dispatch.views.watch),
        job_api.router(app.dispatch),
        runner_api.router(app.dispatch, nothing),
        app.api,
    )
    served = {
        (route.path_format, method)
        for router in routers
        for route in router.routes
        if isinstance(route, Route) and route.path not in HIDDEN
        for method in route.methods or ()
    }
    served |= {(path, method) for method, path in app.lane.routes()}
    app.catalogue.close()
    app.store.close()
    described = {
        (path, method.upper()) for path, operations in document["paths"].items() for method in operations
    }
    assert described == served


def test_its_examples_are_valid_and_really_accepted(server: ServerProcess, document: dict[str, Any]) -> None:
    """Planted defects: an example with a misspelt field; a body without an example."""
    for method, path, operation in operations(document):
        if "requestBody" not in operation:
            continue
        media = operation["requestBody"]["content"].get("application/json")
        if media is None or path.startswith("/runners/"):  # forms; and what test_runners.py asks
            continue
        examples = [example["value"] for example in media.get("examples", {}).values()]
        for name in re.findall(r"schemas/(\w+)", str(media["schema"])):
            examples += document["components"]["schemas"][name].get("examples", [])
        assert examples, f"{method} {path} has no example"
        for example in examples:
            whole = {"components": document["components"], **media["schema"]}
            jsonschema_rs.Draft202012Validator(whole).validate(example)
            url = path
            for name, value in prepare(server.url).items():
                url = url.replace(f"{{{name}}}", value)
            if url == "/queues":
                httpx.delete(f"{server.url}/queues/{example['name']}")
            if url == "/products":
                httpx.delete(f"{server.url}/products/{example['product_id']}")
            answer = httpx.request(method.upper(), server.url + url, json=example)
            assert answer.is_success, f"{method} {path} with {example}: {answer.text}"


def test_the_examples_of_answers_are_valid(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            for media in response.get("content", {}).values():
                assert "schema" in media, f"{method} {path} {status}"
                if "example" in media:
                    whole = {"components": document["components"], **media["schema"]}
                    jsonschema_rs.Draft202012Validator(whole).validate(media["example"])


def test_every_operation_has_words_and_an_id_of_its_own(document: dict[str, Any]) -> None:
    described = operations(document)
    assert len({operation["operationId"] for _, _, operation in described}) == len(described)
    for _, _, operation in described:
        assert operation["summary"]
        assert operation["tags"]
        assert all(response["description"] for response in operation["responses"].values())
