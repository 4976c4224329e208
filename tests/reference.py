"""The losses as slow, obvious NumPy float64 loops, written from the papers and the specification.

Snell et al. 2017: "Prototypical Networks for Few-shot Learning".
Chen et al. 2020: "A Simple Framework for Contrastive Learning of Visual Representations" (NT-Xent).
Khosla et al. 2020: "Supervised Contrastive Learning" (SupCon).
Szegedy et al. 2016: "Rethinking the Inception Architecture for Computer Vision", section 7 (label smoothing).
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

Vector = np.ndarray


def squared_distance(first: Vector, second: Vector) -> float:
    """sum over coordinates of (a - b)^2."""
    total = 0.0
    for a, b in zip(first, second, strict=True):
        total += (float(a) - float(b)) ** 2
    return total


def dot(first: Vector, second: Vector) -> float:
    total = 0.0
    for a, b in zip(first, second, strict=True):
        total += float(a) * float(b)
    return total


def unit(vector: Vector) -> Vector:
    """The vector scaled to length 1; the zero vector has no direction and stays."""
    length = math.sqrt(dot(vector, vector))
    return vector if length == 0.0 else vector / length


def mean(vectors: Sequence[Vector]) -> Vector:
    total = np.zeros_like(vectors[0])
    for vector in vectors:
        total = total + vector
    return total / len(vectors)


def rows(matrix: Sequence | np.ndarray) -> list[Vector]:
    return [np.array(row, dtype="float64") for row in np.asarray(matrix, dtype="float64")]


def logit(query: Vector, prototype: Vector, distance: str) -> float:
    """Minus the distance (Snell et al. 2017, eq. 2; PRL takes the root), or the cosine similarity."""
    if distance == "euclidean":
        return -math.sqrt(squared_distance(query, prototype))
    if distance == "squared":
        return -squared_distance(query, prototype)
    if distance == "cosine":
        return dot(unit(query), unit(prototype))
    raise ValueError(distance)


def negative_log_probability(logits: dict[int, float], answer: int) -> float:
    """-log softmax: -log( exp(l_answer) / sum_k exp(l_k) ); the largest logit is taken out so that exp is finite."""
    largest = max(logits.values())
    denominator = 0.0
    for value in logits.values():
        denominator += math.exp(value - largest)
    return math.log(denominator) + largest - logits[answer]


def smoothed_cross_entropy(logits: dict[int, float], answers: Sequence[int], label_smoothing: float) -> float:
    """-sum_k q(k) log p(k): 1 - eps of the target q evenly on the answers, eps evenly on all that has a logit."""
    total = 0.0
    for k in logits:
        target = label_smoothing / len(logits)
        if k in answers:
            target += (1 - label_smoothing) / len(answers)
        total += target * negative_log_probability(logits, k)
    return total


def class_prototypes(
    labels: Sequence[int], features: Sequence | np.ndarray, num_classes: int
) -> tuple[dict[int, Vector], dict[int, int]]:
    """Mean of each class that has samples (Snell et al. 2017, eq. 1), and the number of samples of every class."""
    prototypes, counts = {}, {}
    vectors = rows(features)
    for k in range(num_classes):
        members = [vector for label, vector in zip(labels, vectors, strict=True) if int(label) == k]
        counts[k] = len(members)
        if members:
            prototypes[k] = mean(members)
    return prototypes, counts


def number_of_queries(batch: int, query_fraction: float) -> int:
    """The fraction of the batch, rounded down, in exact arithmetic: 0.29 is 29/100 and 0.333... is 1/3."""
    return math.floor(batch * Fraction(query_fraction).limit_denominator(10_000))


def prototypical_loss(
    labels: Sequence[int],
    embeddings: Sequence | np.ndarray,
    num_classes: int,
    variant: str,
    distance: str,
    temperature: float = 1.0,
    query_fraction: float = 0.25,
    label_smoothing: float = 0.0,
) -> float:
    """Mean over answerable queries of -log p(y = own class | x) (Snell et al. 2017, eq. 1 and 2).

    standard: all are support and query. query: the last rows are queries, the others support.
    loo: all are queries, and the support of a query is all the others.
    label_smoothing: spread over the classes that have a prototype.
    """
    batch = len(labels)
    vectors = rows(embeddings)
    if distance == "cosine":
        vectors = [unit(vector) for vector in vectors]
    everyone = range(batch)
    queries, support = list(everyone), list(everyone)
    if variant == "query":
        first_query = batch - number_of_queries(batch, query_fraction)
        queries, support = list(everyone)[first_query:], list(everyone)[:first_query]

    losses = []
    for i in queries:
        voters = [j for j in support if not (variant == "loo" and j == i)]
        prototypes, _ = class_prototypes([labels[j] for j in voters], [vectors[j] for j in voters], num_classes)
        own = int(labels[i])
        if own not in prototypes:
            continue
        logits = {k: logit(vectors[i], prototype, distance) / temperature for k, prototype in prototypes.items()}
        losses.append(smoothed_cross_entropy(logits, [own], label_smoothing))
    return sum(losses) / len(losses) if losses else 0.0


def cross_view_loss(
    labels: Sequence[int],
    first_view: Sequence | np.ndarray,
    second_view: Sequence | np.ndarray,
    num_classes: int,
    distance: str = "cosine",
    temperature: float = 0.1,
    label_smoothing: float = 0.0,
) -> float:
    """Row i of one view is asked for its class among the class means of the other view's rows j != i; both ways."""
    total = 0.0
    for support, queries in ((first_view, second_view), (second_view, first_view)):
        vectors, asked = rows(support), rows(queries)
        if distance == "cosine":
            vectors, asked = [unit(v) for v in vectors], [unit(v) for v in asked]
        losses = []
        for i, query in enumerate(asked):
            voters = [j for j in range(len(vectors)) if j != i]
            prototypes, _ = class_prototypes([labels[j] for j in voters], [vectors[j] for j in voters], num_classes)
            if int(labels[i]) not in prototypes:
                continue
            logits = {k: logit(query, prototype, distance) / temperature for k, prototype in prototypes.items()}
            losses.append(smoothed_cross_entropy(logits, [int(labels[i])], label_smoothing))
        total += sum(losses) / len(losses) if losses else 0.0
    return total / 2


def nt_xent_loss(
    first_view: Sequence | np.ndarray,
    second_view: Sequence | np.ndarray,
    temperature: float = 0.1,
    label_smoothing: float = 0.0,
) -> float:
    """Chen et al. 2020, eq. 1: l(i, j) = -log( exp(sim(i, j) / t) / sum_{k != i} exp(sim(i, k) / t) ).

    Averaged over l(i, j) and l(j, i) of all positive pairs. label_smoothing: spread over all k != i.
    """
    z = [unit(row) for row in rows(first_view)] + [unit(row) for row in rows(second_view)]
    n = len(z) // 2

    def pair_loss(i: int, j: int) -> float:
        logits = {k: dot(z[i], z[k]) / temperature for k in range(2 * n) if k != i}
        return smoothed_cross_entropy(logits, [j], label_smoothing)

    return sum(pair_loss(k, n + k) + pair_loss(n + k, k) for k in range(n)) / (2 * n)


def supervised_contrastive_loss(
    labels: Sequence[int],
    embeddings: Sequence | np.ndarray,
    temperature: float = 0.1,
    label_smoothing: float = 0.0,
) -> float:
    """Khosla et al. 2020, eq. 2 (L_out), without the base temperature.

    Anchor i: -1 / |P(i)| sum_{p in P(i)} log( exp(z_i z_p / t) / sum_{a != i} exp(z_i z_a / t) ).
    Averaged over the anchors that have a positive. label_smoothing: spread over all a != i.
    """
    z = [unit(row) for row in rows(embeddings)]
    losses = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        if not positives:
            continue
        logits = {a: dot(z[i], z[a]) / temperature for a in others}
        losses.append(smoothed_cross_entropy(logits, positives, label_smoothing))
    return sum(losses) / len(losses) if losses else 0.0


def memory_loss(
    queries: Sequence | np.ndarray,
    query_rows: Sequence[int],
    memory: Sequence | np.ndarray,
    memory_labels: Sequence[int],
    num_classes: int,
    temperature: float,
    label_smoothing: float = 0.0,
    lam: Sequence[float] | None = None,
    soft_targets: Sequence | np.ndarray | None = None,
    soft_weight: float = 0.0,
) -> float:
    """Mean over answerable queries of -sum_k target_k log p_k, with prototypes of all rows but the query's sources.

    The sources are the query's own row and, if it is mixed, that of the query before it.
    """
    vectors, stored = rows(queries), rows(memory)
    losses = []
    for i, row in enumerate(query_rows):
        own_share = 1.0 if lam is None else float(lam[i])
        partner_row = query_rows[i - 1]
        sources = {int(row)} if own_share == 1.0 else {int(row), int(partner_row)}
        prototypes = {}
        for k in range(num_classes):
            members = [
                stored[n]
                for n in range(len(stored))
                if int(memory_labels[n]) == k and n not in sources and dot(stored[n], stored[n]) > 0
            ]
            if members:
                prototypes[k] = mean(members)
        own = int(memory_labels[row])
        if own not in prototypes or len(prototypes) < 2:
            continue
        logits = {k: dot(unit(vectors[i]), unit(prototype)) / temperature for k, prototype in prototypes.items()}

        weights = dict.fromkeys(prototypes, 0.0)
        weights[own] += own_share
        if int(memory_labels[partner_row]) in prototypes:
            weights[int(memory_labels[partner_row])] += 1.0 - own_share
        soft = {k: 0.0 if soft_targets is None else float(soft_targets[i][k]) for k in prototypes}
        loss = 0.0
        for k in prototypes:
            target = (1.0 - label_smoothing) * weights[k] / sum(weights.values()) + label_smoothing / len(prototypes)
            if soft_targets is not None:
                target = (1.0 - soft_weight) * target + soft_weight * soft[k] / sum(soft.values())
            loss += target * negative_log_probability(logits, k)
        losses.append(loss)
    return sum(losses) / len(losses) if losses else 0.0


CLASSIFIERS = ("linear probe", "kNN", "nearest prototype", "centred prototype", "ridge", "average")
