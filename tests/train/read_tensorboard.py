# SPDX-License-Identifier: Apache-2.0
"""Prints what TensorBoard itself finds in an event folder, one `name step value time` a line, for the test beside it.

With --probe: exits 0 if TensorBoard can be imported, else 77.
"""
import sys

try:
    from tensorboard.backend.event_processing import plugin_event_accumulator
    from tensorboard.util import tensor_util
except ImportError:
    sys.exit(77)
if sys.argv[1] == "--probe":
    sys.exit(0)

events = plugin_event_accumulator.EventAccumulator(sys.argv[1], purge_orphaned_data=True)
events.Reload()
for tag in sorted(events.Tags()["tensors"]):
    is_text = events.SummaryMetadata(tag).plugin_data.plugin_name == "text"
    for event in events.Tensors(tag):
        value = tensor_util.make_ndarray(event.tensor_proto)
        print(tag, event.step, value[0].decode() if is_text else float(value), event.wall_time)
