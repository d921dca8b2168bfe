"""Text that every artifact can be tried on, written for this project.

PASSAGE is plain English prose, a few hundred words on one subject, for next-token distributions.
SAMPLES are short texts in which tokenizers differ: scripts, spaces, digits, code, symbols.
"""

from __future__ import annotations

NAME = "the built-in text"

PASSAGE = """\
The lighthouse keeper kept two notebooks. In the first he wrote the weather: the wind, the \
height of the waves, and the hour at which the fog came in. The second was for everything else. \
When the supply boat was late, he wrote down what was left in the pantry and how many days it \
would last. When a bird struck the glass, he drew it, and if it flew away again, he wrote that \
down as well.

Most days nothing happened. He climbed the stairs in the morning, put out the lamp, cleaned the \
lenses with a soft cloth and wound the clockwork that turned them. There were one hundred and \
twelve steps, and he no longer counted them. In the afternoon he mended what the salt had eaten: \
hinges, hooks, the chain of the well, the lock of the boathouse door. Iron lasts about ten years \
by the sea, brass a little longer, and paint only until the next winter.

One evening in October the light of a ship appeared far to the north, where no ship should have \
been. It stood still for an hour, then it moved slowly towards the rocks. The keeper had no \
telephone, and the radio had been silent since the storm of the week before. He had a flare gun \
with three flares, a bell, and the lamp itself. He thought about it for a moment. Then he ran up \
the stairs and did what the rules forbade: he stopped the clockwork, so that the beam no longer \
turned, and pointed it at the water between the ship and the rocks.

For a while nothing changed. The ship came on, and he could see now that it was a small \
freighter, low in the water, with a single light on its mast. He covered the lamp with his coat \
and uncovered it again, three times quickly, three times slowly, three times quickly. Then he \
waited. The wind blew the rain against the glass, and the whole tower hummed as it did in every \
storm. At last the light on the mast went out, came on again, and began to move to the left. The \
freighter passed the rocks with less than its own length to spare and went on towards the \
harbour.

He started the clockwork, and the beam turned again as if nothing had happened. In the first \
notebook he wrote: wind from the north-west, heavy rain, sea rough, lamp stopped for nineteen \
minutes. In the second he wrote that the freighter had a name on its stern, that he had not been \
able to read it, and that someone on board had waved.

The letter came in spring. It was from the captain, who thanked him and asked whether it was \
true that the light had stood still that night, because the insurance company did not believe \
it. The keeper thought about the rules, and about the boy who would have his post some day. Then \
he copied the page from the first notebook, word for word, signed it, and gave it to the man on \
the supply boat. "Is it bad news?" asked the man. "No," said the keeper, "only the weather."
"""

SAMPLES = (
    "The quick brown fox jumps over the lazy dog.",
    "It's we'll they've I'm you'd CAN'T",
    "Straße, Übergröße, naïve, façade, señor, Łódź, smørrebrød",
    "Привет, как дела? Сегодня 21 июля.",
    "東京は日本の首都です。",
    "今天天气很好，我们去公园吧。",  # noqa: RUF001
    "안녕하세요, 만나서 반갑습니다.",
    "مرحبا بالعالم، كيف حالك؟",
    "שלום עולם",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "Καλημέρα κόσμε",
    "1 12 123 1234 12345 3.14159 1,000,000 2024-02-29",
    "def add(a, b):\n    return a + b  # sum\n",
    "if (x != null && y >= 0) { z[i] += x->y; }\n",
    "a  b   c    d\te\t\tf",
    "line one\nline two\n\nline four\n",
    "🙂 👩‍🚀 🇪🇺 ✅ → ≤ ½ €",
    "https://example.org/a_b?c=d&e=%20#f",
    "...!!! --- ___ *** ((())) \"'`~",
    "ALL CAPS camelCase snake_case kebab-case",
    "supercalifragilisticexpialidocious",
)
