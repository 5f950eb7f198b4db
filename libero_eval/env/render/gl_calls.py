"""The OpenGL functions that `soft_renderer` calls, straight from the library.

PyOpenGL's wrappers cost more than the calls.
"""

import ctypes
import importlib
from typing import Any

_INT, _FLOAT, _POINTER = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "glBindBuffer": (_INT, _INT),
    "glBindTexture": (_INT, _INT),
    "glBlendFunc": (_INT, _INT),
    "glBufferData": (_INT, ctypes.c_ssize_t, _POINTER, _INT),
    "glCallList": (_INT,),
    "glClear": (_INT,),
    "glClipPlane": (_INT, _POINTER),
    "glColor4f": (_FLOAT, _FLOAT, _FLOAT, _FLOAT),
    "glColor4fv": (_POINTER,),
    "glColorMask": (_INT, _INT, _INT, _INT),
    "glCullFace": (_INT,),
    "glDeleteBuffers": (_INT, _POINTER),
    "glDepthMask": (_INT,),
    "glDisable": (_INT,),
    "glDisableClientState": (_INT,),
    "glDrawElements": (_INT, _INT, _INT, _POINTER),
    "glEnable": (_INT,),
    "glEnableClientState": (_INT,),
    "glFrontFace": (_INT,),
    "glGenBuffers": (_INT, _POINTER),
    "glGetFloatv": (_INT, _POINTER),
    "glGetMultisamplefv": (_INT, _INT, _POINTER),
    "glGetString": (_INT,),
    "glLightfv": (_INT, _INT, _POINTER),
    "glMaterialf": (_INT, _INT, _FLOAT),
    "glMaterialfv": (_INT, _INT, _POINTER),
    "glMultMatrixf": (_POINTER,),
    "glNormalPointer": (_INT, _INT, _POINTER),
    "glPopMatrix": (),
    "glPushMatrix": (),
    "glScalef": (_FLOAT, _FLOAT, _FLOAT),
    "glStencilFunc": (_INT, _INT, _INT),
    "glStencilOp": (_INT, _INT, _INT),
    "glTexCoordPointer": (_INT, _INT, _INT, _POINTER),
    "glTexGenfv": (_INT, _INT, _POINTER),
    "glTranslatef": (_FLOAT, _FLOAT, _FLOAT),
    "glVertexPointer": (_INT, _INT, _INT, _POINTER),
}


class Calls:
    """The functions as attributes, without the prefix `gl`: `calls.Enable(GL_BLEND)`."""

    def __init__(self) -> None:
        library = importlib.import_module("OpenGL.platform").PLATFORM.GL
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = ctypes.c_char_p if name == "glGetString" else None
            setattr(self, name.removeprefix("gl"), function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"gl{name} is not in the table of gl_calls")
