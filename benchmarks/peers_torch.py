"""The same network, losses and step in PyTorch, as one would write them there; a worker of benchmarks/peers.py.

Names of layers are those of prl_keras/models/resnet.py, so that weights and gradients are exchanged by name.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from peers_worker import CLASSES, TEMPERATURES, TWO_VIEWS, best_rate, embedded, made_up, serve

STEMS = {"imagenet": (7, 2, True), "small": (3, 2, True), "stride2": (3, 1, True), "stride1": (3, 1, False)}


class ConvNorm(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int):
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.1))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first, self.second = ConvNorm(inputs, outputs, 3, stride), ConvNorm(outputs, outputs, 3, 1)
        self.shortcut = ConvNorm(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class Network(nn.Module):
    """ResNet-18 without its classifier, and the projection head: images (n, 3, h, w) in 0..255 -> (n, 128)."""

    def __init__(self, stem: str, centred: bool):
        super().__init__()
        self.scale, self.offset = (1 / 127.5, -1.0) if centred else (1 / 255, 0.0)
        kernel, stride, pool = STEMS[stem]
        self.stem = ConvNorm(3, 64, kernel, stride)
        self.pool = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()
        sizes = ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
        pairs = ((Block(before, after, stride), Block(after, after, 1)) for before, after, stride in sizes)
        self.blocks = nn.Sequential(*(block for pair in pairs for block in pair))
        self.head = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(F.relu(self.stem(images * self.scale + self.offset)))
        return self.head(self.blocks(x).mean((2, 3)))

    def named(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Parameters by the names that they have in Keras."""
        pairs = [("stem", self.stem)]
        for number, block in enumerate(self.blocks):
            name = f"stage{number // 2 + 1}_block{number % 2 + 1}"
            pairs += [(f"{name}_1", block.first), (f"{name}_2", block.second), (f"{name}_shortcut", block.shortcut)]
        for name, (convolution, norm) in ((n, p) for n, p in pairs if isinstance(p, ConvNorm)):
            yield f"{name}_conv/kernel", convolution.weight
            yield from ((f"{name}_bn/gamma", norm.weight), (f"{name}_bn/beta", norm.bias))
        for name, layer in (("projection_hidden", self.head[0]), ("projection", self.head[2])):
            yield from ((f"{name}/kernel", layer.weight), (f"{name}/bias", layer.bias))


def prototypical(labels: Tensor, embeddings: Tensor, variant: str, classes: int) -> Tensor:
    """Euclidean distances to the prototypes; the last quarter of the rows are the queries of "query"."""
    queries = len(labels) // 4 if variant == "query" else 0
    support, known = (embeddings[:-queries], labels[:-queries]) if queries else (embeddings, labels)
    asked, answers = (embeddings[-queries:], labels[-queries:]) if queries else (embeddings, labels)
    members = F.one_hot(known, classes).to(embeddings.dtype)
    counts, sums = members.sum(0), members.T @ support
    logits = -torch.cdist(asked, sums / counts.clamp(min=1)[:, None])
    own = counts[answers]
    if variant == "loo":
        own = own - 1
        without = (sums[answers] - asked) / own.clamp(min=1)[:, None]
        logits = logits.scatter(1, answers[:, None], -torch.linalg.vector_norm(asked - without, dim=1)[:, None])
    logits = logits.masked_fill(counts == 0, -1e9)
    lost = F.cross_entropy(logits, answers, reduction="none")
    answerable = (own > 0).to(lost.dtype)
    return (lost * answerable).sum() / answerable.sum().clamp(min=1)


def contrastive(labels: Tensor, embeddings: Tensor, temperature: float) -> Tensor:
    """SupCon's L_out; with a label for each image NT-Xent."""
    unit = F.normalize(embeddings)
    itself = torch.eye(len(labels), dtype=torch.bool)
    log_probability = (unit @ unit.T / temperature).masked_fill(itself, -1e9).log_softmax(1)
    positive = (labels[:, None] == labels[None]) & ~itself
    count = positive.sum(1)
    per_anchor = -(log_probability * positive).sum(1) / count.clamp(min=1)
    return per_anchor[count > 0].mean()


def loss_of(variant: str, labels: Tensor, embeddings: Tensor, classes: int = CLASSES) -> Tensor:
    if variant in TWO_VIEWS:
        return contrastive(labels, embeddings, TEMPERATURES[variant])
    return prototypical(labels, embeddings, variant, classes)


def as_input(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous()


def views_labels(variant: str, labels: np.ndarray) -> Tensor:
    """Labels of the views that the loss sees: those of the images, twice where there are two views of each."""
    labels = torch.arange(len(labels)) if variant == "simclr" else torch.from_numpy(labels)
    return labels.repeat(2) if variant in TWO_VIEWS else labels


def step(
    size: int,
    batch: int,
    stem: str,
    variant: str,
    channels_last: bool = False,
    fused: bool = False,
    bfloat16: bool = False,
    compiled: bool = False,
) -> tuple[Callable[[], None], dict[str, Any]]:
    """A training step. The images are there as float32 in the layout that is wanted: no time is counted for that."""
    torch.manual_seed(0)
    images, labels = made_up(size, batch)
    inputs, answers = as_input(images), views_labels(variant, labels)
    inputs = inputs.repeat(2, 1, 1, 1) if variant in TWO_VIEWS else inputs
    network = Network(stem, centred=variant in ("simclr", "supcon"))
    if channels_last:
        network, inputs = (x.to(memory_format=torch.channels_last) for x in (network, inputs))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, eps=1e-7, **({"fused": True} if fused else {}))

    def loss_of_batch() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            embeddings = network(inputs)
        return loss_of(variant, answers, embeddings.float())

    forward = torch.compile(loss_of_batch, dynamic=False) if compiled else loss_of_batch

    def one() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = forward()
        loss.backward()
        optimizer.step()
        loss.item()

    return one, {}


def loss(variant: str, batch: int, classes: int) -> tuple[Callable[[], None], dict[str, Any]]:
    """Value and gradient of a loss alone."""
    values, labels = embedded(batch, classes)
    embeddings, labels = torch.from_numpy(values).requires_grad_(), torch.from_numpy(labels)

    def one() -> None:
        embeddings.grad = None
        loss_of(variant, labels, embeddings, classes).backward()

    return one, {}


def gradients(file: str, stem: str, variant: str, dtype: str) -> float:
    """The loss of the images and weights in the file; its gradients are written beside it, named as in Keras."""
    given = np.load(f"{file}.npz")
    kind = getattr(torch, dtype)
    network = Network(stem, centred=variant in ("simclr", "supcon")).to(kind)
    with torch.no_grad():
        for name, parameter in network.named():
            parameter.copy_(torch.from_numpy(turned(given[name], back=False)))
    value = loss_of(variant, torch.from_numpy(given["labels"]), network(as_input(given["images"]).to(kind)))
    value.backward()
    np.savez(f"{file}-theirs.npz", **{name: turned(one.grad.numpy(), back=True) for name, one in network.named()})
    return value.item()


def turned(values: np.ndarray, back: bool) -> np.ndarray:
    """Kernels of Keras (h, w, in, out), (in, out) -> of PyTorch (out, in, h, w), (out, in), or back."""
    if values.ndim == 4:
        values = values.transpose((2, 3, 1, 0) if back else (3, 2, 0, 1))
    return np.ascontiguousarray(values.T if values.ndim == 2 else values)


def matmul(dtype: str, sizes: list[int]) -> dict[str, float]:
    kind = getattr(torch, dtype)

    def multiply(size: int) -> Callable[[], Tensor]:
        first = torch.rand(size, size).to(kind)
        return lambda: (first @ first)[0, 0].item()

    return best_rate(multiply, sizes)


if __name__ == "__main__":
    serve({"step": step, "loss": loss}, {"gradients": gradients, "matmul": matmul})
