"""torchrun's elastic restart: two agents of two ranks each, one of which is lost, have the result of one process."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pretrain_case import final_model, free_port, tiny_config

from crisscross_zoo.checkpoints.training import list_checkpoints
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.pretrain.loop import pretrain
from crisscross_zoo.pretrain.metrics import read_log

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.name != "posix", reason="torchrun's agents are killed by group"),
]

TOLERANCE = 1e-6  # of two processes against one, in float64
STEPS = 8
OPTIONS = {
    "optim.precision": "fp64", "optim.larc": True, "optim.batch_size": 8, "optim.epochs": STEPS // 2,
    "data.epoch_size": 16, "run.save_steps": 1, "run.log_steps": 1,
}  # fmt: skip

RENDEZVOUS = "last_call_timeout=2,join_timeout=120,keep_alive_interval=1,keep_alive_max_attempt=5"
"""A lost agent is missed after 5 s instead of 15."""

SCRIPT = """
import os, pickle, sys, time, torch
from pathlib import Path
from pretrain_case import tiny_config
from crisscross_zoo.pretrain.loop import pretrain
torch.set_num_threads(1)
clips, overrides = pickle.load(open(sys.argv[1], "rb"))
folder, again = Path(sys.argv[2]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
(folder / f"{os.environ['GROUP_RANK']}.{os.environ['LOCAL_RANK']}.{again}.{os.getpid()}").touch()
def on_progress(step, total, row):
    while step == 3 and not (folder / "go").exists():
        time.sleep(0.05)  # until one is killed
pretrain(tiny_config(**overrides), clips, sys.argv[3], on_progress=on_progress)
"""


def agent(folder: Path, port: int, *, least: int, host: bool) -> subprocess.Popen[bytes]:
    """Start an agent of two ranks, in a process group of its own; its output goes to a file."""
    command = [
        sys.executable, "-m", "torch.distributed.run", f"--nnodes={least}:2", "--nproc-per-node=2", "--max-restarts=3",
        "--rdzv-backend=c10d", "--rdzv-id=1", f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1",
        f"--rdzv-conf=is_host={int(host)},{RENDEZVOUS}", "--monitor-interval=0.3",
        str(folder / "script.py"), str(folder / "arguments"), str(folder / "ranks"), str(folder / "run"),
    ]  # fmt: skip
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # else restarted ranks wait for ever
    }  # fmt: skip
    with (folder / f"agent.{int(host)}.txt").open("wb") as printed:
        return subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=printed, stderr=subprocess.STDOUT
        )


def processes_of(folder: Path) -> list[list[str]]:
    return [path.name.split(".") for path in (folder / "ranks").iterdir() if path.name != "go"]


@pytest.fixture(scope="module")
def undisturbed(clips: list[Media], tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The parameters at the end of the same run in one process."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("undisturbed")
    pretrain(tiny_config(**OPTIONS), clips, run)
    return final_model(run)


@pytest.mark.parametrize("lost", ["process", "agent"])
def test_a_lost_process_is_restarted_from_the_last_checkpoint(
    clips: list[Media], undisturbed: dict[str, torch.Tensor], tmp_path: Path, lost: str
) -> None:
    (tmp_path / "ranks").mkdir()
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "arguments").write_bytes(pickle.dumps((clips, OPTIONS)))
    port = free_port()
    agents = [
        agent(tmp_path, port, least=1 if lost == "agent" else 2, host=number == 0) for number in range(2)
    ]
    try:
        deadline = time.monotonic() + 200
        while not list_checkpoints(tmp_path / "run") or len(processes_of(tmp_path)) < 4:
            assert time.monotonic() < deadline, "it does not start"
            assert [a.poll() for a in agents] == [None, None]
            time.sleep(0.2)
        while list_checkpoints(tmp_path / "run")[-1].name < "step_000000002.pt":
            time.sleep(0.2)
        if lost == "agent":
            children = subprocess.run(
                ["pgrep", "-P", str(agents[1].pid)], capture_output=True, text=True, check=True
            ).stdout.split()
            for pid in (agents[1].pid, *map(int, children)):
                os.kill(pid, signal.SIGKILL)
        else:
            (middle,) = [names for names in processes_of(tmp_path) if names[:3] == ["0", "1", "0"]]
            os.kill(int(middle[3]), signal.SIGKILL)
        (tmp_path / "ranks" / "go").touch()
        ended = agents[:1] if lost == "agent" else agents
        codes = [a.wait(240) for a in ended]
        assert codes == [0] * len(ended), "\n".join(path.read_text() for path in tmp_path.glob("agent.*.txt"))
    finally:
        for one in agents:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()
    assert len(processes_of(tmp_path)) == (6 if lost == "agent" else 8), "each was started twice"
    elastic = final_model(tmp_path / "run")
    largest = max(
        float((elastic[name].double() - value.double()).abs().max()) for name, value in undisturbed.items()
    )
    print(f"{lost}: largest difference {largest:.1e}")
    for name, value in undisturbed.items():
        torch.testing.assert_close(elastic[name], value, rtol=0, atol=TOLERANCE)
    assert [row["step"] for row in read_log(tmp_path / "run")] == list(range(1, STEPS + 1))
