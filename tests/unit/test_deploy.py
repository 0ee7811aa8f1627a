"""The deployment files: right by those who read them, and right about Windlass."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main
from ruamel.yaml import YAML

from tests.proxies import program
from tests.redis_server import RedisServer
from windlass.cli import app
from windlass.settings import Settings
from windlass.store.redis.address import parse
from windlass.store.redis.durability import Reader, check
from windlass.store.redis.topology import Topology

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
COMPOSE = DEPLOY / "docker-compose.yml"
ON_REDIS = DEPLOY / "docker-compose.redis.yml"
BALANCER = DEPLOY / "haproxy.cfg"
NGINX = DEPLOY / "nginx.conf"
EXAMPLE = DEPLOY / ".env.example"
UNITS = sorted((DEPLOY / "systemd").iterdir())

PROGRAM = typer.main.get_command(app)
INSTALLED = "/usr/local/lib/windlass/bin/windlass"


def said(*command: str | Path) -> str:
    """What a command prints where it finds fault; "" where it finds none."""
    tool, *arguments = map(str, command)
    beside = Path(sys.executable).with_name(tool)
    done = subprocess.run(
        [str(beside) if beside.exists() else tool, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout or f"exit {done.returncode}" if done.returncode else ""


def environment_of(command: str) -> dict[str, object]:
    """The variables that stand for options of a command, and the options' defaults."""
    found = PROGRAM.commands[command]  # type: ignore[attr-defined] # typer's groups have them
    return {
        variable: parameter.default
        for parameter in found.params
        if isinstance(variable := parameter.envvar, str)
    }


def accepts(arguments: list[str]) -> None:
    """Raises what the command line raises for a wrong one; runs nothing."""
    name, *rest = arguments
    command = PROGRAM.commands[name]  # type: ignore[attr-defined] # as above
    command.make_context(name, rest)


# --- the environment ----------------------------------------------------------------------------------


def example() -> dict[str, str]:
    """The variables of .env.example, set or not, and their values. No line is anything else."""
    found = {}
    for line in EXAMPLE.read_text().splitlines():
        match = re.fullmatch(r"#?(WINDLASS_[A-Z_]+)=(.*)|(?:# .*|#)?", line)
        assert match, f"neither a variable, nor a comment with a space: {line!r}"
        if match[1]:
            assert match[1] not in found
            found[match[1]] = match[2]
    return found


def test_the_example_has_every_variable_and_no_other() -> None:
    """Planted: a setting that nobody told the example of; a variable in it that nothing reads."""
    settings = {f"WINDLASS_{name.upper()}" for name in Settings.model_fields}
    assert set(example()) == settings | set(environment_of("serve")) | set(environment_of("runner"))


def test_the_example_shows_the_defaults() -> None:
    """Planted: a default that changed."""
    defaults = {f"WINDLASS_{name.upper()}": field.default for name, field in Settings.model_fields.items()}
    expected = environment_of("runner") | environment_of("serve") | defaults
    shown = {False: "false", None: ""}
    assert example() == {name: shown.get(value, str(value)) for name, value in expected.items()}  # type: ignore[call-overload] # any value may be looked up


def test_every_variable_is_explained() -> None:
    """Planted: a variable without a comment above it."""
    lines = EXAMPLE.read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"#?WINDLASS_", line):
            assert lines[number - 1].startswith("# "), line


# --- Docker -------------------------------------------------------------------------------------------


def stages() -> set[str]:
    return set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE.read_text(), re.MULTILINE))


def test_the_dockerfile_has_nothing_to_object_to() -> None:
    assert said("hadolint", DOCKERFILE) == ""


def test_a_wrong_dockerfile_is_objected_to(tmp_path: Path) -> None:
    """Planted: an instruction that is none."""
    wrong = tmp_path / "Dockerfile"
    wrong.write_text(DOCKERFILE.read_text().replace("WORKDIR /src", "WORKDRI /src"))
    assert "unexpected" in said("hadolint", wrong)


def test_what_is_copied_is_there_and_let_in() -> None:
    """Planted: a source that moved, or that the ignore file keeps out."""
    allowed = [
        line[1:]
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert sources == set(allowed)
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_what_the_images_run_are_commands() -> None:
    """Planted: an option that was renamed."""
    commands = re.findall(r'^CMD (\["(?:serve|runner)".*\])$', DOCKERFILE.read_text(), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        accepts(YAML(typ="safe").load(command))


# --- Compose ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose() -> Any:
    return YAML(typ="safe").load(COMPOSE)


def test_the_compose_file_is_one() -> None:
    assert said("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE) == ""


def test_a_wrong_compose_file_is_objected_to(tmp_path: Path) -> None:
    """Planted: a key that Compose does not know."""
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(COMPOSE.read_text().replace("stop_grace_period:", "stop_grace:"))
    assert "stop_grace" in said("check-jsonschema", "--builtin-schema", "vendor.compose-spec", wrong)


def test_compose_asks_for_what_the_example_has() -> None:
    """Planted: a variable that is only here, so that nobody is told of it."""
    asked = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    assert asked
    assert asked <= set(example())


def test_compose_sets_variables_that_somebody_reads(compose: Mapping[str, Any]) -> None:
    """Planted: a misspelt variable of a service."""
    for name, service in compose["services"].items():
        assert set(service.get("environment", {})) <= set(example()), name


def test_compose_builds_stages_that_are_there(compose: Mapping[str, Any]) -> None:
    """Planted: a stage that was renamed."""
    built = {service["build"]["target"] for service in compose["services"].values() if "build" in service}
    assert built == {"server", "runner"}
    assert built <= stages()


def test_each_service_has_a_volume_of_its_own(compose: Mapping[str, Any]) -> None:
    """Planted: two runners on one directory, of which the second is refused."""
    volumes = [
        volume.partition(":")[0] for service in compose["services"].values() for volume in service["volumes"]
    ]
    assert sorted(volumes) == sorted(compose["volumes"])
    assert {"runner-1", "runner-2"} <= set(volumes)


def test_the_server_is_not_open_to_everybody(compose: Mapping[str, Any]) -> None:
    """Planted: the port on every address of the host, or keys that are not asked for."""
    server = compose["services"]["server"]
    assert all(port.startswith("127.0.0.1:") for port in server["ports"])
    assert "WINDLASS_INSECURE" not in server["environment"]


def test_redis_is_prepared_and_not_used(compose: Mapping[str, Any]) -> None:
    """Planted: a Redis that is started for nothing, or one that keeps nothing."""
    redis = compose["services"]["redis"]
    options = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=True))
    assert redis["profiles"] == ["redis"]
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    others = [service for name, service in compose["services"].items() if name != "redis"]
    assert all(
        "redis" not in str(service.get(key)) for service in others for key in ("environment", "command")
    )


# --- Compose, on Redis --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_redis() -> Any:
    return YAML(typ="safe").load(ON_REDIS)


def test_the_compose_file_on_redis_is_one() -> None:
    assert said("check-jsonschema", "--builtin-schema", "vendor.compose-spec", ON_REDIS) == ""


def test_its_variables_are_set_and_read(on_redis: Mapping[str, Any]) -> None:
    """Planted: a misspelt variable of a service; one of which neither the example nor the head tells."""
    for name in ("server-1", "server-2"):
        assert set(on_redis["services"][name]["environment"]) <= set(example()), name
    text = ON_REDIS.read_text()
    head = text[: text.index("name:")]
    asked = set(re.findall(r"\$\{(\w+)", text))
    assert {variable for variable in asked if f'"{variable}=' not in head} <= set(example())


def test_its_servers_differ_only_in_their_volumes(on_redis: Mapping[str, Any]) -> None:
    """Planted: two servers on one directory, or in two stores."""
    first, second = (dict(on_redis["services"][name]) for name in ("server-1", "server-2"))
    assert first.pop("volumes") != second.pop("volumes")
    assert first == second
    assert first["build"]["target"] in stages()
    volumes = [
        volume.partition(":")[0]
        for service in on_redis["services"].values()
        for volume in service["volumes"]
        if not volume.startswith(".")
    ]
    assert sorted(volumes) == sorted(on_redis["volumes"])


def test_its_redis_gives_what_its_servers_ask_for(on_redis: Mapping[str, Any]) -> None:
    """Planted: a Redis with less than `fsync`; an option that redis-server does not have."""
    program, *options = on_redis["services"]["redis"]["command"]
    environment = on_redis["services"]["server-1"]["environment"]
    assert environment["WINDLASS_DURABILITY"] == "${WINDLASS_DURABILITY:-fsync}"
    assert parse(environment["WINDLASS_STORE"]).hosts == (("redis", 6379),)
    assert program == "redis-server"
    server = RedisServer("--appendonly", "no", "--appendfsync", "no", *options)
    topology = Topology(parse(server.url))
    durability = Reader(topology, "fsync").read()
    topology.close()
    server.close()
    check(durability)
    assert durability.advice == []


def test_its_balancer_knows_its_servers(on_redis: Mapping[str, Any]) -> None:
    """Planted: a server that was renamed; a request that is sent again though it may have been done."""
    assert said("haproxy", "-c", "-q", "-f", BALANCER) == ""
    text = BALANCER.read_text()
    servers = dict(re.findall(r"^    server (\S+) (\S+):8000$", text, re.MULTILINE))
    assert servers == {name: name for name in on_redis["services"] if name.startswith("server-")}
    assert re.findall(r"^    retry-on (.+)$", text, re.MULTILINE) == ["conn-failure"]
    assert on_redis["services"]["balancer"]["volumes"] == [
        "./haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro"
    ]
    assert all(port.startswith("127.0.0.1:") for port in on_redis["services"]["balancer"]["ports"])


def test_a_wrong_balancer_is_objected_to(tmp_path: Path) -> None:
    """Planted: a word that haproxy does not know."""
    wrong = tmp_path / "haproxy.cfg"
    wrong.write_text(BALANCER.read_text().replace("option redispatch", "option redispach"))
    assert "redispach" in said("haproxy", "-c", "-f", wrong)


def nginx(folder: Path, site: str) -> str:
    """What nginx objects to in a site, on a machine that knows the names of the servers."""
    (folder / "windlass.conf").write_text(re.sub(r"server-\d:", "127.0.0.1:", site))
    whole = folder / "nginx.conf"
    paths = "".join(
        f"{name}_temp_path {folder / name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    http = f"http {{ {paths} include {folder}/windlass.conf; }}"
    whole.write_text(f"pid {folder / 'pid'}; error_log stderr; events {{}} {http}")
    return said("env", program("nginx"), "-t", "-q", "-p", folder, "-c", whole)


def test_nginx_knows_the_same_servers_as_haproxy(tmp_path: Path) -> None:
    """Planted: a server that was renamed; a POST that is sent again though it may have been done."""
    text = NGINX.read_text()
    assert nginx(tmp_path, text) == ""
    servers = re.findall(r"^    server (\S+:8000) ", text, re.MULTILINE)
    assert servers == re.findall(r"^    server \S+ (\S+:8000)$", BALANCER.read_text(), re.MULTILINE)
    assert re.findall(r"^ *proxy_next_upstream (.+);$", text, re.MULTILINE) == ["error"]


def test_a_wrong_nginx_is_objected_to(tmp_path: Path) -> None:
    """Planted: a word that nginx does not know."""
    assert "least_con" in nginx(tmp_path, NGINX.read_text().replace("least_conn", "least_con"))


# --- systemd ------------------------------------------------------------------------------------------


def settings_of(unit: Path) -> Iterator[tuple[str, str]]:
    """(name, value) of every line that sets something."""
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name, value


def verified(unit: str, name: str, folder: Path) -> str:
    """What systemd says about a unit, with a program in it that is there."""
    file = folder / name
    file.write_text(unit.replace(INSTALLED, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(file)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return "".join(line for line in done.stderr.splitlines(keepends=True) if name in line) or (
        f"exit {done.returncode}: {done.stderr}" if done.returncode else ""
    )


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_units_have_nothing_to_object_to(unit: Path, tmp_path: Path) -> None:
    assert verified(unit.read_text(), unit.name.replace("@.", "@1."), tmp_path) == ""


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_wrong_unit_is_objected_to(unit: Path, tmp_path: Path) -> None:
    """Planted: a name that systemd would pass over, and the hardening with it."""
    wrong = unit.read_text().replace("ProtectHome=", "ProtectHomes=")
    assert "ProtectHomes" in verified(wrong, unit.name.replace("@.", "@1."), tmp_path)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_what_the_units_run_are_commands(unit: Path) -> None:
    """Planted: an option that was renamed."""
    program, *arguments = shlex.split(dict(settings_of(unit))["ExecStart"])
    assert program == INSTALLED
    accepts(arguments)


def test_only_the_runner_is_told_to_stop() -> None:
    """Planted: SIGTERM for all of the group, which ends what is being judged as a runtime error."""
    runner = dict(settings_of(DEPLOY / "systemd/windlass-runner@.service"))
    assert runner["KillMode"] == "mixed"
    assert runner["Delegate"] == "yes"
    assert runner["OOMPolicy"] == "continue"


def test_a_runner_has_the_same_rights_everywhere(compose: Mapping[str, Any]) -> None:
    """Planted: a capability that was added in one place."""
    unit = dict(settings_of(DEPLOY / "systemd/windlass-runner@.service"))
    by_systemd = set(unit["CapabilityBoundingSet"].replace("CAP_", "").split())
    by_hand = set(re.findall(r"--cap-add (\w+)", DOCKERFILE.read_text()))
    runners = [service for name, service in compose["services"].items() if name.startswith("runner-")]
    assert by_systemd == by_hand
    for runner in runners:
        assert set(runner["cap_add"]) == by_systemd
        options = set(re.findall(r"--security-opt (\S+)", DOCKERFILE.read_text()))
        assert options <= set(runner["security_opt"])


def test_no_stop_is_cut_short(compose: Mapping[str, Any]) -> None:
    """Planted: less time to stop than a runner takes for its jobs and their hand-over: 60 s and 60 s."""
    unit = dict(settings_of(DEPLOY / "systemd/windlass-runner@.service"))
    assert int(unit["TimeoutStopSec"]) >= 120
    assert int(compose["services"]["runner-1"]["stop_grace_period"].removesuffix("s")) >= 120
