"""The list of broken mechanisms is of the code as it stands, and names tests that are there."""

import pathlib
import shlex

from tests import mutants


def test_the_page_says_of_every_mutant_of_the_list_that_it_was_killed():
    """The command that takes minutes writes it; a changed list asks for another run."""
    names = [mutant["name"] for mutant in mutants.read()]
    assert mutants.PAGE.read_text() == mutants.page(dict.fromkeys(names, True))


def test_every_mutant_changes_one_place_and_has_its_tests():
    found = mutants.read()
    assert len({mutant["name"] for mutant in found}) == len(found) >= 43
    for mutant in found:
        changed = mutants.mutated(mutant, mutants.ROOT)
        compile(changed, mutant["file"], "exec")
        assert mutant["tests"]
        for tests in mutant["tests"]:
            assert pathlib.Path(mutants.ROOT, shlex.split(tests)[0]).is_file()
