"""The GL probe: cached, and helpful when nothing renders."""

import sys
from pathlib import Path

import pytest

from invact_vla.core.errors import UserError
from libero_eval.env import gl


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which nothing is chosen; everything is restored afterwards."""
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM", gl.DEVICE_VARIABLE):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    for name in ("egl", "osmesa", "glfw"):
        monkeypatch.delitem(sys.modules, f"mujoco.{name}", raising=False)
    return monkeypatch


def test_osmesa_is_tried_after_egl_and_the_answer_is_kept(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried: list[str] = []

    def fake(backend: str) -> tuple[int | None, str]:
        tried.append(backend)
        return (None, "no display") if backend == "egl" else (0, "")

    environment.setattr(gl, "_try", fake)
    assert gl.find(tmp_path).backend == "osmesa"
    assert gl.find(tmp_path).backend == "osmesa"
    assert tried == ["egl", "osmesa"]
    environment.setenv("CUDA_VISIBLE_DEVICES", "7")
    gl.find(tmp_path)
    assert tried == ["egl", "osmesa"] * 2, "other devices are probed anew"


def test_nothing_renders(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setattr(gl, "_try", lambda backend: (None, "library not found"))
    with pytest.raises(UserError, match=r"libegl1 libgl1-mesa-dri.*libosmesa6"):
        gl.find(tmp_path)
    assert not list(tmp_path.iterdir()), "a failure is not kept: packages may be installed"


@pytest.mark.parametrize("name", gl.VARIABLES)
def test_the_backend_that_the_user_names_is_taken_or_refused(
    environment: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    tried: list[str] = []
    environment.setattr(gl, "_try", lambda backend: tried.append(backend) or (0, ""))
    for value in ("osmesa", "OSMesa", "egl"):
        environment.setenv(name, value)
        assert gl.find(tmp_path).backend == value.lower() == tried[-1]
    environment.setattr(gl, "_try", lambda backend: (None, "no library"))
    environment.setenv("CUDA_VISIBLE_DEVICES", "another key")
    environment.setenv(name, "osmesa")
    with pytest.raises(
        UserError, match=rf"{name}=osmesa is set.*install libosmesa6, or unset {name}"
    ):
        gl.find(tmp_path)
    for value in ("glfw", "wayland", "off"):
        environment.setenv(name, value)
        with pytest.raises(UserError, match=rf"{name}={value} is set.*egl or osmesa: unset {name}"):
            gl.find(tmp_path)


def test_contradictions_are_refused(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("MUJOCO_GL", "egl")
    assert not gl.is_set()
    environment.setenv("PYOPENGL_PLATFORM", "osmesa")
    with pytest.raises(UserError, match="MUJOCO_GL=egl and PYOPENGL_PLATFORM=osmesa contradict"):
        gl.find(tmp_path)
    environment.setenv("PYOPENGL_PLATFORM", "egl")
    assert gl.is_set()


@pytest.mark.parametrize("device", ["3", "abc", "-1"])
def test_a_device_that_is_not_there_is_named(
    environment: pytest.MonkeyPatch, tmp_path: Path, device: str
) -> None:
    if gl._try("egl")[0] is None:
        pytest.skip("no EGL here")
    environment.setenv(gl.DEVICE_VARIABLE, device)
    with pytest.raises(
        UserError, match=rf"{gl.DEVICE_VARIABLE}={device} names no EGL device.*set it to 0"
    ):
        gl.find(tmp_path)
    assert not list(tmp_path.iterdir())


def test_spaces_around_a_device_mean_nothing(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if gl._try("egl")[0] != 0:
        pytest.skip("no EGL here")
    environment.setenv(gl.DEVICE_VARIABLE, " 0 ")
    assert gl.find(tmp_path) == gl.Answer(backend="egl", device=0)


def test_probe_sets_the_environment(environment: pytest.MonkeyPatch) -> None:
    import os

    environment.setattr(gl, "find", lambda: gl.Answer(backend="egl", device=1))
    assert gl.probe() == "egl"
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == "egl"
    assert os.environ[gl.DEVICE_VARIABLE] == "1"


def test_unknown_backend_and_late_switch(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="known: egl, osmesa"):
        gl.use("glfw")
    environment.setitem(sys.modules, "mujoco.egl", sys)
    assert gl.probe() == "egl", "a backend that is loaded stays"
    with pytest.raises(UserError, match="already loaded"):
        gl.use("osmesa")


def test_broken_backend_gives_its_last_words(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "probe.py"
    script.write_text("import sys; sys.exit('first\\nImportError: no libEGL')")
    environment.setattr(gl, "PROBE", script)
    assert gl._try("egl") == (None, "ImportError: no libEGL")


def test_this_machine_renders_or_says_what_to_install(tmp_path: Path) -> None:
    try:
        answer = gl.find(tmp_path)
    except UserError as error:
        assert "apt-get install" in str(error)
        pytest.skip("no GL here")
    assert answer.backend in gl.BACKENDS


def test_only_gl_finalisers_are_silenced(environment: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    environment.setattr(sys, "unraisablehook", seen.append)
    gl.quiet_gl()
    gl.quiet_gl()

    class EGLError(Exception):
        __module__ = "OpenGL.raw.EGL._errors"

    class Raised:
        """Stands for what Python hands to the hook."""

        def __init__(self, kind: type, finaliser: object) -> None:
            self.exc_type, self.object = kind, finaliser

    class Context:
        def __del__(self) -> None: ...
        def other(self) -> None: ...

    sys.unraisablehook(Raised(EGLError, Context.__del__))  # type: ignore[arg-type]
    assert not seen
    sys.unraisablehook(Raised(ValueError, Context.__del__))  # type: ignore[arg-type]
    sys.unraisablehook(Raised(EGLError, Context.other))  # type: ignore[arg-type]
    assert len(seen) == 2
