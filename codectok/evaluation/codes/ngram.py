"""Cost of codes for a small language model: bits a token of an n-gram model with back-off.

The model interpolates Witten and Bell's estimates ("The zero-frequency problem", 1991, in the form of Chen and
Goodman, "An empirical study of smoothing techniques for language modeling", 1998). With c(h, w) the number of times
that the token w follows the context h in the training tokens, c(h) their sum over w, T(h) the number of different
tokens that follow h, and h' the context h without its oldest token:

    p(w | h) = (c(h, w) + T(h) p(w | h')) / (c(h) + T(h))

Below the empty context lies the uniform distribution over the vocabulary. A context that training never met has
c(h) = T(h) = 0, and stands for h'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

ORDER = 3
# In each fold; fewer tokens show little but the uniform distribution.
MIN_TOKENS = 1000


def ngram_bits(
    sequences: Sequence[np.ndarray],
    vocabulary: int,
    folds: np.ndarray,
    order: int = ORDER,
    min_tokens: int = MIN_TOKENS,
) -> float | None:
    """Compute the bits a token of the best n-gram model up to an order, by cross-validation with two folds.

    Each token is scored by a model of the other fold. The first tokens of a sequence have shorter contexts, and no
    token stands for the end of a sequence. Long contexts that training met once or twice cost more than they save, so
    that the result is the least bits of all orders, where order 0 is the uniform distribution. It depends on the
    number of tokens, because more of them train a better model: compare codecs on the same clips.

    Args:
        sequences: codes [n_frames, n_codebooks] of each clip, which become tokens frame by frame, those of codebook k
            with the offset k * vocabulary / n_codebooks; or tokens [n].
        vocabulary: number of tokens, codebook_size * n_codebooks.
        folds: 0 or 1 for each sequence. Clips of one recording belong to one fold.
        order: length of the longest n-grams.
        min_tokens: None is returned if a fold has fewer tokens.
    """
    folds = np.asarray(folds)
    if folds.shape != (len(sequences),) or not np.isin(folds, (0, 1)).all():
        raise ValueError(f"folds must be 0 or 1 for each of the {len(sequences)} sequences")
    tokens = [_tokens(sequence, vocabulary) for sequence in sequences]
    lengths = np.array([len(sequence) for sequence in tokens], np.int64)
    of_folds = [int(lengths[folds == fold].sum()) for fold in (0, 1)]
    if min(of_folds) < max(1, min_tokens):
        return None
    second = np.repeat(folds == 1, lengths)
    places = np.arange(len(second)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    probabilities = np.full(len(second), 1 / vocabulary)
    bits = [float(np.log2(vocabulary))]
    for grams in _orders(np.concatenate(tokens), places, vocabulary, order):
        for scored in (second, ~second):
            _interpolate(probabilities, grams, ~scored[grams.positions], scored[grams.positions])
        bits.append(float(-np.log2(probabilities).mean()))
    return min(bits)


@dataclass(frozen=True)
class _Grams:
    """The n-grams of one order in a text.

    Attributes:
        positions: int64 [n], of their last tokens.
        ids: int64 [n], equal for equal n-grams, from 0 on.
        contexts: int64 [n], the ids of the n-grams of the next lower order that precede their last tokens.
        contexts_of_ids: int64 [number of different n-grams], the context of each id.
        n_contexts: number of different n-grams of the next lower order.
    """

    positions: np.ndarray
    ids: np.ndarray
    contexts: np.ndarray
    contexts_of_ids: np.ndarray
    n_contexts: int


def _tokens(sequence: np.ndarray, vocabulary: int) -> np.ndarray:
    codes = np.asarray(sequence)
    if codes.ndim not in (1, 2):
        raise ValueError(f"codes must have the shape [n_frames, n_codebooks] or [n], not {codes.shape}")
    n_codebooks = codes.shape[1] if codes.ndim == 2 else 1
    codebook_size = vocabulary // n_codebooks
    if codes.size and (codes.min() < 0 or codes.max() >= codebook_size):
        raise ValueError(f"codes must be from 0 to {codebook_size - 1}, the vocabulary divided by {n_codebooks}")
    codes = codes.astype(np.int64)
    if codes.ndim == 2:
        codes += codebook_size * np.arange(n_codebooks)
    flat: np.ndarray = codes.reshape(-1)
    return flat


def _orders(tokens: np.ndarray, places: np.ndarray, vocabulary: int, order: int) -> Iterator[_Grams]:
    """Iterate over the n-grams of each order from 1 on; `places` are places of tokens in their sequences."""
    ids_at = np.zeros(len(tokens), np.int64)  # of the n-gram of the last order that ends at each position
    n_contexts = 1
    for length in range(1, order + 1):
        positions = np.flatnonzero(places >= length - 1)
        contexts = ids_at[positions - 1] if length > 1 else ids_at[positions]
        keys, ids = np.unique(contexts * vocabulary + tokens[positions], return_inverse=True)
        yield _Grams(positions, ids, contexts, keys // vocabulary, n_contexts)
        ids_at[positions] = ids
        n_contexts = len(keys)


def _interpolate(probabilities: np.ndarray, grams: _Grams, trained: np.ndarray, scored: np.ndarray) -> None:
    """Replace p(w | h') by p(w | h) in place at the n-grams `scored`, with the counts of the n-grams `trained`."""
    counts = np.bincount(grams.ids[trained], minlength=len(grams.contexts_of_ids))
    of_contexts = np.bincount(grams.contexts[trained], minlength=grams.n_contexts)
    different = np.bincount(grams.contexts_of_ids[counts > 0], minlength=grams.n_contexts)
    contexts, positions = grams.contexts[scored], grams.positions[scored]
    total = of_contexts[contexts]
    known = total > 0
    contexts, positions, total = contexts[known], positions[known], total[known]
    types = different[contexts]
    lower = probabilities[positions]
    probabilities[positions] = (counts[grams.ids[scored][known]] + types * lower) / (total + types)
