"""NTU RGB+D 60 and 120 on disk: one video per (setup, camera, performer, repetition, action).

    <root>/**/SsssCcccPpppRrrrAaaa_rgb.avi        (also without _rgb)

Three cameras see each performance, so a moment has up to three videos; there is no ego view. File
names, classes and splits: github.com/shahroudy/NTURGB-D and the papers (arxiv.org/abs/1604.02808,
arxiv.org/abs/1905.04757).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from invact_vla.core.errors import UserError
from invact_vla.core.limits import read_text
from invact_vla.data.video.frames import list_files
from latent_actions.video.records import ClipRecord, Split
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.source import SourceConfig, check_folder

FILE = re.compile(r"^S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})(_rgb)?\.(avi|mp4)$", re.I)
SAMPLE = re.compile(r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}", re.I)
LAYOUT = "videos named SsssCcccPpppRrrrAaaa_rgb.avi"
TRAIN_SUBJECTS_60 = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
TRAIN_SUBJECTS_120 = (
    *TRAIN_SUBJECTS_60, 45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82,
    83, 84, 85, 86, 89, 91, 92, 93, 94, 95, 97, 98, 100, 103,
)  # fmt: skip
ONE_SHOT_CLASSES = tuple(range(1, 121, 6))  # the 20 novel ones of that protocol: A1, A7 ...
# names of the 120 classes, A1 first, shortened and in one grammatical form, after the list of
# github.com/shahroudy/NTURGB-D; A50-A60 and A106-A120 are actions of two people
ACTIONS: tuple[str, ...] = tuple(
    """
drink water, eat meal, brush teeth, brush hair, drop, pick up, throw, sit down, stand up, clap,
read, write, tear up paper, put on jacket, take off jacket, put on a shoe, take off a shoe,
put on glasses, take off glasses, put on a hat, take off a hat, cheer up, wave hand, kick something,
reach into pocket, hop, jump up, phone call, play with phone, type on a keyboard,
point to something, take a selfie, check time, rub two hands, nod head, shake head, wipe face,
salute, put palms together, cross hands in front, sneeze, stagger, fall down, touch head,
touch chest, touch back, touch neck, vomit, fan self, punch other person, kick other person,
push other person, pat back of other person, point finger at other person, hug other person,
give something to other person, touch pocket of other person, shake hands, walk towards each other,
walk apart from each other, put on headphone, take off headphone, shoot at the basket, bounce ball,
swing tennis bat, juggle table tennis balls, hush, flick hair, thumb up, thumb down, make ok sign,
make victory sign, staple book, count money, cut nails, cut paper, snap fingers, open bottle, sniff,
squat down, toss a coin, fold paper, ball up paper, play magic cube, apply cream on face,
apply cream on hand back, put on bag, take off bag, put something into a bag,
take something out of a bag, open a box, move heavy objects, shake fist, throw up cap, put hands up,
cross variants, circle variants, swing variants, run on the spot, kick backward, cross toe touch,
kick sideways, yawn, stretch oneself, blow nose, hit other person with something,
wield knife towards other person, knock over other person, grab stuff of other person,
shoot at other person with a gun, step on foot, high five, cheers and drink,
carry something with other person, take a photo of other person, follow other person,
whisper in ear of other person, exchange things with other person, support somebody with one hand,
play rock paper scissors
""".replace("\n", " ")
    .strip()
    .split(", ")
)


@SourceConfig.register_subclass("ntu")
@dataclass(frozen=True, kw_only=True)
class NtuSource(SourceConfig):
    """NTU RGB+D clips; the verb is the name of the action class, the scene the setup. Tags: setup,
    camera, subject, repetition, action (numbers of the file name), one_shot (1 for novel classes).

    The split "train" is the protocol's training part, "val" its test part."""

    classes: Literal[60, 120] = 60  # NTU RGB+D 60 (setups 1-17) or 120 (setups 1-32)
    protocol: Literal["cross_subject", "cross_view", "cross_setup"] = "cross_subject"  # the split
    missing_skeletons: Path | None = None  # list of samples to leave out, as the authors publish it

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes not in (60, 120):
            raise ValueError(f"classes must be 60 or 120, got {self.classes}")

    def index(self, split: Split) -> tuple[list[ClipRecord], SkipReport]:
        dropped, clips = SkipReport(), []
        ignored, known = self._ignored(), set()
        for path, numbers in self._files(dropped):
            if tuple(numbers) in known:
                dropped.add("listed twice", str(path))
            elif numbers[4] > self.classes or numbers[4] == 0:
                dropped.add(f"of classes beyond {self.classes}", path.name)
            elif path.name[:20].upper() in ignored:
                dropped.add("with missing skeletons", path.name)
            elif self._is_train(numbers) == (split == "train"):
                known.add(tuple(numbers))
                clips.append(_clip(path, numbers, split))
        return self.whole_videos(clips, dropped), dropped

    def _files(self, dropped: SkipReport) -> list[tuple[Path, list[int]]]:
        """Videos with the five numbers of their names, by name."""
        check_folder(self.root, LAYOUT)
        found = []
        for path in sorted(list_files(self.root), key=lambda path: (path.name, path)):
            match = FILE.match(path.name)
            if match:
                found.append((path, [int(group) for group in match.groups()[:5]]))
            elif SAMPLE.match(path.name):
                dropped.add("of another modality than RGB", path.name)
            elif path.suffix.lower() in (".avi", ".mp4"):
                dropped.seen += 1
                dropped.add("with another file name", path.name, damage=True)
        if not found:
            raise UserError(f"no videos below {self.root}: expected {LAYOUT}")
        return found

    def _is_train(self, numbers: list[int]) -> bool:
        setup, camera, subject = numbers[:3]
        subjects = TRAIN_SUBJECTS_60 if self.classes == 60 else TRAIN_SUBJECTS_120
        return {
            "cross_subject": subject in subjects,
            "cross_view": camera != 1,
            "cross_setup": setup % 2 == 0,
        }[self.protocol]

    def _ignored(self) -> set[str]:
        """Names of the samples in the list of missing skeletons; its header lines name none."""
        if self.missing_skeletons is None:
            return set()
        if not self.missing_skeletons.is_file():
            raise UserError(
                f"no file {self.missing_skeletons}: expected the list of samples with missing "
                "skeletons of github.com/shahroudy/NTURGB-D, or leave missing_skeletons out"
            )
        return set(SAMPLE.findall(read_text(self.missing_skeletons).upper()))


def _clip(path: Path, numbers: list[int], split: Split) -> ClipRecord:
    sample, action = path.name[:20].upper(), numbers[4]
    names = ("setup", "camera", "subject", "repetition", "action")
    return ClipRecord(
        clip_id=f"ntu/{sample}",
        video=path,
        split=split,
        text=ACTIONS[action - 1],
        verb=ACTIONS[action - 1],
        moment_id=f"ntu/{sample[:4]}{sample[8:]}",  # the same performance under other cameras
        take=f"ntu/{sample[:4]}{sample[8:12]}",
        scene=sample[:4],
        camera=sample[4:8],
        tags={
            **dict(zip(names, numbers, strict=True)),
            "one_shot": int(action in ONE_SHOT_CLASSES),
        },
    )
