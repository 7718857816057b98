"""Every number by which the gradient check decides, each with its reason.

A test on each side of each is in tests/gradcheck/test_thresholds.py. What was measured, was so on
150 random networks of 1 to 4 small layers, 20 seeds each, fresh and after 100 steps, on ordinary,
partly black and black images (tests/gradcheck/test_random_networks.py).
"""

import numpy as np

EPSILON = float(np.finfo(np.float64).eps)

# An entry passes up to this relative error. In float64 right layers show 7e-10 at h = 1e-5.
TOLERANCE = 1e-6

# A check passes if at most this part of each array's entries remains unjudged.
MOST_UNJUDGED = 0.01

# The rounding error of a value is taken to be at most so many EPSILON of its scale ...
ROUNDING = 20.0
# ... and so many times what it changes by if each layer's input is disturbed by one EPSILON:
# batch_norm of inputs that hardly vary multiplies rounding errors by up to 1 / sqrt(1e-5).
AMPLIFIED = 10.0
# So often is that tried; the largest change counts.
DISTURBANCES = 8

# Larger steps, where rounding errors count less, for what fails at the step asked for.
LARGER_STEPS = (1e-5, 1e-4, 1e-3)

# On a kink the slopes to both sides differ by as much at a tenth of the step; where the function
# only bends, by a tenth of that. Between the two lies a kink nearby that the smaller step misses.
JUMP_LASTS = 0.5
# Each slope has an error of up to 2 noise / step, so that their difference shows above this many.
JUMP_SHOWS = 4.0
# Next to a kink the derivative is one of the two slopes: half their difference from their mean.
NEAR_JUMP = 0.6
# The numerical value of a smooth function hardly changes with the step; within a tenth of the
# last step from a kink it changes by 4 times the gap that is left.
STILL_MOVING = 0.5

# An array whose largest entry is below this is jittered as if it were 0: by up to 0.1.
VANISHING = 1e-3

# The gradients of a shared step may differ by this part of the largest: sums in another order
# differ by some EPSILON.
SHARED_TOLERANCE = 1e-11

# Two gradients match if this part of their entries, for some may be kinks, ...
MATCHING_ENTRIES = 0.98
# ... agrees to this, ten times the tolerance that wrong ones exceed.
MATCHING = 1e-5
# A supposition explains an error if it leaves at most a tenth of it ...
EXPLAINED = 0.1
# ... in this part of the entries that failed.
MOST_ENTRIES = 0.9
# Fewer wrong entries than this lie in a range of inputs by chance.
RANGE_ENTRIES = 3
