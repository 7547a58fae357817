"""A lab for training one diffusion model at several resolutions at once.

Rooms, in reading order: `data` and `buckets` (what is learned, in which shapes), `schedules` and `parametrization`
(the noise), `spans`, `attention`, `rope`, `feedforward`, `backbone` (the model), `objective`, `training`, `validation`,
`optimal` (learning and how far it can go), `sampling` and `images` (looking), `metrics` (measuring), `flops` and
`gradients` (what the benches ask). Nothing is imported here, so a trainer pays only for what it uses.
"""
