"""Claims about the choice by a wish: engine, rows at once and remat, from costs made by hand."""

import pytest

from memarc.privacy.ways import Way, choose, limit_of

# Bytes of a row, bytes beside, and work, of (engine, remat).
COSTS = {
    ("vmap", "none"): (100, 50, 10),
    ("ghost", "none"): (60, 40, 16),
    ("vmap", "layer"): (40, 50, 15),
    ("ghost", "layer"): (20, 30, 25),
}


def chosen(fit, *, rows=8, memory=10_000, refused=None, untapped=()):
    """What is chosen, and the ways that were compiled."""
    compiled = []

    def bytes_of(way):
        compiled.append(way)
        a_row, beside, _ = COSTS[way.engine, way.remat]
        taken = a_row * way.rows + beside
        return None if refused and taken > refused else taken

    found = choose(
        fit,
        ("vmap", "ghost"),
        ("none", "layer"),
        rows=rows,
        memory=memory,
        work_of=lambda w: None if w.engine in untapped else COSTS[w.engine, w.remat][2],
        bytes_of=bytes_of,
    )
    return found, compiled


def test_the_fastest_is_the_least_work_with_all_rows_and_one_is_compiled():
    found, compiled = chosen("fastest")
    assert found == Way("vmap", 8, "none") and compiled == [found]


@pytest.mark.parametrize(
    ("fit", "wanted"),
    [
        ("850B", Way("vmap", 8, "none")),  # 8 rows of 100 and 50.
        ("849B", Way("vmap", 8, "layer")),  # 1.5 times the least work comes before half the rows.
        ("369B", Way("vmap", 4, "layer")),
        ("100B", Way("vmap", 1, "layer")),  # 40 and 50.
        ("89B", Way("ghost", 2, "layer")),  # 20 * 2 and 30; nothing of little work fits.
        ("50B", Way("ghost", 1, "layer")),
    ],
)
def test_bytes_choose_little_work_then_most_rows_then_least_work(fit, wanted):
    found, compiled = chosen(fit)
    assert found == wanted == compiled[-1]
    for way in compiled[:-1]:
        a_row, beside, _ = COSTS[way.engine, way.remat]
        assert a_row * way.rows + beside > limit_of(fit)


def test_the_least_memory_takes_single_rows_at_any_work():
    found, compiled = chosen("least_memory")
    assert found == Way("ghost", 1, "layer") and {way.rows for way in compiled} == {1}


def test_a_device_that_is_smaller_than_what_is_allowed_is_the_limit():
    assert chosen("1KB", memory=369)[0] == chosen("369B")[0]
    assert chosen("fastest", refused=369)[0] == chosen("369B")[0]  # The compiler says so itself.
    assert chosen("fastest", rows=5, memory=330)[0] == Way("vmap", 5, "layer")
    assert chosen("fastest", rows=5, memory=249)[0] == Way("vmap", 3, "layer")  # Half, rounded up.


def test_engines_without_taps_are_left_out_and_nothing_that_fits_says_what_the_least_takes():
    assert chosen("89B", untapped=("vmap",))[0] == Way("ghost", 2, "layer")
    with pytest.raises(ValueError, match="the least takes 90 bytes"):
        chosen("89B", untapped=("ghost",))
    with pytest.raises(ValueError, match=r"fits 49 bytes.*the least takes 50 bytes"):
        chosen("least_memory", memory=49)
    with pytest.raises(ValueError, match="refuses all"):
        chosen("fastest", refused=9)
    with pytest.raises(ValueError, match="name an engine"):
        chosen("fastest", untapped=("vmap", "ghost"))


def test_bytes_are_read_with_their_unit():
    assert limit_of("12GiB") == 12 * 2**30 and limit_of("1.5 MB") == 1_500_000
    assert limit_of("fastest") is None and limit_of("7B") == 7
    for fit in ("12", "fast", "-1GB", "0GB", "1PB", "", "1GiBB"):
        with pytest.raises(ValueError, match="give 'balanced', 'least_memory', 'fastest', or"):
            limit_of(fit)
