"""Raw arrays -> a LeRobot v3 data set with videos: python examples/raw_to_lerobot.py RAW OUT"""

import sys
from collections.abc import Iterator
from pathlib import Path

from raw_demos import read

from invact_vla.data.conventions import gripper_to_training
from invact_vla.data.dataset import RobotEpisode
from invact_vla.data.readers.lerobot_writer import write_lerobot

FPS = 20  # control steps per second


def episodes(raw: Path) -> Iterator[RobotEpisode]:
    for number, demo in enumerate(read(raw)):
        actions = demo.action.copy()
        actions[:, 6] = gripper_to_training(actions[:, 6])  # the writer turns it back
        yield RobotEpisode(
            name=f"episode_{number}",
            instruction=demo.words,
            agentview=demo.agentview,
            wrist=demo.wrist,
            state=demo.state,
            actions=actions,
        )


if __name__ == "__main__":
    write_lerobot(Path(sys.argv[2]), episodes(Path(sys.argv[1])), FPS)
