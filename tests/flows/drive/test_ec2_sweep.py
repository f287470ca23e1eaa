"""`shunt run` on EC2 as a process that is really killed: at every call of it in turn."""

import signal
from pathlib import Path

import pytest

from shunt.testing.ec2.faults import ControllerKilled, Phase
from tests.flows.ec2_site import ec2_site

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

MOST_CALLS = 200


@pytest.mark.parametrize("phase", ["before", "after"])
def test_the_controller_is_killed_at_every_call_in_turn(
    tmp_path: Path, undisturbed: dict[str, str], phase: Phase
) -> None:
    number = 0
    for number in range(MOST_CALLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        if not killed_and_started_again(folder, undisturbed, number, phase):
            break
    assert 8 < number < MOST_CALLS


def killed_and_started_again(
    folder: Path, undisturbed: dict[str, str], number: int, phase: Phase
) -> bool:
    """Whether there was such a call. Nothing is launched twice, lost or left either way."""
    with ec2_site(folder) as at:
        controller = at.start("run", "job.yaml", "--no-prefect")

        def fault(call: int, _operation: str, at_phase: Phase) -> None:
            if call == number and at_phase == phase:
                controller.kill()
                raise ControllerKilled

        at.cloud.double.faults.append(fault)
        _, stderr = controller.communicate(timeout=240)
        killed = controller.returncode == -signal.SIGKILL
        if killed:
            done = at.run()
            assert done.returncode == 0, (number, done.stderr)
        else:
            assert controller.returncode == 0, (number, stderr)
        assert at.desk.texts() == undisturbed, number
        assert len(at.cloud.double.instances) == 2, (number, at.cloud.double.calls)
        at.check_nothing_is_left()
    return killed
