"""The loss alone in a torch program: autograd goes through it; or its own pullback does."""

import torch

from agnostic_xent import cross_entropy

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
x = torch.randn(256, 8)
labels = (x @ torch.randn(8, 4)).argmax(dim=1)

for i in range(61):
    optimizer.zero_grad()
    loss = cross_entropy(model(x), labels, label_smoothing=0.1)
    loss.backward()
    optimizer.step()
    if i % 20 == 0:
        print(f"step {i:2d}: loss {loss.item():.4f}")

# without a graph: the value and the gradient of the logits in one pass
logits = model(x).detach()
loss, pullback = cross_entropy.vjp(logits, labels, wrt=(0,))
dlogits, _ = pullback(torch.ones_like(loss))
print("largest gradient of a logit:", f"{dlogits.abs().max().item():.2e}")
