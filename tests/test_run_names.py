from hypothesis import given
from hypothesis import strategies as st

from dstack.model.refs import is_name
from dstack.model.run_names import ADJECTIVES, ANIMALS, new_name


@given(st.integers(0), st.integers(0), st.integers(0, 5))
def test_a_new_name_is_legal_and_free(adjective: int, animal: int, used: int) -> None:
    taken: list[str] = []
    for _ in range(used):
        taken.append(new_name(adjective, animal, taken))
    name = new_name(adjective, animal, taken)
    assert is_name(name)
    assert name not in taken
    assert name.endswith(f"-{used + 1}")


def test_the_first_free_number_is_taken() -> None:
    assert new_name(0, 0, {"able-alpaca-1", "able-alpaca-3"}) == "able-alpaca-2"


def test_words_are_many_and_all_different() -> None:
    for words in (ADJECTIVES, ANIMALS):
        assert len(words) == len(set(words)) == 64
