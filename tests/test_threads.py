"""How many threads there are by default, and who has the say: system files, variables, calls, threadpoolctl."""

from __future__ import annotations

import functools
import os

import pytest
from child import printed

import pybackprop as pb
from pybackprop import _core

USUAL = "25 30 0:22 / /proc rw,nosuid - proc proc rw\n31 23 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
V2 = USUAL + "32 23 0:29 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = USUAL + "32 23 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"


@pytest.fixture
def tree(tmp_path):
    """Writes files below a root of their own and returns it."""

    def write(files: dict[str, str]) -> str:
        for name, text in files.items():
            path = tmp_path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path)

    return write


def v2(group: str, mounts: str = V2, **limits: str) -> dict[str, str]:
    """Version 2: ``limits`` are of the group (``own``), of groups around it, or of the ``top``."""
    folders = {"own": "/kube/pod/box", "pod": "/kube/pod", "kube": "/kube", "top": "", "other": "/other"}
    files = {f"/sys/fs/cgroup{folders[name]}/cpu.max": text + "\n" for name, text in limits.items()}
    return {"/proc/self/cgroup": f"0::{group}\n", "/proc/self/mountinfo": mounts, **files}


def v1(
    group: str, mounts: str = V1, at: str = "/sys/fs/cgroup/cpu,cpuacct", **limits: tuple[int, int]
) -> dict[str, str]:
    folders = {"own": "/docker/box", "docker": "/docker", "top": ""}
    files = {
        "/proc/self/cgroup": f"5:cpuset:/wrong\n4:cpu,cpuacct:{group}\n1:name=systemd:/init\n0::/init\n",
        "/proc/self/mountinfo": mounts,
    }
    for name, (quota, period) in limits.items():
        files[f"{at}{folders[name]}/cpu.cfs_quota_us"] = f"{quota}\n"
        files[f"{at}{folders[name]}/cpu.cfs_period_us"] = f"{period}\n"
    return files


class TestQuota:
    @pytest.mark.parametrize(
        ("limits", "quota"),
        [
            ({"own": "200000 100000"}, 2),
            ({"own": "250000 100000"}, 3),  # rounded up
            ({"own": "1000 100000"}, 1),
            ({"own": "max 100000"}, None),
            ({"own": "max 100000", "kube": "300000 100000"}, 3),  # a group is bound by those around it
            ({"own": "400000 100000", "pod": "200000 100000", "kube": "300000 100000"}, 2),
            ({"own": "200000 100000", "pod": "400000 100000"}, 2),
            ({"top": "150000 50000"}, 3),
            ({"other": "100000 100000"}, None),
            ({}, None),
        ],
    )
    def test_version_2(self, tree, limits, quota):
        assert _core.cpu_limits(tree(v2("/kube/pod/box", **limits)))["quota"] == quota

    @pytest.mark.parametrize(
        ("limits", "quota"),
        [
            ({"own": (200000, 100000)}, 2),
            ({"own": (150000, 100000)}, 2),
            ({"own": (-1, 100000)}, None),
            ({"own": (-1, 100000), "docker": (300000, 100000)}, 3),
            ({"own": (400000, 100000), "docker": (100000, 100000), "top": (-1, 100000)}, 1),
            ({}, None),
        ],
    )
    def test_version_1(self, tree, limits, quota):
        assert _core.cpu_limits(tree(v1("/docker/box", **limits)))["quota"] == quota

    def test_both_versions_side_by_side(self, tree):
        mounts = V1 + "40 23 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        files = v1("/docker/box", mounts, own=(300000, 100000))
        assert _core.cpu_limits(tree(files))["quota"] == 3
        files["/sys/fs/cgroup/unified/init/cpu.max"] = "200000 100000"
        assert _core.cpu_limits(tree(files))["quota"] == 2

    def test_container_that_is_shown_its_own_group(self, tree):
        """The group's name is that of the host; the mount begins at it."""
        mounts = USUAL + "32 23 0:29 /docker/box /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpuacct,cpu\n"
        assert _core.cpu_limits(tree(v1("/docker/box", mounts, top=(200000, 100000))))["quota"] == 2

    def test_group_within_the_group_that_a_mount_begins_at(self, tree):
        mounts = USUAL + "32 23 0:29 /kube /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n"
        files = v2("/kube/pod/box", mounts, top="300000 100000", pod="100000 100000")
        assert _core.cpu_limits(tree(files))["quota"] == 3
        files["/sys/fs/cgroup/pod/box/cpu.max"] = "200000 100000"
        assert _core.cpu_limits(tree(files))["quota"] == 2

    @pytest.mark.parametrize("group", ["/", "/elsewhere", "/../other", "/kube-other/pod"])
    def test_group_that_no_mount_shows(self, tree, group):
        mounts = USUAL + "32 23 0:29 /kube /sys/fs/cgroup/x ro - cgroup2 cgroup2 rw\n"
        files = v2(group, mounts, other="100000 100000")
        files["/sys/fs/cgroup/x/cpu.max"] = "200000 100000"
        assert _core.cpu_limits(tree(files))["quota"] == 2

    def test_group_outside_the_namespace_stays_below_the_mount(self, tree):
        files = v2("/../sibling", own="100000 100000", top="200000 100000")
        files["/sys/fs/sibling/cpu.max"] = "100000 100000"
        assert _core.cpu_limits(tree(files))["quota"] == 2

    def test_second_mount_that_shows_another_group(self, tree):
        mounts = V2 + "50 23 0:29 /other /mnt rw - cgroup2 cgroup2 rw\n"
        files = v2("/kube/pod/box", mounts, own="300000 100000")
        files["/mnt/cpu.max"] = "100000 100000"
        assert _core.cpu_limits(tree(files))["quota"] == 3

    def test_blank_in_a_path(self, tree):
        mounts = USUAL + "32 23 0:29 / /sys/my\\040groups rw - cgroup2 cgroup2 rw\n"
        files = {**v2("/a box", mounts), "/sys/my groups/a box/cpu.max": "200000 100000"}
        assert _core.cpu_limits(tree(files))["quota"] == 2

    @pytest.mark.parametrize("at", ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"])
    def test_without_a_table_of_mounts(self, tree, at):
        files = v1("/docker/box", at=at, own=(200000, 100000))
        del files["/proc/self/mountinfo"]
        assert _core.cpu_limits(tree(files))["quota"] == 2

    def test_without_any_table(self, tree):
        assert _core.cpu_limits(tree({"/sys/fs/cgroup/cpu.max": "200000 100000"}))["quota"] == 2

    @pytest.mark.parametrize(
        "text", ["", "max", "200000", "200000 0", "0 100000", "-5 100000", "x 100000", "2e5 100000", "200000 100000x"]
    )
    def test_malformed_limit_is_none(self, tree, text):
        assert _core.cpu_limits(tree(v2("/kube/pod/box", own=text)))["quota"] is None
        files = v1("/docker/box")
        for name, part in zip(("quota", "period"), (*text.split(), "", "")[:2], strict=True):
            files[f"/sys/fs/cgroup/cpu,cpuacct/docker/box/cpu.cfs_{name}_us"] = part
        assert _core.cpu_limits(tree(files))["quota"] is None

    @pytest.mark.parametrize("name", ["/proc/self/cgroup", "/proc/self/mountinfo"])
    @pytest.mark.parametrize("text", ["", "\n\n", "::", "0:", "1 2 3 - \n - - -\n", "\0\xff" * 5000, "0::kube"])
    def test_malformed_table(self, tree, name, text):
        files = {**v2("/kube/pod/box", own="200000 100000", top="300000 100000"), name: text}
        assert _core.cpu_limits(tree(files))["quota"] in (2, 3)

    def test_no_files_at_all(self, tmp_path):
        assert _core.cpu_limits(str(tmp_path), [0, 1, 5]) == {"affinity": 3, "cores": 3, "quota": None}


class TestCores:
    @pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
    @pytest.mark.parametrize(
        ("siblings", "cpus", "cores"),
        [
            (["0", "1", "2", "3"], [0, 1, 2, 3], 4),
            (["0,2", "1,3", "0,2", "1,3"], [0, 1, 2, 3], 2),
            (["0-1", "0-1", "2-3", "2-3"], [0, 1, 2, 3], 2),
            (["0-1", "0-1", "2-3", "2-3"], [1, 2, 3], 2),
            (["0-1", "0-1", "2-3", "2-3"], [1, 3], 2),
            (["0-1", "0-1", "2-3", "2-3"], [2, 3], 1),
            (["0-3", "0-3", "0-3", "0-3"], [0, 1, 2, 3], 1),
            (["0-1", "0-1", "", "x"], [0, 1, 2, 3], 3),  # what cannot be read is a core
            (["0-1", "0-1", "3", "2-1"], [0, 1, 2, 3], 3),
            (["0-1", "0-1", "0-1,", "3-"], [0, 1, 3], 2),
        ],
    )
    def test_siblings_count_once(self, tree, name, siblings, cpus, cores):
        files = {f"/sys/devices/system/cpu/cpu{k}/topology/{name}": s + "\n" for k, s in enumerate(siblings)}
        assert _core.cpu_limits(tree(files), cpus)["cores"] == cores

    def test_of_this_machine(self):
        limits = _core.cpu_limits()
        assert 1 <= limits["cores"] <= limits["affinity"]
        if hasattr(os, "sched_getaffinity"):
            assert limits["affinity"] == len(os.sched_getaffinity(0))


DEFAULT = dict.fromkeys(("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "OMP_THREAD_LIMIT"))
CONFIG = "from pybackprop import _core; c = _core.thread_config(); print(c['threads'], c['reason'])"


@functools.cache
def usual_choice() -> tuple[str, str]:
    return tuple(printed(CONFIG, **DEFAULT).split(" ", 1))


def test_default_is_the_least_of_what_is_granted():
    n, reason = usual_choice()
    limits = _core.cpu_limits()
    assert int(n) == min(limits["cores"], limits["quota"] or limits["cores"])
    assert reason in ("CPU affinity", "physical cores", "CPU quota")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
@pytest.mark.skipif(_core.cpu_limits()["affinity"] < 2, reason="one CPU")
def test_affinity_is_asked_at_once_and_anew():
    code = """
import os, threading
from pybackprop import _core
mask = os.sched_getaffinity(0)
seen = [_core.get_num_threads()]
os.sched_setaffinity(0, {max(mask)})
seen.append(_core.get_num_threads())
config = _core.thread_config()
os.sched_setaffinity(0, mask)
seen.append(_core.get_num_threads())
def pinned():
    os.sched_setaffinity(0, {max(mask)})  # of this thread
    seen.append(_core.get_num_threads())
thread = threading.Thread(target=pinned)
thread.start(); thread.join()
seen.append(_core.get_num_threads())
print(seen, config["affinity"], config["reason"])
"""
    n = usual_choice()[0]
    assert printed(code, **DEFAULT) == f"[{n}, 1, {n}, 1, {n}] 1 CPU affinity"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
@pytest.mark.skipif(_core.cpu_limits()["cores"] < 2 or _core.cpu_limits()["quota"] == 1, reason="one CPU")
def test_a_run_uses_what_is_granted_now():
    code = """
import os, threading, time
import numpy as np
from pybackprop import _core
graph = _core.Graph()
a, b = graph.input((512, 512)), graph.input((512, 512))
program = _core.Program(graph, [graph.node("matmul", [a, b])[0]])
inputs = (np.ones((512, 512), "float32"),) * 2
def used(seconds=1.1):  # longer than an answer is kept
    time.sleep(seconds)
    program.run(inputs)
    return program.threads_used
mask = os.sched_getaffinity(0)
seen = [used(0)]
def pinned():
    os.sched_setaffinity(0, {max(mask)})  # of this thread
    seen.append(used(0))
thread = threading.Thread(target=pinned)
thread.start(); thread.join()
seen.append(used(0))
os.sched_setaffinity(0, {max(mask)})
seen.append(used())
os.sched_setaffinity(0, mask)
seen.append(used())
print(*seen)
"""
    n = usual_choice()[0]
    assert printed(code, **DEFAULT) == f"{n} 1 {n} 1 {n}"


@pytest.mark.parametrize("variables", [{"OMP_PROC_BIND": "true"}, {"OMP_PLACES": "cores"}, {"OMP_PLACES": "threads"}])
def test_openmp_binding_the_first_thread_is_no_limit(variables):
    assert printed(CONFIG, **{**DEFAULT, **variables}).split(" ", 1)[0] == usual_choice()[0]


def chosen_for(*values: str) -> list[str]:
    """What is chosen as the OpenMP variable changes in a process that began without one."""
    code = f"import os\nfor value in {values}: os.environ['OMP_NUM_THREADS'] = value; {CONFIG}"
    return printed(code, **DEFAULT).splitlines()


def test_openmp_variable():
    assert printed(CONFIG, **{**DEFAULT, "OMP_NUM_THREADS": "4,2"}) == "4 OMP_NUM_THREADS"
    wanted = {"5": 5, "4,2": 4, " 6 , 3": 6, "1": 1, "77": 77}
    assert chosen_for(*wanted) == [f"{n} OMP_NUM_THREADS" for n in wanted.values()]


def test_what_openmp_ignores_is_ignored():
    usual = " ".join(usual_choice())
    assert printed(CONFIG, **{**DEFAULT, "OMP_NUM_THREADS": "3x"}) == usual
    assert set(chosen_for("", "0", "-3", "many", "3x", "2.5", ",4", "99999999999999999999")) == {usual}


def test_openmp_variable_raised_later_is_no_limit():
    code = f"import os; from pybackprop import _core; os.environ['OMP_NUM_THREADS'] = '7'; {CONFIG}"
    assert printed(code, **{**DEFAULT, "OMP_NUM_THREADS": "3"}) == "7 OMP_NUM_THREADS"


def test_openmp_thread_limit():
    want = "2 OMP_THREAD_LIMIT"
    assert printed(CONFIG, **{**DEFAULT, "OMP_THREAD_LIMIT": "2", "OMP_NUM_THREADS": "5"}) == want


def test_order_of_thread_settings():
    """A num_threads block, then set_num_threads, then the OpenMP variable."""
    code = """
import pybackprop as pb
from pybackprop import _core
seen = []
def see():
    c = _core.thread_config()
    assert c["threads"] == pb.get_num_threads()
    seen.append((c["threads"], c["reason"]))
see()
pb.set_num_threads(3)
see()
with pb.num_threads(2):
    see()
    with pb.num_threads(9):
        see()
    see()
see()
pb.set_num_threads(None)
see()
print(*seen)
"""
    variable, called, block = (5, "OMP_NUM_THREADS"), (3, "set_num_threads"), (2, "num_threads block")
    want = [variable, called, block, (9, "num_threads block"), block, called, variable]
    assert printed(code, OMP_NUM_THREADS="5") == " ".join(map(str, want))


def test_a_block_is_of_its_thread():
    code = """
import threading, pybackprop as pb
seen = []
with pb.num_threads(2):
    thread = threading.Thread(target=lambda: seen.append(pb.get_num_threads()))
    thread.start(); thread.join()
print(seen)
"""
    assert printed(code, OMP_NUM_THREADS="5") == "[5]"


@pytest.mark.parametrize("call", [pb.set_num_threads, lambda n: pb.num_threads(n).__enter__()])
def test_thread_count_is_checked(call):
    for bad in (0, -1, 2**31, 2**80):
        with pytest.raises(ValueError, match=f"threads must be at least 1 and below 2\\*\\*31, got {bad}"):
            call(bad)
    for bad in (1.0, True, "2"):
        with pytest.raises(TypeError, match="number of threads is an integer, not"):
            call(bad)


class TestThreadpoolctl:
    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")

    @pytest.mark.parametrize(
        ("asked", "n"),
        [("pass", 5), ("pb.set_num_threads(4)", 4), ("block = pb.num_threads(6); block.__enter__()", 6)],
    )
    def test_limit_caps_whoever_asked(self, asked, n):
        code = f"""
import threadpoolctl, pybackprop as pb
from pybackprop import _core
{asked}
for limit in 1, 2, 3:
    with threadpoolctl.threadpool_limits(limit, user_api="openmp"):
        inside = _core.thread_config()
    print(inside["threads"], inside["reason"], pb.get_num_threads())
"""
        want = [f"{limit} OpenMP limit (threadpoolctl) {n}" for limit in (1, 2, 3)]
        assert printed(code, **{**DEFAULT, "OMP_NUM_THREADS": "5"}).splitlines() == want

    def test_limit_above_what_openmp_started_with(self):
        code = """
import os, threadpoolctl, pybackprop as pb
pb.set_num_threads(8)
with threadpoolctl.threadpool_limits(4, user_api="openmp"):
    print(pb.get_num_threads())
"""
        assert printed(code, **{**DEFAULT, "OMP_NUM_THREADS": "2"}) == "4"

    def test_limit_does_not_raise(self):
        code = """
import threadpoolctl, pybackprop as pb
pb.set_num_threads(2)
with threadpoolctl.threadpool_limits(4, user_api="openmp"):
    print(pb.get_num_threads())
"""
        assert printed(code, **{**DEFAULT, "OMP_NUM_THREADS": "5"}) == "2"


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="threads are counted in /proc")
def test_one_row_is_predicted_without_starting_threads():
    code = """
import os
import numpy as np
import pybackprop as pb
from pybackprop import nn, optim
model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
trainer = pb.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.SGD(lr=0.1))
X = np.ones((2000, 784), "float32")
count = lambda: len(os.listdir("/proc/self/task"))
before = count()
for k in range(20):
    trainer.predict(X[k : k + 1])
    model(X[k : k + 1])
one = count() - before
trainer.predict(X)
print(one, count() - before)
"""
    assert printed(code, **{**DEFAULT, "OMP_NUM_THREADS": "3"}) == "0 2"


def test_the_decision_is_shown():
    shown = dict(
        line.split(maxsplit=1)
        for line in printed("import pybackprop as pb; pb.set_num_threads(3); pb.show_config()").splitlines()
        if line.split()[0] in ("threads", "CPUs")
    )
    limits = _core.cpu_limits()
    assert shown["threads"] == "3 (set_num_threads)"
    assert shown["CPUs"] == (
        f"{limits['affinity']} (physical cores: {limits['cores']}, quota: {limits['quota'] or 'none'})"
    )
