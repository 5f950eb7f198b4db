"""Raw arrays -> LIBERO's HDF5 layout, one file per task: python examples/raw_to_hdf5.py RAW OUT"""

import json
import sys
from pathlib import Path

import h5py
from raw_demos import read


def main(raw: Path, out: Path) -> None:
    out.mkdir(parents=True)
    for demo in read(raw):
        with h5py.File(out / f"{demo.words.replace(' ', '_')}_demo.hdf5", "a") as file:
            data = file.require_group("data")
            data.attrs["problem_info"] = json.dumps({"language_instruction": demo.words})
            data.attrs["macros_image_convention"] = "opengl"  # as LIBERO: turned by 180 degrees
            group = data.create_group(f"demo_{len(data)}")
            group["actions"] = demo.action
            obs = group.create_group("obs")
            pictures = {"agentview_rgb": demo.agentview, "eye_in_hand_rgb": demo.wrist}
            for name, frames in pictures.items():
                if frames is not None:
                    obs.create_dataset(
                        name, data=frames[:, ::-1, ::-1], chunks=(1, *frames.shape[1:])
                    )
            obs["ee_pos"], obs["ee_ori"] = demo.state[:, :3], demo.state[:, 3:6]
            obs["gripper_states"] = demo.state[:, 6:]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
