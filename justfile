# Each recipe is one line and works without just by running that line.

# the recipes
default:
    @just --list

# the tour: three nodes on loopback, faults included
demo *args:
    cargo run --release -p mesh-node -- demo {{args}}

# all the tests, as CI runs them
test:
    scripts/test

# the loom models, two preemptions each; leaves target/loom/summary.json
loom *args:
    scripts/loom {{args}}

# the same, three preemptions
loom-deep *args:
    scripts/loom deep {{args}}

# end-to-end scenarios in full size: e2e [mesh|bounded] [--short]
e2e *args:
    scripts/e2e {{args}}

# known vulnerabilities in dependencies; exit code 3: unknown
audit:
    scripts/audit

# which requirements the last runs met, met in short form only, or left open; exit code 3: unknown, no run yet
requirements:
    scripts/requirements

# benchmarks against the peers, interleaved in one process: bench [call|supervisor|bounded|mesh]
bench part="mesh" *args:
    cargo bench --workspace --bench '{{part}}*' -- {{args}}

# a million calls under every fault, each settled once; PLIMSOLL_LEDGER_SEED replays a run
ledger calls="1000000":
    PLIMSOLL_LEDGER_CALLS={{calls}} cargo test --locked --release -p plimsoll --test ledger every_call -- --nocapture

# 300 servers called over and over with 2 MiB of temporaries a call, and the control; leaves target/e2e/erlang-load.json
erlang-load seconds="60":
    cargo run --locked --release -p plimsoll --example erlang_load -- {{seconds}}

# every cleanup path of calls and mailboxes switched off in turn: each makes its test fail
mutants-call *words:
    scripts/mutants-call {{words}}

# one-line mistakes in the pure rules, each noticed by a test or explained: mutants [GROUP...]; see scripts/mutation
mutants *groups:
    scripts/mutants {{groups}}

# N random one-line mistakes in mesh, console, mailbox, server and both programs; leaves target/mutants/sample.json
mutants-sample n="100" *args:
    scripts/mutants sample {{n}} {{args}}

# kill, stop and crash at every step of a supervisor's life, for ten minutes; scripts/test gives each of these tests seconds
stress seconds="600":
    PLIMSOLL_STRESS_SECONDS={{seconds}} cargo nextest run --locked --release -p plimsoll -E 'test(/stress_/)' --profile stress

# a million panics and five thousand stops, with a census before and after; one malloc arena: see the test's `resident`
storm:
    MALLOC_ARENA_MAX=1 PLIMSOLL_STORM=full cargo nextest run --release --profile full -p plimsoll --test supervision_storms --no-capture

# the supervisors against their references from a new seed; a difference prints the seed that replays it
model cases="100000":
    PLIMSOLL_FIRST_SEED=random PLIMSOLL_CASES={{cases}} cargo test --locked --release -p plimsoll --test supervisor_model --test dynamic_model -- --nocapture

# random supervisors run by Erlang/OTP here, and ours compared with its results; exit code 3: Erlang is missing
otp-compare cases="1000" seed="":
    scripts/otp/compare {{cases}} {{seed}}
