"""What the assistant says of its own accord, in the language of its voice, whatever LANG is."""

from enum import Enum


class Phrase(Enum):
    """An occasion to speak."""

    AWAY = "away"
    LOST = "lost"
    BUSY = "busy"
    OVER_BUDGET = "over budget"
    FAILED = "failed"
    NOT_UNDERSTOOD = "not understood"
    NOTHING_TO_SAY = "nothing to say"
    NOTHING_TO_REPEAT = "nothing to repeat"
    DONE = "done"
    MICROPHONE_LOST = "microphone lost"
    MICROPHONE_BACK = "microphone back"
    SPEAKER_BACK = "speaker back"
    READY = "ready"


_SAID: dict[Phrase, dict[str, str]] = {
    Phrase.AWAY: {
        "en": "I cannot reach the assistant right now. I will go on when it is back.",
        "ko": "지금은 비서에 연결할 수 없어요. 다시 연결되면 계속할게요.",
    },
    Phrase.LOST: {
        "en": "The connection broke while I was answering. Please ask me again.",
        "ko": "대답하는 동안 연결이 끊어졌어요. 다시 물어봐 주세요.",
    },
    Phrase.BUSY: {
        "en": "I am busy with others. Please try again in a moment.",
        "ko": "지금은 다른 요청으로 바빠요. 잠시 뒤에 다시 말해 주세요.",
    },
    Phrase.OVER_BUDGET: {
        "en": "There is not enough memory to answer that.",
        "ko": "메모리가 부족해서 대답할 수 없어요.",
    },
    Phrase.FAILED: {
        "en": "Sorry, that did not work.",
        "ko": "죄송해요, 처리하지 못했어요.",
    },
    Phrase.NOT_UNDERSTOOD: {
        "en": "Sorry, I did not understand.",
        "ko": "죄송해요, 알아듣지 못했어요.",
    },
    Phrase.NOTHING_TO_SAY: {
        "en": "I have an answer, but nothing of it can be said aloud.",
        "ko": "대답은 있지만 소리 내어 말할 수 있는 내용이 없어요.",
    },
    Phrase.NOTHING_TO_REPEAT: {
        "en": "I have not said anything yet.",
        "ko": "아직 말한 것이 없어요.",
    },
    Phrase.DONE: {"en": "Okay.", "ko": "네."},
    Phrase.MICROPHONE_LOST: {
        "en": "The microphone is gone.",
        "ko": "마이크 연결이 끊어졌어요.",
    },
    Phrase.MICROPHONE_BACK: {
        "en": "I can hear you again.",
        "ko": "다시 들을 수 있어요.",
    },
    Phrase.SPEAKER_BACK: {
        "en": "I can speak again.",
        "ko": "다시 말할 수 있어요.",
    },
    Phrase.READY: {"en": "I am listening.", "ko": "듣고 있어요."},
}


def phrase(what: Phrase, language: str) -> str:
    """In `language` if there are words for it, else in English."""
    said = _SAID[what]
    return said.get(language.partition("-")[0], said["en"])
