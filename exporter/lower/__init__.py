"""From memories to ops: what is planned, how a recurrence becomes ops of a target, and graphs traced from it."""
