"""Stop strings, however the text is cut into pieces."""

from hypothesis import given
from hypothesis import strategies as st

from engine.stops import StopMatcher

texts = st.text("ab.", max_size=20)


@given(texts, st.lists(st.text("ab.", min_size=1, max_size=4), max_size=3), st.data())
def test_nothing_of_a_stop_leaks(text: str, stops: list[str], data: st.DataObject) -> None:
    # the first stop string to be complete, and of these the longest
    found = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    end = min(found)[1] if found else len(text)
    matcher, out, rest, stopped = StopMatcher(stops), "", text, False
    while rest and not stopped:
        size = data.draw(st.integers(1, len(rest)))
        emit, stopped = matcher.push(rest[:size])
        out, rest = out + emit, rest[size:]
        # what is out can never have to be taken back
        assert text.startswith(out)
        assert len(out) <= end
    if found:
        assert (out, stopped) == (text[:end], True)
        assert matcher.push("more") == ("", True)
    else:
        assert out + matcher.flush() == text and not stopped
