"""Where a control group could be made, from recorded trees of each kind of system."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgegauge.emulate.places import Place, places
from edgegauge.host.tree import Tree

V2 = "sys/fs/cgroup"
SCOPE = "user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope"


def tree(root: Path, files: dict[str, str]) -> Tree:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree(root)


def second(root: Path, own: str, handing: dict[str, str], offered: str = "") -> Tree:
    """A version 2 system: the folders that hand controllers on, and what `own` is offered."""
    files = {"proc/self/cgroup": f"0::/{own}\n", f"{V2}/cgroup.controllers": "cpuset cpu memory"}
    files |= {f"{V2}/{own}/cgroup.controllers": offered}
    files |= {f"{V2}/{path}/cgroup.subtree_control": words for path, words in handing.items()}
    return tree(root, files)


def test_version_1_makes_groups_below_its_own(tmp_path: Path) -> None:
    lines = "4:memory:/jobs/7\n3:cpuset:/\n2:cpu,cpuacct:/\n0::/\n"
    files = {"proc/self/cgroup": lines, f"{V2}/memory/jobs/7/cgroup.procs": "1"}
    (found,) = places(tree(tmp_path, files))
    assert found == Place("cgroup v1", f"{V2}/memory/jobs/7", f"{V2}/cpuset")


def test_version_1_in_a_container_that_shows_no_more_than_its_own(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/docker/ab\n3:cpuset:/../x\n",
        f"{V2}/memory/tasks": "1",
    }
    (found,) = places(tree(tmp_path, files))
    assert found == Place("cgroup v1", f"{V2}/memory", f"{V2}/cpuset")


def test_a_systemd_user_session_has_the_slice_above_it_and_then_its_own_scope(
    tmp_path: Path,
) -> None:
    above = SCOPE.rpartition("/")[0]
    handing = {above: "memory pids", "user.slice": "cpuset memory", SCOPE: ""}
    found = places(second(tmp_path, SCOPE, handing, offered="memory pids"))
    assert found == [
        Place("cgroup v2", f"{V2}/{above}", None),
        Place("cgroup v2", f"{V2}/user.slice", f"{V2}/user.slice"),
        Place("cgroup v2", f"{V2}/{SCOPE}", None, crowded=True),
    ]


def test_a_container_of_version_2_can_only_make_room_in_its_own(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        f"{V2}/cgroup.controllers": "cpuset cpu io memory pids",
        f"{V2}/cgroup.subtree_control": "",
    }
    (found,) = places(tree(tmp_path, files))
    assert found == Place("cgroup v2", V2, V2, crowded=True)


def test_a_folder_that_hands_memory_on_is_not_asked_to_make_room(tmp_path: Path) -> None:
    found = places(second(tmp_path, "jobs", {"jobs": "memory"}, offered="memory"))
    assert found == [Place("cgroup v2", f"{V2}/jobs", None)]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": ""},
        {"proc/self/cgroup": "nonsense\n:::\n0::/../..\n"},
        {"proc/self/cgroup": "0::/\n"},  # hybrid: version 2 without controllers
        {"proc/self/cgroup": "4:memory:/\n"},  # not mounted
        {"proc/self/cgroup": "0::/a\n", f"{V2}/cgroup.controllers": "cpu io"},
    ],
)
def test_without_a_memory_controller_there_is_no_place(
    tmp_path: Path, files: dict[str, str]
) -> None:
    assert places(tree(tmp_path, files)) == []
