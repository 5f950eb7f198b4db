"""Asset packs: the meshes or primitives, textures and MJCF files that LIBERO's scenes refer to."""
