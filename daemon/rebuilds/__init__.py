"""Build new outputs of a pillow beside the live ones, and switch to them.

A pillow has builds, numbered from 1. Build N is live: it has the configured names, and the tail `cases`
writes it. A rebuild adds the build N + 1, with names of its own (`cases__2`), written by a tail of its own,
`cases~2`, that starts at the beginning under its own checkpoint and shares the live one's feed at the head.
That tail is an ordinary one: it is supervised, paused, verified, counted and shown like every other.

    building -> verifying -> ready -> switching -> switched -> dropping -> dropped
                                                       ^  |
                                             switching |  | switching
                                                       |  v
                                                    rolled-back -> dropping -> dropped

- `record.Rebuild` holds the facts about a pillow's builds: their numbers, the digests of their definitions,
  the state. `record.Rebuilds` keeps one for each pillow in a file, written durably before the next action.
- `definitions` decides which of a pillow's two definitions in the YAML (the pillow's own, and `next`) each
  build has, and so which tails run. Pure. A reload, a start and every command see the same tails.
- `builds.Builds` makes the objects that act on the targets of a build.
- `rebuilder.Rebuilder` executes requests, and decides when a step from state to state is due.
- `step_taker.StepTaker` takes that step.
- `tails.BuildTails` stops the tails of both builds meanwhile.
- `switch.Switch` exchanges two builds, in every target. The record in the state `switching` is the intent: it
  names the two builds and the finished steps. Each target records whether it has exchanged them, so after a
  crash all steps are simply repeated: nothing is guessed from names. Both tails are stopped meanwhile. If a
  target refuses, the exchange is undone by the same steps in the other direction.
- A transport takes part by `Transport.make_switch` (`pillows.transports.common.builds`); one that cannot
raises an error, and its pillow is not rebuilt.

After the switch the former build is kept under its number (`cases~1`, `cases__1`), and fed by a tail of its
own as long as its definition and code can be loaded, so that a roll-back shows current data. It is dropped
after `keep`.
"""
