"""A policy that learns a game by REINFORCE, an episode a step, until it plays well."""

from itertools import count

import torch
from torch import nn

torch.manual_seed(0)
policy = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4))
optimizer = torch.optim.Adam(policy.parameters(), lr=0.03)
running_reward = 0.0


def play() -> tuple[list[torch.Tensor], list[float]]:
    """Ten rounds: the right action is the place of the largest number."""
    log_probs, rewards = [], []
    for _ in range(10):
        state = torch.rand(4)
        actions = torch.distributions.Categorical(logits=policy(state))
        action = actions.sample()
        log_probs.append(actions.log_prob(action))
        rewards.append(float(action == state.argmax()))
    return log_probs, rewards


for episode in count(1):
    log_probs, rewards = play()
    loss = -(torch.stack(log_probs) * (torch.tensor(rewards) - 0.25)).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    running_reward = 0.05 * sum(rewards) + 0.95 * running_reward
    if episode % 20 == 0:
        print(f"episode {episode}: running reward {running_reward:.4f}")
    if running_reward > 6.0 or episode == 400:
        break
print(sum(p.double().sum().item() for p in policy.parameters()))
