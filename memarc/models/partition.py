"""Splits a parameter tree in two by path, joins the parts, and edits a tree at a path."""

from collections.abc import Callable

from flax import traverse_util

from memarc.typing import Params


def split(params: Params, chosen: Callable[[tuple[str, ...]], bool]) -> tuple[Params, Params]:
    """Splits nested dicts into (leaves whose path is chosen, the rest); empty dicts vanish."""
    flat = traverse_util.flatten_dict(params)
    inside = {path: leaf for path, leaf in flat.items() if chosen(path)}
    outside = {path: leaf for path, leaf in flat.items() if path not in inside}
    return traverse_util.unflatten_dict(inside), traverse_util.unflatten_dict(outside)


def join(first: Params, second: Params) -> Params:
    """Joins two trees without a common leaf; the inverse of `split`."""
    first, second = traverse_util.flatten_dict(first), traverse_util.flatten_dict(second)
    common = sorted(first.keys() & second.keys())
    if common:
        raise ValueError(f"Both trees hold {common}; a parameter is either trainable or frozen.")
    return traverse_util.unflatten_dict({**first, **second})


def get(tree: Params, path: tuple[str, ...]) -> Params:
    """Returns the part of a nested dict at a path."""
    for name in path:
        tree = tree[name]
    return tree


def replace(tree: Params, path: tuple[str, ...], value: Params) -> Params:
    """Returns nested dicts with one part replaced; shares all other parts."""
    if not path:
        return value
    return {**tree, path[0]: replace(tree[path[0]], path[1:], value)}
