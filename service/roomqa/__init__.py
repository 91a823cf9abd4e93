"""Make RoomQA's rooms: ray-cast, with RGB, exact metric depth, and questions answered from what is visible.

`tosa-vqa scene` writes them, the embedded models know no others, and `evals.rooms` has the frozen splits.
"""
