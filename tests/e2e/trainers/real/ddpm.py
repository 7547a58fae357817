"""The Trainer of denoising-diffusion-pytorch, with its data, EMA and samples; no word of the daemon."""

import hashlib
import json
import tempfile
from pathlib import Path

import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet
from PIL import Image

torch.manual_seed(0)
with tempfile.TemporaryDirectory() as text:
    folder = Path(text)
    (folder / "pictures").mkdir()
    for number in range(100):
        Image.new("RGB", (8, 8), (number, 2 * number, 255 - number)).save(folder / "pictures" / f"{number:03}.png")
    model = Unet(dim=8, dim_mults=(1, 2), attn_dim_head=8, attn_heads=2, full_attn=(False, True))
    model.compile()
    trainer = Trainer(
        GaussianDiffusion(model, image_size=8, timesteps=4),
        str(folder / "pictures"),
        train_batch_size=8,
        gradient_accumulate_every=2,
        train_num_steps=2,
        save_and_sample_every=2,
        num_samples=1,
        ema_update_every=1,
        results_folder=str(folder / "results"),
        calculate_fid=False,
    )
    trainer.train()
    saved = torch.load(folder / "results" / "model-1.pt", weights_only=False)
    sample = hashlib.sha256(Image.open(folder / "results" / "sample-1.png").tobytes()).hexdigest()

whole = hashlib.sha256()
for tensor in [*saved["model"].values(), *saved["ema"].values()]:
    whole.update(tensor.detach().numpy().tobytes())
print(json.dumps({"steps": saved["step"], "checkpoint": whole.hexdigest(), "sample": sample}))
