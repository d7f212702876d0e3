"""A tiny random network with a cache, and the same in NumPy from scratch, without one.

Every new token depends on all before it, on their order and on where they stand: a wrong slot, a
wrong position or the cache of another beam shows.

Axes: R rows, S slots, n new tokens, D width, V vocabulary.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from memarc.evaluation.decode import decode
from memarc.evaluation.decoding import Decoder, DecodingConfig
from tests import fast_compile

WIDTH, LAYERS, LONGEST = 6, 2, 24
END = 1  # Neither the first token nor, in most tests, the last.
LENGTHS = np.asarray([3, 1, 5, 4, 2], np.int32)  # Of prompts.


def make_config(method, **changes):
    """A config that reads nothing but what is given."""
    given = dict(max_tokens=6, beams=1, length_penalty=0.0, no_repeat_ngram=0, top_p=1.0)
    return DecodingConfig(method, **(given | dict(temperature=1.0, seed=0) | changes))


def prompts(seed, vocabulary, lengths=LENGTHS):
    """int32[B, P]; what fills up to P is random as well."""
    shape = (len(lengths), max(lengths))
    return np.random.default_rng(seed).integers(0, vocabulary, shape, np.int32)


def prompts_of(given, lengths=LENGTHS):
    """The rows as tuples, without what fills them up."""
    return [tuple(map(int, row[:length])) for row, length in zip(given, lengths, strict=True)]


@functools.lru_cache
def compiled(config, on_extend=None):
    """``(weights, prompts, lengths, keys) -> Decoded``."""

    def run(given, prompts, lengths, keys):
        return decode(decoder(given, on_extend), config, prompts, lengths, END, keys)

    return jax.jit(run, compiler_options=fast_compile.options())


def run(config, given, prompts, lengths=LENGTHS, on_extend=None):
    """Decodes one batch; arrays come back as NumPy's."""
    keys = jax.random.split(jax.random.key(0), len(lengths))
    decoded = jax.device_get(compiled(config, on_extend)(given, prompts, lengths, keys))
    jax.effects_barrier()  # All calls of on_extend have been made.
    return decoded


def assert_row(decoded, row, new, log_probability):
    """One row is the given new tokens, which hold their end if they have one."""
    ends = END in new
    filled = [*new, *[END] * (decoded.tokens.shape[1] - len(new))]
    assert decoded.tokens[row].tolist() == filled
    assert decoded.lengths[row] == len(new) - ends
    assert decoded.is_finished[row] == ends
    np.testing.assert_allclose(decoded.log_probability[row], log_probability, rtol=1e-4, atol=1e-5)


def weights(seed, *, vocabulary, end_bias=0.0, sharpness=2.0):
    """Random weights; the end token's logit gets a bias."""
    draw = np.random.default_rng(seed).normal
    given = {
        "embedding": draw(size=(vocabulary, WIDTH)),
        "place": draw(size=(LONGEST, WIDTH)),
        "mix": draw(size=(LAYERS, WIDTH, WIDTH)),
        "out": sharpness * draw(size=(WIDTH, vocabulary)) / WIDTH**0.5,
        "bias": end_bias * np.eye(vocabulary)[END],
    }
    return jax.tree.map(lambda array: array.astype(np.float32), given)


def decoder(given, on_extend=None):
    """The network with a cache; ``on_extend()`` runs at each call of the compiled ``extend``."""

    def extend(tokens, start, cache):
        if on_extend is not None:
            jax.debug.callback(on_extend)
        rows, count = tokens.shape
        slots = jnp.arange(cache["read"].shape[2], dtype=jnp.int32)
        positions = start[:, None] + jnp.arange(count, dtype=jnp.int32)[None]  # [R, n]
        is_seen = slots[None, None] <= positions[:, :, None]  # [R, n, S]
        place = given["place"][positions]  # [R, n, D]
        hidden = given["embedding"][tokens] * place
        for layer in range(LAYERS):
            written = cache["read"].at[layer, jnp.arange(rows)[:, None], positions].set(hidden)
            cache = {"read": written}
            total = jnp.einsum("rns,rsd->rnd", is_seen.astype(hidden.dtype), written[layer])
            hidden = jnp.tanh(total @ given["mix"][layer]) * place
        return hidden, cache

    def logits(states):
        return states @ given["out"] + given["bias"][None]

    def empty_cache(rows, slots):
        return {"read": jnp.zeros((LAYERS, rows, slots, WIDTH), given["out"].dtype)}

    return Decoder(extend, logits, empty_cache)


def next_log_probabilities(given, tokens):
    """float64[V] after a whole sequence of tokens."""
    wide = jax.tree.map(lambda array: array.astype(np.float64), given)
    place = wide["place"][: len(tokens)]
    hidden = wide["embedding"][list(tokens)] * place
    for mix in wide["mix"]:
        hidden = np.tanh(hidden.cumsum(0) @ mix) * place
    logits = hidden[-1] @ wide["out"] + wide["bias"]
    return logits - np.log(np.exp(logits).sum())


def repeats(tokens, size):
    """Whether any ``size`` tokens in a row occur twice."""
    grams = [tokens[start : start + size] for start in range(len(tokens) - size + 1)]
    return size > 0 and len(set(grams)) < len(grams)


def allowed_log_probabilities(given, prompt, new, size):
    """Token -> log probability, without those that would repeat ``size`` tokens."""
    scores = next_log_probabilities(given, prompt + new)
    return {v: score for v, score in enumerate(scores) if not repeats((*new, v), size)}


def greedy(given, prompt, config):
    """(new tokens with their end, log probability)."""
    new, total = (), 0.0
    while len(new) < config.max_tokens and END not in new:
        scores = allowed_log_probabilities(given, prompt, new, config.no_repeat_ngram)
        best = max(scores, key=scores.__getitem__)
        new, total = (*new, best), total + scores[best]
    return new, total


def exhaustive(given, prompt, config):
    """The best of all sequences that end: (new tokens, log probability)."""
    others = [v for v in range(len(given["bias"])) if v != END]
    found = []
    for length in range(config.max_tokens):
        for new in itertools.product(others, repeat=length):
            new, total = (*new, END), 0.0
            for place, token in enumerate(new):
                total += next_log_probabilities(given, prompt + new[:place])[token]
            found.append((total / len(new) ** config.length_penalty, new, total))
    return max(found)[1:]


def beam_search(given, prompt, config):
    """With a pool of K hypotheses: (new tokens, log probability, steps until the best is sure)."""
    beams, penalty = config.beams, config.length_penalty
    live, pool, steps = [((), 0.0)], [], None
    for step in range(1, config.max_tokens + 1):
        grown = [
            ((*new, token), total + score)
            for new, total in live
            for token, score in allowed_log_probabilities(
                given, prompt, new, config.no_repeat_ngram
            ).items()
        ]
        grown.sort(key=lambda pair: -pair[1])
        ended = [pair for pair in grown[:beams] if pair[0][-1] == END]
        pool += [(total / len(new) ** penalty, new, total) for new, total in ended]
        pool = sorted(pool, reverse=True)[:beams]
        live = [pair for pair in grown if pair[0][-1] != END][:beams]
        lengths = range(step + 1, config.max_tokens + 1)
        reachable = max((live[0][1] / n**penalty for n in lengths if live), default=-np.inf)
        if steps is None and ((pool and reachable <= pool[0][0]) or step == config.max_tokens):
            steps = step
        if len(pool) == beams and reachable <= pool[-1][0]:
            break
    return (*(pool[0][1:] if pool else live[0]), steps)
