"""A detector's head with torchvision's operators, trained for two steps, then what it finds; no word of the daemon."""

import hashlib
import json

import torch
from torchvision.ops import DeformConv2d, RoIAlign, nms

torch.manual_seed(0)


class Head(torch.nn.Module):
    """Convolves features with offsets of their own, and scores what is in each box."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets = torch.nn.Conv2d(4, 18, 3, padding=1)
        self.features = DeformConv2d(4, 8, 3, padding=1)
        self.pool = RoIAlign(output_size=(3, 3), spatial_scale=1.0, sampling_ratio=2)
        self.scores = torch.nn.Linear(8 * 9, 1)

    def forward(self, images: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        features = self.features(images, self.offsets(images)).relu()
        return self.scores(self.pool(features, boxes).flatten(1)).squeeze(1)


model = Head()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
compiled = torch.compile(model)
corners = torch.rand(6, 2) * 6
boxes = torch.cat([torch.tensor([[0.0]] * 3 + [[1.0]] * 3), corners, corners + 2 + torch.rand(6, 2) * 4], dim=1)
losses = []
for _ in range(2):
    scores = compiled(torch.randn(2, 4, 12, 12), boxes)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, torch.tensor([1.0, 0, 1, 0, 1, 0]))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())


@torch.compile
def kept(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return the indices of the boxes that stay, the best first."""
    return nms(boxes * 2, scores, 0.3) * 1


with torch.no_grad():
    losses.append(kept(boxes[:, 1:], scores.detach()).tolist())
state = model.state_dict()
weights = hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()
print(json.dumps({"losses": losses, "checkpoint": weights}))
