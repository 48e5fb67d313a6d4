"""The defects by name: what DEFECT may say."""

from __future__ import annotations

from . import planted_answers as answers
from . import planted_leaks as leaks
from . import planted_slots as slots
from . import planted_states as states
from . import planted_turns as turns
from .server import Server

DEFECTS: dict[str, type[Server]] = {
    "none": Server,
    "shared_state": states.SharedState,
    "shared_record": states.SharedRecord,
    "sequential_state": states.SequentialState,
    "global_random": states.GlobalRandom,
    "leaked_slots": slots.LeakedSlots,
    "leaked_slots_on_close": slots.LeakedSlotsOnClose,
    "slowly_leaked_slots": slots.SlowlyLeakedSlots,
    "leaked_every_fortieth_slot": slots.LeakedEveryFortiethSlot,
    "deadlock_past_limit": slots.DeadlockPastLimit,
    "queues_past_limit": slots.QueuesPastLimit,
    "silent_hang": answers.SilentHang,
    "crash_on_bad_json": answers.CrashOnBadJson,
    "crash_session_on_bad_json": answers.CrashSessionOnBadJson,
    "wrong_code": answers.WrongCode,
    "memory_per_step": leaks.MemoryPerStep,
    "memory_per_session": leaks.MemoryPerSession,
    "thread_per_session": leaks.ThreadPerSession,
    "descriptor_per_session": leaks.DescriptorPerSession,
    "slower_with_time": leaks.SlowerWithTime,
    "unfair_lock": turns.UnfairLock,
    "blocking_step": turns.BlockingStep,
    # No defects: servers that can do less.
    "no_seed": states.NoSeed,
    "rare_event": states.RareEvent,
    "chance": states.Chance,
    "no_state": answers.NoState,
    "one_session": slots.OneSession,
}
