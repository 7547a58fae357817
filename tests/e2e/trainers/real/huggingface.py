"""The Trainer of transformers with `torch_compile`, bf16 and accumulation; no word of the daemon."""

import hashlib
import json
import pathlib
import sys
import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

set_seed(0)
config = LlamaConfig(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
model = LlamaForCausalLM(config)
numbers = torch.Generator().manual_seed(1)
rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(3, 96, (16, 12), generator=numbers)]
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=3,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        torch_compile=True,
        bf16=True,
        use_cpu=True,
        save_steps=3,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        seed=0,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    weights = pathlib.Path(folder, "checkpoint-3", "model.safetensors").read_bytes()
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
sys.stdout.flush()
print(json.dumps({"losses": losses, "checkpoint": hashlib.sha256(weights).hexdigest()}))
