"""Registration: back-off without end, an identity that is kept, and the end of one."""

from __future__ import annotations

import json
import stat
from itertools import pairwise
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.unit.runner.server import DROP, HANG, LOSE, SECRET, Server
from tests.unit.runner.times import jumping, now
from windlass.errors import RegistrationRefused
from windlass.runner.link import Link
from windlass.runner.registration import Registration
from windlass.runner.wire import Registered


def registration(
    server: Server,
    file: Path | None = None,
    *,
    name: str = "one",
    token: str | None = SECRET,
    labels: tuple[str, ...] = (),
    chance: float = 0.0,
) -> Registration:
    link = Link(server.url, httpx_transport=server.transport)
    return Registration(link, file, name=name, token=token, labels=labels, chance=lambda: chance)


def test_what_is_sent_and_what_comes_of_it() -> None:
    server = Server(features=("wait",), limit=3)
    identity = jumping(registration(server, labels=("gpu",)).identity())
    assert (identity.runner_id, identity.token, identity.config.max_concurrent_jobs) == ("rn_1", "rk_1", 3)
    assert identity.config.features == ("wait",)
    [request] = server.requests
    assert request.json == {
        "registration_token": SECRET,
        "name": "one",
        "features": ["batch", "control", "events", "wait"],
        "labels": ["gpu"],
    }
    assert "authorization" not in request.headers


def test_back_off_doubles_from_1_to_30_seconds_without_end() -> None:
    """Invariant 1. Planted defect: a number of tries after which it gives up, or any 2xx taken for a yes."""
    server = Server()
    sound = b'{"data": {"runner_id": "rn_9", "token": "rk_9"}}'
    server.fail("register", 500, (200, sound), (202, sound), 204, (302, sound), 403, 404, DROP)
    server.fail("register", (201, b"{}"), (201, b'{"data": 1}'))

    async def scenario() -> list[float]:
        await registration(server).identity()
        return [request.at for request in server.requests]

    moments = jumping(scenario())
    pauses = [round(later - earlier) for earlier, later in pairwise(moments)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]


def test_back_off_is_shortened_at_random_but_not_below_a_second() -> None:
    server = Server()
    server.fail("register", 500, 500, 500)

    async def scenario() -> list[float]:
        await registration(server, chance=1.0).identity()
        return [request.at for request in server.requests]

    moments = jumping(scenario())
    assert [round(b - a) for a, b in pairwise(moments)] == [1, 1, 2]


def test_an_answer_that_does_not_come_is_given_up_after_ten_seconds() -> None:
    server = Server()
    server.fail("register", HANG, LOSE)

    async def scenario() -> float:
        began = now()
        await registration(server).identity()
        return now() - began

    assert round(jumping(scenario())) == 10 + 1 + 2


def test_a_server_that_knows_the_oldest_form_only_gets_it() -> None:
    server = Server()
    server.fail("register", 422)
    jumping(registration(server).identity())
    assert [set(request.json) for request in server.requests] == [
        {"registration_token", "name", "features"},
        {"registration_token", "name"},
    ]


def test_401_is_final_for_everybody_who_asks() -> None:
    """Planted defect: each of the runner's parts registers again after the refusal."""
    server = Server()

    async def scenario() -> None:
        wrong = registration(server, token="wrong")
        for _ in range(2):
            with pytest.raises(RegistrationRefused, match="refuses the registration token"):
                await wrong.identity()

    jumping(scenario())
    assert len(server.requests) == 1


def test_without_a_token_and_without_an_identity_there_is_no_start(tmp_path: Path) -> None:
    server = Server()
    with pytest.raises(RegistrationRefused, match="WINDLASS_REGISTRATION_TOKEN"):
        jumping(registration(server, tmp_path / "identity.json", token=None).identity())
    assert server.requests == []


def test_an_identity_is_kept_for_its_user_alone_and_used_again(tmp_path: Path) -> None:
    """Invariant 1. Planted defect: a file that others may read, or one that is not looked at."""
    server, file = Server(), tmp_path / "identity.json"
    first = jumping(registration(server, file).identity())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = jumping(registration(server, file, token=None).identity())
    assert again == first
    assert len(server.requests) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["identity.json"]


@pytest.mark.parametrize("broken", [b"", b"{", b'{"kept_for": 1}', b"\xff", b"[]"])
def test_an_unreadable_identity_is_made_anew(tmp_path: Path, broken: bytes) -> None:
    server, file = Server(), tmp_path / "identity.json"
    file.write_bytes(broken)
    assert jumping(registration(server, file).identity()).runner_id == "rn_1"
    assert json.loads(file.read_bytes())["registered"]["runner_id"] == "rn_1"


def test_another_server_name_or_label_is_another_runner(tmp_path: Path) -> None:
    """Planted defect: a token that was given by one server is shown to another."""
    server, file = Server(), tmp_path / "identity.json"
    jumping(registration(server, file).identity())
    jumping(registration(server, file, name="two").identity())
    jumping(registration(server, file, name="two", labels=("gpu",)).identity())
    elsewhere = Server(url="http://elsewhere.test")
    jumping(registration(elsewhere, file, name="two", labels=("gpu",)).identity())
    assert (server.names, elsewhere.names) == (["one", "two", "two"], ["two"])


def test_a_host_that_keeps_less_than_it_did_is_another_runner(tmp_path: Path) -> None:
    """Planted defects: the server goes on believing what a host enforced at an earlier start; a start without
    the registration token that says that there is no identity, and not why it is of no use."""
    server, file = Server(), tmp_path / "identity.json"
    jumping(registration(server, file, labels=("sandbox-network", "sandbox-files")).identity())
    with capture_logs() as logs, pytest.raises(RegistrationRefused):
        jumping(registration(server, file, token=None, labels=("sandbox-network",)).identity())
    assert [line["event"] for line in logs] == ["identity_of_another"]
    assert "other labels" in logs[0]["message"]
    jumping(registration(server, file, labels=("sandbox-network",)).identity())
    told = [request.json["labels"] for request in server.requests]
    assert told == [["sandbox-network", "sandbox-files"], ["sandbox-network"]]


def test_a_disk_that_takes_nothing_is_no_reason_to_end(tmp_path: Path) -> None:
    """Invariant 6. Planted defect: the error of the write is let through."""
    file = tmp_path / "none" / "identity.json"
    assert jumping(registration(Server(), file).identity()).runner_id == "rn_1"


def test_two_401_in_a_row_make_a_new_identity(tmp_path: Path) -> None:
    """Invariant 1. Planted defect: a counter that others leave as it is, or that counts an old token."""
    server, file = Server(), tmp_path / "identity.json"

    async def scenario() -> list[Registered]:
        registry = registration(server, file)
        old = await registry.identity()
        registry.heard(old, 401)
        registry.heard(old, 204)
        registry.heard(old, 401)
        assert await registry.identity() is old
        registry.heard(old, 401)
        assert not file.exists()
        new = await registry.identity()
        registry.heard(old, 401)
        registry.heard(old, 401)
        return [old, new, await registry.identity()]

    assert [identity.runner_id for identity in jumping(scenario())] == ["rn_1", "rn_2", "rn_2"]
