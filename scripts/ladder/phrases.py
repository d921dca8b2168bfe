"""The words of the ladder's task: values and how they are said, verbs and their phrasings.

Data for `slots.py` and `generate.py`, which draw from it in this order: changing an entry changes
every record that follows, the published evaluation file included.
"""

from __future__ import annotations

from typing import NamedTuple


class Form(NamedTuple):
    """A verb, the slots it needs in the order of the answer, and ways to say it."""

    verb: str
    slots: str  # names in SLOTS, space separated
    when: float  # share of the sentences that also say a time
    templates: tuple[str, ...]


def parts(text: str, separator: str = "/") -> tuple[str, ...]:
    """The entries of a text, with single spaces inside them."""
    return tuple(" ".join(entry.split()) for entry in text.split(separator))


def words(text: str) -> dict[str, tuple[str, ...]]:
    """`attic: attic/loft; ...` -> the value of each slot and the ways to say it."""
    pairs = (entry.split(":") for entry in parts(text, ";"))
    return {name: parts(said) for name, said in pairs}


ONES = parts(
    "zero/one/two/three/four/five/six/seven/eight/nine/ten/eleven/twelve/thirteen/fourteen/fifteen/"
    "sixteen/seventeen/eighteen/nineteen"
)
TENS = parts("//twenty/thirty/forty/fifty/sixty/seventy/eighty/ninety")
NUMBER_WORDS = {*ONES, *TENS}


ROOMS = words(
    "bedroom: bedroom/main bedroom; kitchen: kitchen; living_room: living room/lounge/sitting room;"
    "bathroom: bathroom; hallway: hallway/hall/corridor; office: office/study; garage: garage;"
    "attic: attic/loft; basement: basement/cellar; dining_room: dining room; library: library;"
    "kids_room: kids room/nursery; guest_room: guest room/spare room; laundry: laundry room;"
    "landing: landing; sunroom: sunroom/conservatory"
)
LAMPS = words(
    "lamp: lamp; ceiling: ceiling light/overhead light; desk_lamp: desk lamp; spots: spotlights;"
    "floor_lamp: floor lamp; fairy_lights: fairy lights/string lights; reading: reading light"
)
COLORS = words(
    "red: red; green: green; blue: blue; warm_white: warm white; cold_white: cold white;"
    "orange: orange; purple: purple/violet; pink: pink; yellow: yellow; turquoise: turquoise/teal"
)
MODES = words("eco: eco/energy saving; comfort: comfort; away: away; frost: frost protection")
MUSIC = words(
    "jazz: jazz/some jazz; rock: rock/rock music; classical: classical music/something classical;"
    "blues: the blues/some blues; folk: folk music; techno: techno; soul: soul/soul music;"
    "rain: rain sounds/the sound of rain; news: the news; radio: the radio; swing: swing;"
    "lullabies: lullabies/some lullabies; ambient: ambient music; opera: opera; salsa: salsa"
)
NAMES = words(
    "pasta: pasta; tea: tea; egg: egg; laundry: laundry; bread: bread; oven: oven; rice: rice;"
    "pizza: pizza; nap: nap; workout: workout; homework: homework; cake: cake; sauna: sauna"
)
DAYS = words(
    "monday: monday; tuesday: tuesday; wednesday: wednesday; thursday: thursday; friday: friday;"
    "saturday: saturday; sunday: sunday; weekdays: weekdays/every weekday; weekends: weekends;"
    "daily: every day/each day; tomorrow: tomorrow"
)
DOORS = words(
    "front: front door; back: back door; garage: garage door; cellar: cellar door/basement door;"
    "patio: patio door; side: side door; shed: shed door/shed; gate: gate/garden gate"
)
SCENES = words(
    "movie_night: movie night/movie time; dinner: dinner; party: party; good_night: good night;"
    "wake_up: wake up; reading: reading; focus: focus/deep work; romantic: romantic; guests: guests"
)
CITIES = words(
    "london: london; paris: paris; oslo: oslo; tokyo: tokyo; lagos: lagos; lima: lima;"
    "here: here; berlin: berlin; dublin: dublin; cairo: cairo; quito: quito; hanoi: hanoi"
)
LISTS = words("shopping: shopping list/grocery list; hardware: hardware list; gifts: gift list")
ITEMS = parts(
    "apples/oat milk/eggs/bananas/rice/onions/tea bags/light bulbs/batteries/candles/coffee/butter/"
    "garlic/lemons/paper towels/soap/screws/paint/pears/carrots/cheese/noodles/olive oil/tape/flour"
)
ERRANDS = (
    (
        parts("call/email/text/thank/visit"),
        parts("the plumber/mum/dad/anna/the bank/the dentist/mr jones/the vet"),
    ),
    (
        parts("buy/order/return/collect"),
        parts("the tickets/new shoes/a present/the parcel/stamps/a ladder"),
    ),
    (
        parts("clean/fix/check/empty"),
        parts("the fridge/the gutters/the car/the bins/the filter/the pond"),
    ),
    (parts("feed/walk/brush"), parts("the dog/the cat/the horse/the rabbits")),
    (
        parts("pay/renew/cancel/print"),
        parts("the rent/the insurance/the gas bill/the invoice/the subscription"),
    ),
)


def form(verb: str, slots: str, when_share: float, templates: str) -> Form:
    """A form whose phrasings are separated by slashes."""
    return Form(verb, slots, when_share, parts(templates))


# Verb, slots, share that also says a time, phrasings.
FORMS = (
    form("light.on", "light", 0.35, """turn on {light} / turn {light} on / switch on {light} /
        switch {light} on / put {light} on / i need {light} on / get {light} going"""),
    form("light.off", "light", 0.35, """turn off {light} / turn {light} off /
        switch off {light} / switch {light} off / shut {light} off / i want {light} off /
        kill {light}"""),
    form("light.set", "light level", 0.35, """set {light} to {level} / dim {light} to {level} /
        turn {light} down to {level} / turn {light} up to {level} / i want {light} at {level} /
        bring {light} to {level} brightness / give me {level} on {light} /
        put {light} at {level}"""),
    form("light.change", "light raise", 0.2, """turn {light} up by {raise} /
        raise {light} by {raise} / make {light} {raise} brighter / brighten {light} by {raise}
        / add {raise} to {light}"""),
    form("light.change", "light lower", 0.2, """turn {light} down by {lower} /
        lower {light} by {lower} / make {light} {lower} darker / dim {light} by {lower} /
        take {lower} off {light}"""),
    form("light.color", "light color", 0.2, """make {light} {color} / turn {light} {color} /
        change {light} to {color} / i want {color} for {light} / paint {light} in {color}"""),
    form("heat.set", "room degrees", 0.4, """set {room} to {degrees} / heat {room} to {degrees}
        / set the heating in {room} to {degrees} / i want {room} at {degrees} /
        bring {room} to {degrees} / set the thermostat to {degrees} in {room} /
        make it {degrees} in {room}"""),
    form("heat.change", "room warmer", 0.2, """make {room} {warmer} warmer /
        raise {room} by {warmer} / turn the heating up by {warmer} in {room} /
        i need {room} {warmer} warmer"""),
    form("heat.change", "room colder", 0.2, """make {room} {colder} cooler /
        lower {room} by {colder} / turn the heating down by {colder} in {room} /
        i need {room} {colder} colder"""),
    form("heat.mode", "mode until", 0, """put the heating in {mode} mode {until} /
        switch the heating to {mode} {until} / {until} use {mode} mode for the heating /
        {mode} heating {until} / set the thermostat to {mode} mode {until}"""),
    form("blind.open", "blind", 0.4, """open {blind} / raise {blind} / pull up {blind} /
        roll {blind} up / let the sun in through {blind}"""),
    form("blind.close", "blind", 0.4, """close {blind} / lower {blind} / pull down {blind} /
        shut {blind} / roll {blind} down"""),
    form("blind.set", "blind level", 0.3, """set {blind} to {level} / open {blind} to {level} /
        move {blind} to {level} / i want {blind} {level} open / raise {blind} to {level}"""),
    form("music.play", "music room", 0.2, """play {music} in {room} / put on {music} in {room}
        / i want to hear {music} in {room} / start {music} in {room} / in {room} play {music}"""),
    form("music.volume", "room level", 0.1, """set the volume in {room} to {level} /
        volume to {level} in {room} / turn the music in {room} to {level} /
        play at {level} in {room}"""),
    form("music.stop", "room", 0.3, """stop the music in {room} / silence in {room} /
        mute {room} / turn off the music in {room} / no more music in {room}"""),
    form("timer.start", "name duration", 0, """set a {name} timer for {duration} /
        start a timer of {duration} for the {name} / {duration} for the {name} timer /
        remind me about the {name} after {duration} / count down {duration} for the {name}"""),
    form("timer.change", "name duration", 0, """add {duration} to the {name} timer /
        give the {name} timer {duration} more / make the {name} timer {duration} longer"""),
    form("alarm.set", "time days", 0, """wake me at {time} {days} /
        set an alarm for {time} {days} / alarm at {time} {days} /
        {days} i need to get up at {time} / ring at {time} {days}"""),
    form("alarm.cancel", "time days", 0, """cancel the {time} alarm for {days} /
        delete the alarm at {time} for {days} / do not wake me at {time} {days} /
        forget the alarm for {time} {days}"""),
    form("lock.close", "door", 0.4, """lock the {door} / secure the {door} /
        make sure the {door} is locked"""),
    form("lock.open", "door", 0.3, """unlock the {door} / open the lock of the {door} /
        unbolt the {door}"""),
    form("vacuum.start", "room", 0.5, """vacuum {room} / clean {room} with the robot /
        send the robot to {room} / hoover {room} / start the vacuum in {room}"""),
    form("scene.start", "scene", 0.6, """start the {scene} scene / activate {scene} mode /
        it is {scene} time / set the scene for {scene} / run the {scene} scene /
        switch everything to {scene}"""),
    form("remind.add", "errand when", 0, """remind me to {errand} {when} /
        {when} remind me to {errand} / do not let me forget to {errand} {when} /
        i have to {errand} {when} / make a note to {errand} {when}"""),
    form("list.add", "item count list", 0, """add {count} {item} to the {list} /
        put {count} {item} on the {list} / we need {count} {item} on the {list} /
        the {list} needs {count} {item} / on the {list} write {count} {item}"""),
    form("list.remove", "item list", 0, """take {item} off the {list} /
        remove {item} from the {list} / delete {item} from the {list} /
        we do not need {item} on the {list} anymore"""),
    form("query.temperature", "room", 0, """how warm is it in {room} /
        what is the temperature in {room} / how cold is {room} /
        tell me the temperature of {room}"""),
    form("query.light", "light", 0, """is {light} on / did i leave {light} on /
        check whether {light} is on / tell me if {light} is still on"""),
    form("query.lock", "door", 0, """is the {door} locked / did i lock the {door} /
        check the {door} / tell me whether the {door} is locked"""),
    form("query.weather", "city day", 0, """what is the weather in {city} {day} /
        will it rain in {city} {day} / how is the weather going to be {day} in {city} /
        do i need an umbrella in {city} {day}"""),
    form("query.timer", "name", 0, """how long is left on the {name} timer /
        when is the {name} ready / how many minutes are left for the {name} /
        check the {name} timer"""),
)  # fmt: skip
POLITE_BEFORE = ("please", "could you", "can you please", "would you", "hey", "ok", "hello")
GREETINGS = ("hey", "hello", "ok", "hi there")
POLITE_AFTER = ("please", "thanks", "thank you", "if you can", "will you")
JOINS = (" and ", " and ", ", then ", " and then ", " and also ", ", after that ")
FIXES = (" no make that ", " no wait ", " sorry i mean ", " or rather ")
# First words that `could you` fits before.
IMPERATIVE = set(
    parts(
        """turn/switch/put/get/shut/kill/set/dim/bring/give/raise/make/brighten/add/lower/take/change/
        paint/heat/open/pull/roll/let/close/move/play/start/stop/mute/count/ring/cancel/delete/lock/
        secure/unlock/unbolt/vacuum/clean/send/hoover/activate/run/remind/remove/tell/check/wake"""
    )
)
