"""API keys on the command line: beside a live server and without one, shown once, hashed, revoked at once."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
from pathlib import Path

import httpx

from tests.harness import ServerProcess, run_cli


def made(data_dir: Path, *scopes: str) -> str:
    arguments = [argument for scope in scopes for argument in ("--scope", scope)]
    ran = run_cli("key", "create", *arguments, "--data-dir", str(data_dir))
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def get(server: ServerProcess, path: str, key: str | None = None) -> int:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.get(server.url + path, headers=headers).status_code


def test_a_key_made_beside_a_live_server_counts_at_once(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        assert get(server, "/queues") == 200
        socket = server.data_dir / "windlass.sock"
        assert stat.S_ISSOCK(socket.stat().st_mode)
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        key = made(server.data_dir, "all")
        assert get(server, "/queues") == 401
        assert get(server, "/queues", key) == 200
        assert get(server, "/queues", key[:-1]) == 401
        server.restart()
        assert get(server, "/queues") == 401
        assert get(server, "/queues", key) == 200


def test_a_key_made_without_a_server_counts_when_one_starts(tmp_path: Path) -> None:
    key = made(tmp_path / "data", "send:orders", "admin:orders")
    with ServerProcess(tmp_path / "data") as server:
        headers = {"authorization": f"Bearer {key}"}
        assert httpx.post(server.url + "/queues", json={"name": "orders"}, headers=headers).status_code == 201
        url = server.url + "/queues/orders/messages"
        assert httpx.post(url, json={"content": 1}, headers=headers).status_code == 201
        assert get(server, "/queues/orders/messages", key) == 403


def files(server: ServerProcess) -> list[Path]:
    """All that is in the data directory, but its socket."""
    return [path for path in server.data_dir.rglob("*") if path.is_file()]


def test_a_key_is_shown_once_and_only_its_hash_is_on_disk(tmp_path: Path) -> None:
    """Planted defects: a log line with the key, the secret kept beside its hash; the same for the pair."""
    with ServerProcess(tmp_path / "data") as server:
        key = made(server.data_dir, "all")
        assert key.startswith("wk_")
        assert get(server, "/queues", key) == 200
        listed = run_cli("key", "list", "--data-dir", str(server.data_dir))
        assert key.split("_")[1] in listed.stdout
        secret = key.split("_", 2)[2].encode()
        for file in [*files(server), server.log_path]:
            if file.is_file():
                assert secret not in file.read_bytes(), file
        assert secret.decode() not in listed.stdout + listed.stderr
        ran = run_cli("key", "create", "--scope", "all", "--json", "--data-dir", str(server.data_dir))
        paired = json.loads(ran.stdout)["secret_access_key"].encode()
        server.terminate()
        for file in [*files(server), server.log_path]:
            assert secret not in file.read_bytes(), file
            assert paired not in file.read_bytes(), file


def test_a_key_is_shown_with_its_pair_and_alone_on_stdout(tmp_path: Path) -> None:
    """Planted defect: what `$(windlass key create ...)` gives is more than the key."""
    ran = run_cli("key", "create", "--scope", "all", "--data-dir", str(tmp_path / "data"))
    assert re.fullmatch(r"wk_\w{8}_[\w-]{43}\n", ran.stdout)
    shown = dict(line.split("=", 1) for line in ran.stderr.splitlines() if line.startswith("AWS_"))
    assert shown["AWS_ACCESS_KEY_ID"] == "WINDLASS" + ran.stdout.split("_")[1].upper()
    assert re.fullmatch(r"[\w-]{40}", shown["AWS_SECRET_ACCESS_KEY"])
    ran = run_cli("key", "create", "--scope", "all", "--json", "--data-dir", str(tmp_path / "data"))
    made = json.loads(ran.stdout)
    assert made["access_key_id"] == "WINDLASS" + made["id"].upper()
    assert made["secret_access_key"] != shown["AWS_SECRET_ACCESS_KEY"]


def test_revoking_is_immediate(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        data = ("--data-dir", str(server.data_dir))
        ran = run_cli("key", "create", "--scope", "all", "--name", "shop", "--json", *data)
        first, second = json.loads(ran.stdout), made(server.data_dir, "all")
        assert first["name"] == "shop"
        assert get(server, "/queues", first["key"]) == 200
        assert run_cli("key", "revoke", first["id"], *data).returncode == 0
        assert get(server, "/queues", first["key"]) == 401
        assert get(server, "/queues", second) == 200
        again = run_cli("key", "revoke", first["id"], *data)
        assert again.returncode == 1
        assert again.stderr == f"windlass: There is no key {first['id']!r}.\n"


def test_after_a_kill_the_socket_left_behind_is_in_nobodys_way(tmp_path: Path) -> None:
    """Planted defect: taking a socket file for a living server."""
    with ServerProcess(tmp_path / "data") as server:
        server.kill()
        assert (server.data_dir / "windlass.sock").exists()
        key = made(server.data_dir, "all")
        server.start()
        assert get(server, "/queues", key) == 200
        assert made(server.data_dir, "all")


def test_a_directory_too_deep_for_a_sockets_address_works_too(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / "data"
    deep.parent.mkdir()
    with ServerProcess(deep) as server:
        assert get(server, "/queues", made(deep, "all")) == 200
        assert stat.S_IMODE((deep / "windlass.sock").stat().st_mode) == 0o600
        server.terminate()
    assert not (deep / "windlass.sock").exists()


def test_a_bad_scope_is_a_plain_word(tmp_path: Path) -> None:
    for scope in ("everything", "send:a b", ""):
        ran = run_cli("key", "create", "--scope", scope, "--data-dir", str(tmp_path / "data"))
        assert ran.returncode == 1
        assert ran.stderr.startswith("windlass: ")
        assert "is no scope" in ran.stderr
        assert "Traceback" not in ran.stderr
    assert run_cli("key", "create", "--data-dir", str(tmp_path / "data")).returncode == 2


def test_another_address_needs_a_key_or_insecure(tmp_path: Path) -> None:
    """Planted defect: listening on every address for everybody."""
    data = ("--data-dir", str(tmp_path / "data"))
    refused = run_cli("serve", "--host", "0.0.0.0", "--port", "0", *data)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("windlass: 0.0.0.0 can be reached from other machines")
    assert f"windlass key create --scope all --data-dir {tmp_path / 'data'}" in refused.stderr
    assert "--insecure" in refused.stderr
    assert "Traceback" not in refused.stderr
    with ServerProcess(tmp_path / "data", "--host", "0.0.0.0", "--insecure") as server:
        assert get(server, "/queues") == 200
    key = made(tmp_path / "data", "all")
    with ServerProcess(tmp_path / "data", "--host", "0.0.0.0") as server:
        assert get(server, "/queues") == 401
        assert get(server, "/queues", key) == 200


def test_the_client_commands_use_a_key(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        key = made(server.data_dir, "all")
        without = run_cli("status", server=server.url)
        assert without.returncode == 1
        assert run_cli("status", server=server.url, environment={"WINDLASS_KEY": key}).returncode == 0


def test_a_server_that_does_not_answer_is_a_plain_word(tmp_path: Path) -> None:
    """Planted defect: a traceback where the server behind the socket does not answer."""
    with ServerProcess(tmp_path / "data") as server:
        os.kill(server.pid, signal.SIGSTOP)  # it answers nobody
        try:
            ran = run_cli("key", "list", "--data-dir", str(server.data_dir), timeout=120)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert ran.returncode == 1
        assert ran.stderr.startswith("windlass: ")
        assert "Traceback" not in ran.stderr
