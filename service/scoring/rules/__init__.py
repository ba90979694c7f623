"""Rules: what a score is beyond points per event type. Pure.

A person's state is a set of sums, one per rule, which no order of events, batches or shards can change. The score is
a view of it: price times decayed count, then clamps, rounding and tiers (deploy/docs/rules.md).

| module | question |
|---|---|
| `model` | what a rule may say |
| `evaluate` | which rules an event meets, and what it gives them |
| `decay` | how sums lose weight with the days |
| `state` | what is kept of a person, and its bytes |
| `fold` | how an event changes the state |
| `view` | what the state shows on a given day |
"""
