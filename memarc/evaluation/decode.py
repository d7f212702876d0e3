"""Continues prompts token by token: greedy, by beam search, or sampled from a nucleus.

Axes: N rows in all, B rows of a batch, P prompt slots, M most new tokens, V vocabulary.
"""

import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.typing import ArrayLike

from memarc.evaluation import beam
from memarc.evaluation.decoding import Decoded, Decoder, DecodingConfig, log_probabilities, prefill
from memarc.typing import Array, Params, PyTree

DecodeFn = Callable[[Params, Params, ArrayLike, ArrayLike, Array], Decoded]
"""``(trainable, frozen, prompts, prompt_lengths, keys) -> Decoded``: `decode`, compiled."""

Carry = tuple[Array, Decoded, PyTree]
"""What a loop carries: the number of new tokens so far, what was written, and the cache."""


def decode(
    decoder: Decoder,
    config: DecodingConfig,
    prompts: Array,
    prompt_lengths: Array,
    end_id: int,
    keys: Array,
) -> Decoded:
    """Continues each prompt up to its end token or by M tokens; to be compiled.

    What a row becomes depends on its own prompt and key alone. The loop stops once none can change.

    Args:
      decoder: The model; its cache gets P + M slots.
      config: Method and limits.
      prompts: The prompts' tokens, int32[B, P], padded on the right by any token.
      prompt_lengths: The prompts' numbers of tokens, int32[B], each 1 to P.
      end_id: The token that ends a row.
      keys: Random keys [B], which sampling alone reads.

    Returns:
      The new tokens of each row.

    Raises:
      ValueError: If the arrays do not belong together, the end token is not in the vocabulary, or
        logits are narrower than float32.
    """
    rows = (len(prompts),)
    if prompts.ndim != 2 or prompt_lengths.shape != rows or keys.shape != rows:
        raise ValueError(
            f"prompts are {prompts.shape}, prompt_lengths {prompt_lengths.shape} and keys "
            f"{keys.shape}; give [B, P], [B] and [B]."
        )
    slots = prompts.shape[1] + config.max_tokens
    logits, cache = prefill(decoder, prompts, prompt_lengths, slots)
    if logits.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"The decoder's logits are {logits.dtype}; give float32.")
    vocabulary = logits.shape[-1]
    if vocabulary < 2 or not 0 <= end_id < vocabulary:
        raise ValueError(
            f"end_id is {end_id} in a vocabulary of {vocabulary}; give one of at least 2 tokens."
        )
    if config.method == "beam":
        return beam.search(decoder, config, prompt_lengths, end_id, logits, cache)
    return _one_by_one(decoder, config, prompt_lengths, end_id, keys, logits, cache)


def make_decode(
    make_decoder: Callable[[Params, Params], Decoder],
    config: DecodingConfig,
    end_id: int,
    compile_rows: Callable[[DecodeFn], DecodeFn],
) -> DecodeFn:
    """Builds the compiled function from prompts to their continuations.

    Args:
      make_decoder: ``(trainable, frozen) -> Decoder``. It is traced, so that parameters are
        arguments of the program and no part of it.
      config: Method and limits.
      end_id: The token that ends a row.
      compile_rows: ``jax.jit``, or `memarc.training.sharding.compile_rows` of a mesh.

    Returns:
      The function, compiled once per shape of the prompts.
    """

    def run(
        trainable: Params,
        frozen: Params,
        prompts: ArrayLike,
        prompt_lengths: ArrayLike,
        keys: Array,
    ) -> Decoded:
        decoder = make_decoder(trainable, frozen)
        given = jnp.asarray(prompts), jnp.asarray(prompt_lengths)
        return decode(decoder, config, *given, end_id, keys)

    return compile_rows(run)


def decode_all(
    decode_fn: DecodeFn,
    trainable: Params,
    frozen: Params,
    prompts: np.ndarray,
    prompt_lengths: np.ndarray,
    *,
    seed: int,
    rows: int,
) -> Decoded:
    """Continues any number of prompts in batches of one shape, with a progress bar.

    Args:
      decode_fn: What `make_decode` builds.
      trainable: Tuned parameters.
      frozen: The others.
      prompts: The prompts' tokens, int[N, P], padded on the right; N is at least 1.
      prompt_lengths: The prompts' numbers of tokens, int[N], each 1 to P.
      seed: The seed of samples (``DecodingConfig.seed``). Row n draws from the seed and n alone.
      rows: B; memory and speed only.

    Returns:
      The new tokens of the N rows in their order, as NumPy arrays.

    Raises:
      ValueError: If there are no rows, lengths do not fit the prompts, or ``rows`` is below 1.
    """
    _check_prompts(prompts, prompt_lengths, rows)
    count = len(prompts)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(count))
    batches = []
    # In a file every refresh is text that stays.
    interval = 0.5 if sys.stderr.isatty() else 10.0
    with tqdm.tqdm(total=count, desc="decoding", unit="row", mininterval=interval) as bar:
        for start in range(0, count, rows):
            kept = min(rows, count - start)
            # The last row fills up the last batch: copies of it end no later than it does.
            taken = np.minimum(np.arange(start, start + rows), count - 1)
            tokens = prompts[taken].astype(np.int32)
            lengths = prompt_lengths[taken].astype(np.int32)
            batch = jax.device_get(decode_fn(trainable, frozen, tokens, lengths, keys[taken]))
            batches.append(jax.tree.map(lambda leaf, kept=kept: leaf[:kept], batch))
            bar.update(kept)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)


def _check_prompts(prompts: np.ndarray, prompt_lengths: np.ndarray, rows: int) -> None:
    """Raises ValueError where prompts, their lengths and the batch size do not go together."""
    if rows < 1:
        raise ValueError(f"rows is {rows}; give at least 1.")
    if prompts.ndim != 2 or prompt_lengths.shape != prompts.shape[:1] or not len(prompts):
        raise ValueError(
            f"prompts are {prompts.shape} and prompt_lengths {prompt_lengths.shape}; give [N, P] "
            "and [N], N at least 1."
        )
    least, most = prompt_lengths.min(), prompt_lengths.max()
    if not 1 <= least <= most <= prompts.shape[1]:
        raise ValueError(
            f"prompt_lengths are {least} to {most}; give 1 to {prompts.shape[1]}, the prompts' "
            "padded length."
        )


def _one_by_one(
    decoder: Decoder,
    config: DecodingConfig,
    prompt_lengths: Array,
    end_id: int,
    keys: Array,
    logits: Array,
    cache: PyTree,
) -> Decoded:
    """Chooses tokens for good, one after the other, greedily or by sampling."""

    def goes_on(carry: Carry) -> Array:
        step, path, _ = carry
        return (step < config.max_tokens) & ~path.is_finished.all()

    def lengthen(carry: Carry) -> Carry:
        step, path, cache = carry
        newest = jax.lax.dynamic_index_in_dim(path.tokens, step - 1, axis=1)  # [B, 1]
        states, cache = decoder.extend(newest, prompt_lengths + (step - 1), cache)
        path = _append(config, end_id, keys, step, path, decoder.logits(states[:, 0]))
        return step + 1, path, cache

    rows = len(logits)
    path = Decoded(
        tokens=jnp.full((rows, config.max_tokens), end_id, jnp.int32),
        lengths=jnp.zeros(rows, jnp.int32),
        is_finished=jnp.zeros(rows, bool),
        log_probability=jnp.zeros(rows, logits.dtype),
    )
    path = _append(config, end_id, keys, jnp.int32(0), path, logits)
    _, path, _ = jax.lax.while_loop(goes_on, lengthen, (jnp.int32(1), path, cache))
    return path


def _append(
    config: DecodingConfig, end_id: int, keys: Array, step: Array, path: Decoded, logits: Array
) -> Decoded:
    """Writes token number ``step`` of every row; a finished row gets another end token."""
    scores = log_probabilities(config, step, path.tokens, logits)  # [B, V]
    if config.method == "greedy":
        chosen = scores.argmax(axis=1)
    else:
        chosen = _sample(config, jax.vmap(jax.random.fold_in, (0, None))(keys, step), scores)
    chosen = jnp.where(path.is_finished, end_id, chosen.astype(jnp.int32))  # [B]
    gained = jnp.take_along_axis(scores, chosen[:, None], axis=1)[:, 0]
    is_end = chosen == end_id
    return Decoded(
        tokens=path.tokens.at[:, step].set(chosen),
        lengths=path.lengths + (~is_end).astype(jnp.int32),
        is_finished=is_end,
        log_probability=path.log_probability + jnp.where(path.is_finished, 0.0, gained),
    )


def _sample(config: DecodingConfig, keys: Array, scores: Array) -> Array:
    """Draws one token of each row, int[B], from its nucleus; keys are [B], scores [B, V].

    The nucleus is the smallest set of likeliest tokens whose mass reaches top_p: the token that
    crosses it is in (Holtzman et al. 2020, arXiv:1904.09751, section 3.1).
    """
    # From the largest: no temperature, however low, takes all to minus infinity.
    scaled = (scores - scores.max(axis=1, keepdims=True)) / config.temperature
    if config.top_p == 1.0:  # No rounding of the sum below may leave a token out.
        return jax.vmap(jax.random.categorical)(keys, scaled)
    scaled, tokens = jax.lax.top_k(scaled, scaled.shape[1])  # [B, V], likeliest first
    mass = jax.nn.softmax(scaled).cumsum(axis=1)
    before = jnp.pad(mass[:, :-1], ((0, 0), (1, 0)))  # [B, V], of the likelier tokens
    is_inside = before < config.top_p
    place = jax.vmap(jax.random.categorical)(keys, jnp.where(is_inside, scaled, -jnp.inf))
    return jnp.take_along_axis(tokens, place[:, None], axis=1)[:, 0]
