"""After which epochs validation is looked at. Imports nothing: plans ask too."""

LOOKS = 50  # of a training with as many epochs or more; of few images looking takes longer than training


def looked_at(epochs: int, each: bool = False) -> list[int]:
    """The epochs, from 1: all, of 100 and more some 50 to 100, the first and the last among them. each: all of them."""
    every = 1 if each else max(1, epochs // LOOKS)
    return sorted({1, *range(every, epochs + 1, every), epochs})
