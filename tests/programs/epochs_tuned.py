"""A classifier of digits that is trained for some epochs, from its module's top."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import xaytune

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
images, labels = torch.as_tensor(images / 16.0).float(), torch.as_tensor(labels)
train_loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), 64, shuffle=True)

model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)

trial = xaytune.current_trial()
trial.keep(model=model, optimizer=optimizer, scheduler=scheduler)
for epoch in trial.epochs(range(1, 5)):
    model.train()
    for inputs, targets in trial.steps(train_loader):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        trial.log(loss=loss)
    model.eval()
    with torch.no_grad():
        accuracy = (model(images[1400:]).argmax(1) == labels[1400:]).float().mean().item()
    print(f"epoch {epoch}: loss {loss.item():.4f}, accuracy {accuracy:.4f}")
    trial.report(accuracy=accuracy)
    scheduler.step()
print(sum(p.double().sum().item() for p in model.parameters()))
