"""Lightning's own Trainer with a compiled module; no word of the daemon."""

import hashlib
import json
import pathlib
import tempfile

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset


class Lit(lightning.LightningModule):
    """A regression, its network compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(7, 33), torch.nn.GELU(), torch.nn.Linear(33, 1))
        self.compiled = torch.compile(self.net)
        self.losses: list[float] = []

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.compiled(x), y)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.net.parameters(), lr=1e-2)


lightning.seed_everything(0, verbose=False)
x = torch.randn(24, 7)
loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)
lit = Lit()
with tempfile.TemporaryDirectory() as folder:
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(lit, loader)
    path = pathlib.Path(folder, "last.ckpt")
    trainer.save_checkpoint(path)
    state = torch.load(path, weights_only=False)["state_dict"]
weights = hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()
print(json.dumps({"losses": lit.losses, "checkpoint": weights}))
