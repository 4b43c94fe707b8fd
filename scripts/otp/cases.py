"""Random cases for a supervisor, in the words of crates/plimsoll/tests/otp/recorded.rs: cases.py COUNT SEED."""

import random
import sys

BOOT = ["a", "b", "c", "d"]
LATER = ["y", "z"]
CRASHES = ["crash", "crash", "crash", "normal", "shutdown", "term", "kill"]
count, seed = int(sys.argv[1]), int(sys.argv[2])
dice = random.Random(seed)


def meanwhile(others, ids):
    """What happens inside of a stop or of a start that fails."""
    if dice.random() < 0.75:
        return f"{dice.choice(others)}={dice.choice(CRASHES[1:])}"
    op = dice.choice(["restart", "delete", "start"])
    return f"{op}={dice.choice(LATER if op == 'start' else ids)}"


def spec(auto, name, ids, simple):
    restarts = ["permanent", "transient", "temporary"]
    restart = dice.choice(restarts if simple else ["permanent", *restarts])
    may = restart != "permanent" and auto != "never"
    significant = "significant" if may and dice.random() < 0.6 else "plain"
    shutdown = dice.choice(["40", "infinity", "brutal"])
    stop = dice.choice(["obey", "obey", "obey", "crash"])
    if shutdown == "40" and dice.random() < 0.2:
        stop = "linger"
    others = [other for other in ids if other != name]
    if not simple and shutdown != "brutal" and others and dice.random() < 0.25:
        stop = "obey/" + meanwhile(others, ids)
    return f"{name} {restart} {significant} {stop} {shutdown}"


def starts(name, boot, simple):
    """The first start and those after it. A supervisor that does not come up teaches little, so most first ones do."""
    first = ["ok"] * 12 + ([] if simple else ["ignore"])
    if name in LATER or simple or dice.random() < 0.1:
        first.append("fail")
    outcomes = [dice.choice(first)]
    for _ in range(dice.choice([1, 2, 3, 5])):
        outcome = dice.choice(["ok", "ok", "ok", "fail", "fail", "ok" if simple else "ignore"])
        if outcome == "fail" and not simple and len(boot) > 1 and dice.random() < 0.3:
            outcome += "/" + meanwhile([other for other in boot if other != name] or boot, boot + LATER)
        outcomes.append(outcome)
    return " ".join(outcomes)


def step(number, ids, simple):
    roll = dice.random()
    if simple and number < 2:
        return f"start {ids[number]}"
    if roll < 0.5:
        return f"end {dice.choice(ids)} {dice.choice(CRASHES)}"
    if simple:
        op = dice.choice(["start", "start", "start", "terminate", "count"])
        return op if op == "count" else f"{op} {dice.choice(ids)}"
    if roll < 0.62:
        return f"terminate {dice.choice(ids)}"
    if roll < 0.75:
        return f"restart {dice.choice(ids)}"
    if roll < 0.82:
        return f"delete {dice.choice(ids)}"
    return f"start {dice.choice(LATER)}" if roll < 0.95 else "count"


def case(number):
    auto = dice.choice(["never", "any_significant", "all_significant"])
    simple = dice.random() < 0.15
    strategy = "simple" if simple else dice.choice(["one_for_one", "one_for_all", "rest_for_one"])
    print(f"case {seed}.{number} {strategy} {dice.choice([0, 1, 2, 3, 5, 8])} {auto}")
    boot = [] if simple else BOOT[: dice.choice([1, 2, 3, 3, 4])]
    ids = BOOT if simple else boot + LATER
    if simple:
        print("child", spec(auto, "t", ["t"], True))
    for name in boot:
        print("child", spec(auto, name, boot, False))
    for name in [] if simple else LATER:
        print("spec", spec(auto, name, ids, False))
    for name in ids:
        if dice.random() < 0.6:
            print("starts", name, starts(name, boot, simple))
    for number in range(dice.choice([3, 6, 10])):
        print(step(number, ids, simple))
    print("stop")


for number in range(count):
    case(number)
