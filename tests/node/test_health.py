"""What a node must have before torchrun starts, and what it is told when it has not."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from orchestrator.node.health import check_cpus, check_endpoint_is_free, check_gpus, check_route, check_writable


def test_a_directory_that_takes_files_is_writable_and_left_as_it_was(tmp_path: Path) -> None:
    assert check_writable(tmp_path).ok
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_told_by_name(tmp_path: Path) -> None:
    check = check_writable(tmp_path / "gone")
    assert not check.ok
    assert check.detail.startswith(f"{tmp_path / 'gone'}: No such file or directory; submit from ")


@pytest.mark.parametrize(
    ("usable", "expected", "binds_cpus", "ok", "detail"),
    [
        (2, None, True, True, "2 usable"),
        (2, 8, False, True, "2 usable, 8 planned"),
        (8, 4, True, True, "8 usable, 4 planned"),
        (1, 4, True, False, "1 usable, 4 planned; ask for --cpus-per-task on srun too"),
    ],
)
def test_fewer_cores_than_planned_fail_only_where_tasks_are_pinned(
    usable: int, expected: int | None, binds_cpus: bool, ok: bool, detail: str
) -> None:
    check = check_cpus(usable, expected=expected, binds_cpus=binds_cpus)
    assert check.ok is ok and check.detail.startswith(detail)


def test_gpus_that_are_not_there_fail_the_node_and_nothing_else_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    (check,) = check_gpus(2, "GPU-00000000-0000-0000-0000-000000000000")
    assert not check.ok and "set accelerator: cpu in the cluster profile" in check.detail
    assert "\n" not in check.detail


def test_a_taken_port_is_told_before_torchrun_trips_over_it() -> None:
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        check = check_endpoint_is_free("127.0.0.1", port)
        assert not check.ok and check.detail.startswith(f"127.0.0.1:{port}: Address already in use")
    assert check_endpoint_is_free("127.0.0.1", port).ok


def test_an_address_of_another_machine_is_no_place_to_listen() -> None:
    assert "Cannot assign requested address" in check_endpoint_is_free("192.0.2.1", 20000).detail


def test_the_way_to_the_head_is_known_without_sending_anything() -> None:
    check = check_route("127.0.0.1", 20000)
    assert check.ok and check.detail == "127.0.0.1:20000 by way of 127.0.0.1"


def test_a_head_whose_name_does_not_resolve_is_one_line_with_a_fix() -> None:
    check = check_route("no-such-host.invalid", 20000)
    assert not check.ok
    assert check.detail.startswith("no way to no-such-host.invalid:20000: ") and "network_interface" in check.detail
