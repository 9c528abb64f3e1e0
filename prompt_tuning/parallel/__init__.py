"""Many devices: the mesh, and which axis of each parameter is split over it."""
