"""Frames of a scene: MuJoCo's renderer, and on software GL a quicker one with the same pixels.

camera.py         one GL context a process, frames of a model's cameras
soft_renderer.py  what MuJoCo draws, without the triangles that touch no pixel
triangles.py      which triangles those are; mesh_buffer.py, surface.py, mirror.py, gl_calls.py
"""
