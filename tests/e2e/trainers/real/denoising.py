"""The training loop of diffusers' unconditional example, with its scheduler and EMA; no word of the daemon."""

import hashlib
import json

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel

torch.manual_seed(0)
model = UNet2DModel(
    sample_size=8,
    layers_per_block=1,
    block_out_channels=(8, 16),
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    norm_num_groups=4,
    attention_head_dim=8,
)
ema = EMAModel(model.parameters(), decay=0.9, model_cls=UNet2DModel, model_config=model.config)
scheduler = DDPMScheduler(num_train_timesteps=100)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
warmup = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=1, num_training_steps=3)
compiled = torch.compile(model)
losses = []
for _ in range(3):
    clean, noise = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    steps = torch.randint(0, 100, (2,))
    loss = torch.nn.functional.mse_loss(compiled(scheduler.add_noise(clean, noise, steps), steps).sample, noise)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    warmup.step()
    optimizer.zero_grad()
    ema.step(model.parameters())
    losses.append(loss.item())
whole = hashlib.sha256()
for tensor in [*model.state_dict().values(), *ema.shadow_params]:
    whole.update(tensor.detach().numpy().tobytes())
print(json.dumps({"losses": losses, "checkpoint": whole.hexdigest()}))
