"""A small GRPO training loop whose processes meet only in a transfer queue.

Where to start reading:

* ``tasks``    what is asked and how an answer is judged
* ``policy``   the model that writes the answers
* ``queues``   how a process gets hold of the queue
* ``workers``  the stages: rollout, reward, reference
* ``trainer``  the loop that learns
* ``launch``   starts the processes, kills one, lets another join, counts
* ``report``   the picture and the numbers at the end
"""

import logging

# torch warns about one of its names that tensordict still uses; nothing here can change that.
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
