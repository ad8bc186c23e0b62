"""A model of characters that is trained for a number of steps, and evaluated at the top of the loop."""

from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
text = topics["assert"] + topics["lambda"] + topics["numbers"]
characters = sorted(set(text))
data = torch.tensor([characters.index(character) for character in text])
context, max_steps, eval_interval = 16, 60, 20

model = nn.Sequential(nn.Embedding(len(characters), 16), nn.Flatten(), nn.Linear(16 * context, len(characters)))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)


def get_batch(size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    starts = torch.randint(len(data) - context, (size,))
    return torch.stack([data[start : start + context] for start in starts]), data[starts + context]


@torch.no_grad()
def estimate_loss() -> float:
    return sum(F.cross_entropy(model(x), y).item() for x, y in (get_batch() for _ in range(5))) / 5


step = 0
while True:
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * min(1.0, (step + 1) / 10)
    if step % eval_interval == 0:
        val_loss = estimate_loss()
        print(f"step {step}: val_loss {val_loss:.4f}")
    inputs, targets = get_batch()
    loss = F.cross_entropy(model(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    if step > max_steps:
        break
print(sum(p.double().sum().item() for p in model.parameters()))
